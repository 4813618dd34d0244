//! `ReportService2010.asmx`: what reports there are, and what their parameters may be.

use std::{collections::BTreeSet, fmt::Write as _};

use roxmltree::{Document, Node};

use super::{
    page::RsError,
    report::{Kind, ParameterState, Preset, Report, Resolved, Valid},
};

/// The namespace of the service; an operation's SOAPAction is this, a slash and its name.
pub(super) const NAMESPACE: &str = "http://schemas.microsoft.com/sqlserver/reporting/2010/03/01/ReportServer";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Parameters { item: String, rendering: bool, values: Vec<(String, Option<String>)> },
    List { item: String, recursive: bool },
}

impl Operation {
    /// The operation's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Parameters { .. } => "GetItemParameters",
            Self::List { .. } => "ListChildren",
        }
    }
    /// The item it is about.
    pub fn item(&self) -> &str {
        match self {
            Self::Parameters { item, .. } | Self::List { item, .. } => item,
        }
    }

    /// Reads a request. Header and body must name the same operation, as the server wants it.
    pub fn read(action: &str, body: &str) -> Result<Self, RsError> {
        let malformed = |what: &str| RsError::new("rsInvalidXml", format!("The XML is not valid: {what}"));
        let document = Document::parse(body).map_err(|error| malformed(&error.to_string()))?;
        let envelope = document.root_element();
        let asked = envelope.children().find(|node| node.tag_name().name() == "Body");
        let asked = asked.and_then(|body| body.children().find(Node::is_element));
        let asked = asked.filter(|node| node.tag_name().namespace() == Some(NAMESPACE));
        let asked = asked.ok_or_else(|| malformed("no operation of this service in its body"))?;
        let name = asked.tag_name().name();
        if action.trim_matches('"') != format!("{NAMESPACE}/{name}") {
            return Err(malformed(&format!("SOAPAction '{action}' is not that of {name}")));
        }
        let text = |name: &str| child_text(asked, name).unwrap_or_default();
        let item = text("ItemPath");
        match name {
            "GetItemParameters" => {
                let values = asked.descendants().filter(|node| node.tag_name().name() == "ParameterValue");
                let value = |node| Some((child_text(node, "Name")?, child_text(node, "Value")));
                Ok(Self::Parameters {
                    item,
                    rendering: text("ForRendering") == "true",
                    values: values.filter_map(value).collect(),
                })
            }
            "ListChildren" => Ok(Self::List { item, recursive: text("Recursive") == "true" }),
            _ => Err(malformed(&format!("{name} is not simulated"))),
        }
    }
}

/// The text of a child; `None` if it is not there or nil.
fn child_text(node: Node<'_, '_>, name: &str) -> Option<String> {
    let child = node.children().find(|child| child.tag_name().name() == name)?;
    let nil = child.attributes().any(|attribute| attribute.name() == "nil" && attribute.value() == "true");
    (!nil).then(|| child.text().unwrap_or_default().to_owned())
}

/// Text as it stands in XML or HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\">\
         <soap:Body>{body}</soap:Body></soap:Envelope>"
    )
}

/// The answer of `GetItemParameters`. Not for rendering, nothing that takes a query is evaluated.
pub(super) fn parameters(report: &Report, rendering: bool, values: &[(String, Option<String>)]) -> String {
    let resolved = report.resolve(values, rendering);
    let items: String = resolved.iter().map(|resolved| parameter(resolved, rendering)).collect();
    envelope(&format!(
        "<GetItemParametersResponse xmlns=\"{NAMESPACE}\"><Parameters>{items}</Parameters></GetItemParametersResponse>"
    ))
}

