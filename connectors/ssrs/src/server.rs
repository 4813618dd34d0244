//! The report server: which calls there are, each through the door.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use towpath_core::{Call, Context, Effect, Error, Lease, Period, Result};
use towpath_http::{Client, HeaderName, HeaderValue, Request, Response, Url, header, origin};

use crate::{
    answers::{self, LOOKED_AT},
    config::SsrsOptions,
    parameters::{Cascade, Chosen, Definition, Step},
    soap::{self, Item, Soap},
    url_access::Render,
};

/// The most a SOAP answer may have: a list of tens of thousands of values or reports.
const LARGEST_ANSWER: usize = 64 << 20;
/// How long a SOAP call may take: the queries behind valid values have 30 s each on the server.
const SOAP_DEADLINE: Duration = Duration::from_secs(120);

/// The report server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    ctx: Context,
    client: Client,
    options: Arc<SsrsOptions>,
    endpoint: Url,
    origin: String,
}

/// A report on its way.
pub struct Rendering {
    /// The answer; its head says CSV.
    pub response: Response,
    /// The beginning of its body.
    pub beginning: Option<Bytes>,
    /// Until when the server is busy.
    pub lease: Lease,
}

/// Parameters, resolved.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What is sent.
    pub chosen: Vec<Chosen>,
    /// What the server said last; nothing if it was not asked.
    pub definitions: Vec<Definition>,
}

impl Server {
    /// Speaks with the server of the options; connects to nothing yet.
    ///
    /// # Errors
    /// Config.
    pub fn new(options: &Arc<SsrsOptions>, ctx: &Context) -> Result<Self> {
        let mut http = options.http.clone();
        // A report is silent while it is rendered.
        http.timeouts.first_byte.get_or_insert(options.deadline);
        let client = Client::new(&http, ctx)?;
        let mut endpoint = options.url.clone();
        endpoint.set_path(&format!("{}/ReportService2010.asmx", options.url.path().trim_end_matches('/')));
        let (options, origin) = (Arc::clone(options), origin(&options.url));
        Ok(Self { ctx: ctx.clone(), client, options, endpoint, origin })
    }

    async fn soap(&self, what: &str, item: &str, soap: &Soap) -> Result<String> {
        let call =
            Call::new(format!("{what} {item}"), &self.origin, Effect::Cheap).resource(item).deadline(SOAP_DEADLINE);
        let header =
            |text: &str| HeaderValue::from_str(text).map_err(|_| Error::internal("a header cannot be written"));
        let action = header(&soap.action)?;
        let language = header(&self.options.parameter_language)
            .map_err(|_| Error::config("parameter_language is not the name of a language").hint("write en-US"))?;
        self.ctx
            .call(&call, || async {
                let request = Request::post(self.endpoint.clone(), soap.body.clone())
                    .header(header::CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=utf-8"))
                    .header(HeaderName::from_static("soapaction"), action.clone())
                    .header(header::ACCEPT_LANGUAGE, language.clone())
                    .denied(answers::denied);
                let answer = self.client.send(request).await.map_err(|error| answers::explained(error, item))?;
                answer.text(LARGEST_ANSWER).await
            })
            .await
    }

    /// A report's parameters, with what was chosen so far.
    ///
    /// # Errors
    /// Of the call; Data if the answer is not understood.
    pub async fn definitions(&self, chosen: &[Chosen]) -> Result<Vec<Definition>> {
        let report = &self.options.report;
        let answer = self.soap("ask for the parameters of", report, &soap::get_item_parameters(report, chosen)).await?;
        soap::read_parameters(&answer).map_err(|error| error.at(self.endpoint.as_str()))
    }

    /// Everything below a folder.
    ///
    /// # Errors
    /// Of the call; Data if the answer is not understood.
    pub async fn list(&self, folder: &str) -> Result<Vec<Item>> {
        let answer = self.soap("list", folder, &soap::list_children(folder)).await?;
        soap::read_children(&answer).map_err(|error| error.at(self.endpoint.as_str()))
    }

    /// Walks the parameters down until all are chosen and valid. `window`: the values of the window's parameters.
    ///
    /// # Errors
    /// Of the calls; Config, Data or Unavailable if they do not come to an end.
    pub async fn resolve(&self, window: Vec<Chosen>) -> Result<Resolved> {
        let mut cascade = Cascade::new(&self.options.parameters, window);
        // Each answer lets at least one parameter be chosen.
        for _ in 0..self.options.parameters.len() + 2 {
            let chosen = cascade.chosen();
            let definitions = self.definitions(&chosen).await?;
            if cascade.answered(&definitions)? == Step::Done {
                return Ok(Resolved { chosen, definitions });
            }
        }
        Err(Error::data("the parameters of the report do not settle").at(&self.options.report))
    }

    /// Renders the report. `what`: in words, for logs. The answer has begun when this returns, and is CSV.
    ///
    /// # Errors
    /// Of the call; what the server says in place of CSV.
    pub async fn render(&self, what: &str, parameters: &[Chosen]) -> Result<Rendering> {
        let Self { options, client, .. } = self;
        let report = options.report.as_str();
        let Period(deadline) = options.deadline;
        let call = Call::new(what, &self.origin, Effect::Read).resource(report).deadline(deadline);
        let render = Render {
            service: &options.url,
            report,
            format: &options.format,
            language: &options.parameter_language,
            device: options.device.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            parameters,
        };
        let render = &render;
        let attempt = || async move {
            let request = render.request()?.denied(answers::denied);
            let mut response = client.send(request).await.map_err(|error| answers::explained(error, report))?;
            let beginning = response.chunk().await?;
            if answers::is_csv(&response.headers, beginning.as_deref().unwrap_or_default()) {
                return Ok((response, beginning));
            }
            let (status, headers) = (response.status, response.headers.clone());
            let mut text = beginning.unwrap_or_default().to_vec();
            // What the page says is worth more than how it broke off.
            while text.len() < LOOKED_AT
                && let Ok(Some(chunk)) = response.chunk().await
            {
                text.extend_from_slice(&chunk);
            }
            text.truncate(LOOKED_AT);
            Err(answers::not_csv(status, headers, String::from_utf8_lossy(&text).into_owned(), report))
        };
        let ((response, beginning), lease) = self.ctx.stream(&call, attempt).await?;
        if let Some(bytes) = response.content_length() {
            self.ctx.expect_bytes(bytes);
        }
        Ok(Rendering { response, beginning, lease })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.origin)
    }
}
