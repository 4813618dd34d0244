//! URL access: the request that renders a report. Pure.
//!
//! `…/ReportServer?/Folder/Report&rs:Command=Render&rs:Format=CSV&From=2026-01-01&Line=L1&Line=L2&Shift:isnull=true`. The report stands
//! first and without a name; a list is its name repeated; the colon in names stays as it is, which the usual URL builders do not
//! allow. When that gets long, everything but the report goes into the body of a POST.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use towpath_core::{Error, Result};
use towpath_http::{HeaderValue, Request, Url, header};

use crate::parameters::Chosen;

/// Longer queries go by POST. ASP.NET refuses a query past 2,048 characters where nobody has raised its limit.
const LONGEST_QUERY: usize = 2_000;
/// The server refuses longer values, however they come.
const LONGEST_VALUE: usize = 65_520;
/// The server refuses larger bodies where nobody has raised its limit.
const LARGEST_BODY: usize = 4 << 20;

/// What stays as it is in a name or value.
const TEXT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// In the path of the report too.
const PATH: &AsciiSet = &TEXT.remove(b'/');
/// In the names of parameters too: `rs:Format`.
const NAME: &AsciiSet = &TEXT.remove(b':');

/// What is rendered, and how.
#[derive(Clone, Debug)]
pub struct Render<'a> {
    /// The web service.
    pub service: &'a Url,
    /// The report's path.
    pub report: &'a str,
    /// The renderer.
    pub format: &'a str,
    /// In which language the server reads the parameters.
    pub language: &'a str,
    /// Device settings, without `rc:`.
    pub device: Vec<(&'a str, &'a str)>,
    /// The report's parameters.
    pub parameters: &'a [Chosen],
}

impl Render<'_> {
    /// The request.
    ///
    /// # Errors
    /// Config, if the server would refuse it for its size.
    pub fn request(&self) -> Result<Request> {
        let item = utf8_percent_encode(self.report, PATH).to_string();
        let pairs = self.pairs()?;
        let mut url = self.service.clone();
        if item.len() + 1 + pairs.len() <= LONGEST_QUERY {
            url.set_query(Some(&format!("{item}&{pairs}")));
            return Ok(Request::get(url));
        }
        if pairs.len() > LARGEST_BODY {
            let what =
                format!("the values of the parameters take {} bytes, and the server takes {LARGEST_BODY}", pairs.len());
            return Err(
                Error::config(what).hint("leave parameters out whose default is all values, or split the report")
            );
        }
        url.set_query(Some(&item));
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        Ok(Request::post(url, pairs).header(header::CONTENT_TYPE, form))
    }

    fn pairs(&self) -> Result<String> {
        let mut out = String::new();
        let mut put = |name: &str, value: &str| {
            if !out.is_empty() {
                out.push('&');
            }
            out.extend(utf8_percent_encode(name, NAME));
            out.push('=');
            out.extend(utf8_percent_encode(value, TEXT));
        };
        put("rs:Command", "Render");
        put("rs:Format", self.format);
        put("rs:ParameterLanguage", self.language);
        put("rc:ExcelMode", "False");
        for (name, value) in &self.device {
            put(&format!("rc:{name}"), value);
        }
        for (name, value) in self.parameters.iter().flat_map(Chosen::pairs) {
            match value {
                None => put(&format!("{name}:isnull"), "true"),
                Some(value) if value.len() > LONGEST_VALUE => {
                    let what = format!("the value has {} bytes, and the server takes {LONGEST_VALUE}", value.len());
                    return Err(Error::config(what).at(format!("parameters.{name}")));
                }
                Some(value) => put(name, value),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use towpath_http::{Body, Method};

    use super::*;

    fn request(report: &str, parameters: &[Chosen]) -> Result<Request> {
        let service: Url = "https://reports.example/ReportServer".parse().unwrap();
        let device = vec![("FieldDelimiter", ";")];
        Render { service: &service, report, format: "CSV", language: "en-US", device, parameters }.request()
    }

    #[test]
    fn a_short_request_is_a_query() {
        let parameters = [
            Chosen::one("From", "2026-01-31T05:00:00"),
            Chosen { name: "Line".into(), values: vec![Some("L1".into()), Some("a&b=c +%/ü".into())] },
            Chosen { name: "Shift".into(), values: vec![None] },
            Chosen::one("Empty", ""),
        ];
        let request = request("/Manufacturing/Prüf log & more", &parameters).unwrap();
        assert_eq!(request.method, Method::GET);
        insta::assert_snapshot!(request.url.as_str().replace('&', "\n&"));
    }

    #[test]
    fn a_long_request_is_a_form_with_the_report_in_the_url() {
        let values = (0..200).map(|n| Some(format!("Station {n:03}"))).collect();
        let request = request("/A B/R", &[Chosen { name: "Station".into(), values }]).unwrap();
        assert_eq!(
            (request.method, request.url.as_str()),
            (Method::POST, "https://reports.example/ReportServer?/A%20B/R")
        );
        let Body::Bytes(body) = request.body else { panic!("no body") };
        let body = std::str::from_utf8(&body).unwrap();
        assert!(
            body.starts_with("rs:Command=Render&rs:Format=CSV&rs:ParameterLanguage=en-US&rc:ExcelMode=False&"),
            "{body}"
        );
        assert_eq!(body.matches("&Station=Station%20").count(), 200);
    }

    #[test]
    fn what_the_server_refuses_for_its_size_is_not_sent() {
        let check = |value: usize, values: usize, expect: &str| {
            let values = vec![Some("x".repeat(value)); values];
            let error = request("/R", &[Chosen { name: "P".into(), values }]).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check(65_521, 1, "parameters.P: the value has 65521 bytes, and the server takes 65520");
        check(60_000, 70, "the values of the parameters take 4200309 bytes, and the server takes 4194304");
    }

    proptest::proptest! {
        #[test]
        fn what_is_sent_is_read_back(name in "[A-Za-z_][A-Za-z0-9_]{0,8}", values in proptest::collection::vec("\\PC{0,20}", 1..40)) {
            let values: Vec<_> = values.into_iter().map(Some).collect();
            let request = request("/R", &[Chosen { name: name.clone(), values: values.clone() }]).unwrap();
            let sent = match &request.body {
                Body::Bytes(body) => String::from_utf8(body.to_vec()).unwrap(),
                _ => request.url.query().unwrap().to_owned(),
            };
            let read = url::form_urlencoded::parse(sent.as_bytes()).filter(|(key, _)| *key == name);
            proptest::prop_assert_eq!(read.map(|(_, value)| Some(value.into_owned())).collect::<Vec<_>>(), values);
        }
    }
}