fn parameter(resolved: &Resolved<'_>, rendering: bool) -> String {
    let Resolved { parameter, valid, state, .. } = resolved;
    let mut out = String::from("<ItemParameter>");
    // A string takes no formatting errors.
    let mut put = |name: &str, text: &str| {
        let _ = write!(out, "<{name}>{}</{name}>", escaped(text));
    };
    let flag = |on: bool| if on { "true" } else { "false" };
    put("Name", &parameter.name);
    put("ParameterTypeName", kind_name(parameter.kind));
    put("Nullable", flag(parameter.nullable));
    put("AllowBlank", flag(parameter.kind == Kind::String));
    put("MultiValue", flag(parameter.multi));
    put("QueryParameter", "true");
    put("Prompt", if parameter.prompt { &parameter.name } else { "" });
    put("PromptUser", flag(parameter.prompt));
    if let Valid::By(parent, _) = &parameter.valid {
        let _ = write!(out, "<Dependencies><Dependency>{}</Dependency></Dependencies>", escaped(parent));
    }
    let by_query = matches!(parameter.valid, Valid::By(..));
    let _ = write!(out, "<ValidValuesQueryBased>{by_query}</ValidValuesQueryBased>");
    if let Some(valid) = valid.as_ref().filter(|_| rendering || !by_query) {
        out.push_str("<ValidValues>");
        for (label, value) in valid {
            let (label, value) = (escaped(label), escaped(value));
            let _ = write!(out, "<ValidValue><Label>{label}</Label><Value>{value}</Value></ValidValue>");
        }
        out.push_str("</ValidValues>");
    }
    let _ = write!(out, "<DefaultValuesQueryBased>{}</DefaultValuesQueryBased>", parameter.default == Preset::All);
    let defaults: Option<Vec<Option<&str>>> = match &parameter.default {
        Preset::None => None,
        Preset::All if by_query && !rendering => None,
        Preset::Null => Some(vec![None]),
        Preset::All => Some(valid.iter().flatten().map(|(_, value)| Some(value.as_str())).collect()),
        Preset::Values(values) => Some(values.iter().map(|value| Some(value.as_str())).collect()),
    };
    if let Some(defaults) = defaults {
        out.push_str("<DefaultValues>");
        for value in defaults {
            match value {
                Some(value) => out.push_str(&format!("<Value>{}</Value>", escaped(value))),
                None => out.push_str("<Value xsi:nil=\"true\" />"),
            }
        }
        out.push_str("</DefaultValues>");
    }
    let _ = write!(out, "<ParameterStateName>{}</ParameterStateName></ItemParameter>", state_name(*state));
    out
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "String",
        Kind::DateTime => "DateTime",
        Kind::Integer => "Integer",
        Kind::Float => "Float",
        Kind::Boolean => "Boolean",
    }
}

fn state_name(state: ParameterState) -> &'static str {
    match state {
        ParameterState::HasValidValue => "HasValidValue",
        ParameterState::MissingValidValue => "MissingValidValue",
        ParameterState::HasOutstandingDependencies => "HasOutstandingDependencies",
        ParameterState::DynamicValuesUnavailable => "DynamicValuesUnavailable",
    }
}

/// The answer of `ListChildren`: folders and reports below an item.
pub(super) fn children(reports: &[Report], item: &str, recursive: bool) -> Result<String, RsError> {
    let folder = item.trim_end_matches('/');
    let below: Vec<&str> =
        reports.iter().filter_map(|report| report.path.strip_prefix(folder)?.strip_prefix('/')).collect();
    if below.is_empty() && !folder.is_empty() {
        return Err(RsError::item_not_found(item));
    }
    let mut items = BTreeSet::new();
    for path in below {
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.push(path.len());
        let shown = if recursive { ends.len() } else { 1 };
        for end in &ends[..shown] {
            let kind = if *end == path.len() { "Report" } else { "Folder" };
            items.insert((format!("{folder}/{}", &path[..*end]), kind));
        }
    }
    let mut out = String::new();
    for (path, kind) in &items {
        let name = escaped(path.rsplit('/').next().unwrap_or_default());
        let path = escaped(path);
        let _ = write!(
            out,
            "<CatalogItem><Name>{name}</Name><Path>{path}</Path><TypeName>{kind}</TypeName><Hidden>false</Hidden></CatalogItem>"
        );
    }
    Ok(envelope(&format!(
        "<ListChildrenResponse xmlns=\"{NAMESPACE}\"><CatalogItems>{out}</CatalogItems></ListChildrenResponse>"
    )))
}

/// An error as a SOAP fault; comes with status 500.
pub(super) fn fault(error: &RsError) -> String {
    let text = escaped(&format!("{} ({})", error.text, error.code));
    envelope(&format!(
        "<soap:Fault><faultcode>soap:Client</faultcode><faultstring>System.Web.Services.Protocols.SoapException: {text}\n   at \
         Microsoft.ReportingServices.Library.ReportingService2010Impl</faultstring><detail>\
         <ErrorCode xmlns=\"http://www.microsoft.com/sql/reportingservices\">{}</ErrorCode>\
         <HttpStatus xmlns=\"http://www.microsoft.com/sql/reportingservices\">400</HttpStatus>\
         <Message xmlns=\"http://www.microsoft.com/sql/reportingservices\">{text}</Message></detail></soap:Fault>",
        error.code
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, inner: &str) -> Result<Operation, RsError> {
        let body = envelope(&format!("<{name} xmlns=\"{NAMESPACE}\">{inner}</{name}>"));
        Operation::read(&format!("\"{NAMESPACE}/{name}\""), &body)
    }

    #[test]
    fn requests_are_read_and_others_refused() {
        let inner = "<ItemPath>/A &amp; B</ItemPath><ForRendering>true</ForRendering><Values>\
                     <ParameterValue><Name>Line</Name><Value>L1</Value></ParameterValue>\
                     <ParameterValue><Name>Shift</Name></ParameterValue></Values>";
        let values = vec![("Line".to_owned(), Some("L1".to_owned())), ("Shift".to_owned(), None)];
        let expect = Operation::Parameters { item: "/A & B".to_owned(), rendering: true, values };
        assert_eq!(request("GetItemParameters", inner).unwrap(), expect);
        let list = request("ListChildren", "<ItemPath>/</ItemPath><Recursive>true</Recursive>").unwrap();
        assert_eq!(list, Operation::List { item: "/".to_owned(), recursive: true });
        assert!(request("DeleteItem", "").is_err());
        assert!(Operation::read("x/ListChildren", "<not xml").is_err());
        let body = envelope(&format!("<ListChildren xmlns=\"{NAMESPACE}\"/>"));
        assert!(Operation::read(&format!("{NAMESPACE}/GetItemParameters"), &body).is_err(), "another action");
    }

    /// An answer, a line for each element that holds text.
    fn shown(xml: &str) -> String {
        let document = Document::parse(xml).unwrap();
        let leaves =
            document.descendants().filter(|node| node.is_element() && !node.children().any(|c| c.is_element()));
        leaves.map(|node| format!("{} = {}\n", node.tag_name().name(), node.text().unwrap_or("∅"))).collect()
    }

    #[test]
    fn parameters_are_told_before_and_after_a_choice() {
        let report = Report::production_log(1);
        insta::assert_snapshot!("nothing_chosen", shown(&parameters(&report, true, &[])));
        let chosen = [("Line".to_owned(), Some("L3".to_owned()))];
        let text = shown(&parameters(&report, true, &chosen));
        assert!(text.contains("Value = S33\n") && !text.contains("Value = S21\n"), "{text}");
        let unevaluated = shown(&parameters(&report, false, &chosen));
        assert!(unevaluated.contains("DynamicValuesUnavailable") && !unevaluated.contains("S33"), "{unevaluated}");
    }

    #[test]
    fn folders_are_listed_step_by_step_or_at_once() {
        let reports: Vec<_> = ["/A/B/One", "/A/Two", "/Three"].map(|path| Report::new(path, 1)).into();
        let check = |item: &str, recursive: bool, expect: &[&str]| {
            let xml = children(&reports, item, recursive).unwrap();
            let document = Document::parse(&xml).unwrap();
            let paths = document.descendants().filter(|node| node.tag_name().name() == "Path");
            assert_eq!(paths.filter_map(|node| node.text()).collect::<Vec<_>>(), expect);
        };
        check("/", false, &["/A", "/Three"]);
        check("/", true, &["/A", "/A/B", "/A/B/One", "/A/Two", "/Three"]);
        check("/A", false, &["/A/B", "/A/Two"]);
        assert_eq!(children(&reports, "/Nowhere", true).unwrap_err().code, "rsItemNotFound");
    }
}
