//! `ReportService2010.asmx`: what reports there are, and what their parameters may be. Requests and answers as text; who sends
//! them stands in `client`. After the WSDL of SQL Server 2008 R2 and later.

use std::fmt::Write as _;

use roxmltree::{Document, Node, ParsingOptions};
use towpath_core::{Error, Result};

use crate::parameters::{Chosen, Definition, Settled};

/// The namespace of the service; an operation's SOAPAction is this, a slash and its name.
const NAMESPACE: &str = "http://schemas.microsoft.com/sqlserver/reporting/2010/03/01/ReportServer";

/// A report or folder.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Item {
    /// Its path: `/Sales/Orders`.
    pub path: String,
    /// `Report`, `LinkedReport`, `Folder` …
    pub kind: String,
    /// What its author says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A SOAP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soap {
    /// The header `SOAPAction`.
    pub action: String,
    /// The body.
    pub body: String,
}

fn request(operation: &str, inner: &str) -> Soap {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\">\
         <soap:Body><{operation} xmlns=\"{NAMESPACE}\">{inner}</{operation}></soap:Body></soap:Envelope>"
    );
    Soap { action: format!("\"{NAMESPACE}/{operation}\""), body }
}

/// Asks for a report's parameters, given what was chosen so far.
pub fn get_item_parameters(report: &str, chosen: &[Chosen]) -> Soap {
    let mut values = String::new();
    for (name, value) in chosen.iter().flat_map(Chosen::pairs) {
        let _ = write!(values, "<ParameterValue><Name>{}</Name>", escaped(name));
        // Without a Value it is null.
        if let Some(value) = value {
            let _ = write!(values, "<Value>{}</Value>", escaped(value));
        }
        values.push_str("</ParameterValue>");
    }
    let report = escaped(report);
    // For rendering: only then are the queries behind valid values run.
    let inner = format!("<ItemPath>{report}</ItemPath><ForRendering>true</ForRendering><Values>{values}</Values>");
    request("GetItemParameters", &inner)
}

/// Asks for everything below a folder.
pub fn list_children(folder: &str) -> Soap {
    let inner = format!("<ItemPath>{}</ItemPath><Recursive>true</Recursive>", escaped(folder));
    request("ListChildren", &inner)
}

/// Reads the answer to [`get_item_parameters`].
///
/// # Errors
/// Data, if it is none.
pub fn read_parameters(answer: &str) -> Result<Vec<Definition>> {
    let document = parse(answer, "GetItemParametersResponse")?;
    let all = document.descendants().filter(|node| node.tag_name().name() == "ItemParameter");
    Ok(all.map(definition).collect())
}

fn definition(node: Node<'_, '_>) -> Definition {
    let text = |name: &str| text_of(node, name).unwrap_or_default();
    let flag = |name: &str| text(name).eq_ignore_ascii_case("true");
    let group = |name: &str| node.children().find(|child| child.tag_name().name() == name);
    let valid = group("ValidValues").map(|values| {
        let of = values.children().filter(Node::is_element);
        // A value may be null, then there is no Value.
        let pair = |value| {
            let value_text = text_of(value, "Value");
            let label = text_of(value, "Label").or_else(|| value_text.clone()).unwrap_or_default();
            (label, value_text)
        };
        of.map(pair).collect()
    });
    let defaults = group("DefaultValues").map(|values| {
        let of = values.children().filter(Node::is_element);
        of.map(|value| (!nil(value)).then(|| value.text().unwrap_or_default().to_owned())).collect()
    });
    let dependencies = group("Dependencies").into_iter().flat_map(|of| of.children().filter(Node::is_element));
    Definition {
        name: text("Name"),
        kind: text("ParameterTypeName"),
        nullable: flag("Nullable"),
        multi: flag("MultiValue"),
        // Both must hold: an empty prompt is what "hidden" becomes.
        settable: flag("PromptUser") || (text_of(node, "PromptUser").is_none() && !text("Prompt").is_empty()),
        dependencies: dependencies.filter_map(|node| node.text()).map(str::to_owned).collect(),
        valid,
        defaults,
        state: match text("ParameterStateName").as_str() {
            "HasOutstandingDependencies" => Settled::Waits,
            "MissingValidValue" => Settled::Missing,
            "DynamicValuesUnavailable" => Settled::Unavailable,
            _ => Settled::Ready,
        },
    }
}

/// Reads the answer to [`list_children`].
///
/// # Errors
/// Data, if it is none.
pub fn read_children(answer: &str) -> Result<Vec<Item>> {
    let document = parse(answer, "ListChildrenResponse")?;
    let all = document.descendants().filter(|node| node.tag_name().name() == "CatalogItem");
    let item = |node| {
        let text = |name: &str| text_of(node, name).unwrap_or_default();
        Item { path: text("Path"), kind: text("TypeName"), description: text("Description") }
    };
    let hidden =
        |node: &Node<'_, '_>| text_of(*node, "Hidden").is_some_and(|hidden| hidden.eq_ignore_ascii_case("true"));
    Ok(all.filter(|node| !hidden(node)).map(item).collect())
}

/// What a SOAP fault says: its text; `None` if it is no fault.
pub fn fault(answer: &str) -> Option<String> {
    let document = Document::parse(answer).ok()?;
    let fault = document.descendants().find(|node| node.tag_name().name() == "Fault")?;
    let said = |name: &str| fault.descendants().find(|node| node.tag_name().name() == name)?.text().map(str::to_owned);
    said("Message").or_else(|| said("faultstring"))
}

fn parse<'a>(answer: &'a str, element: &str) -> Result<Document<'a>> {
    let wrong = || {
        let hint = "check that url is the web service (https://server/ReportServer), not the portal";
        Error::data(format!("the answer is no {element}")).hint(hint)
    };
    let options = ParsingOptions { allow_dtd: false, nodes_limit: 5_000_000, ..ParsingOptions::default() };
    let document = Document::parse_with_options(answer, options).map_err(|error| wrong().because(error))?;
    if !document.descendants().any(|node| node.tag_name().name() == element) {
        return Err(wrong());
    }
    Ok(document)
}

/// The text of a child; `None` if it is not there or nil.
fn text_of(node: Node<'_, '_>, name: &str) -> Option<String> {
    let child = node.children().find(|child| child.tag_name().name() == name)?;
    (!nil(child)).then(|| child.text().unwrap_or_default().to_owned())
}

fn nil(node: Node<'_, '_>) -> bool {
    node.attributes().any(|attribute| attribute.name() == "nil" && attribute.value() == "true")
}

/// Text as it stands in XML. Line ends are kept by reference, or the parser would make them one.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            // Not allowed in XML, not even as a reference.
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_what_was_chosen_and_nothing_else() {
        let chosen = [
            Chosen { name: "Line".into(), values: vec![Some("L1".into()), Some("a & <b>".into())] },
            Chosen { name: "Shift".into(), values: vec![None] },
        ];
        let soap = get_item_parameters("/A & B/Log", &chosen);
        assert_eq!(soap.action, format!("\"{NAMESPACE}/GetItemParameters\""));
        let document = Document::parse(&soap.body).unwrap();
        let texts: Vec<_> = document.descendants().filter(|n| n.is_text()).map(|n| n.text().unwrap()).collect();
        assert_eq!(texts, ["/A & B/Log", "true", "Line", "L1", "Line", "a & <b>", "Shift"]);
        assert_eq!(document.descendants().filter(|n| n.tag_name().name() == "Value").count(), 2, "null has no value");
    }

    #[test]
    fn parameters_are_read_with_all_the_server_says() {
        let answer = r#"<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soap:Body>
            <GetItemParametersResponse xmlns="http://schemas.microsoft.com/sqlserver/reporting/2010/03/01/ReportServer"><Parameters>
            <ItemParameter><Name>Station</Name><ParameterTypeName>String</ParameterTypeName><Nullable>false</Nullable><MultiValue>true</MultiValue>
            <Prompt>Which</Prompt><PromptUser>true</PromptUser><Dependencies><Dependency>Line</Dependency></Dependencies>
            <ValidValues><ValidValue><Label>One</Label><Value>S1</Value></ValidValue><ValidValue><Value>S2</Value></ValidValue><ValidValue><Label>none</Label></ValidValue></ValidValues>
            <DefaultValues><Value>S1</Value><Value xsi:nil="true"/></DefaultValues>
            <ParameterStateName>HasOutstandingDependencies</ParameterStateName></ItemParameter>
            <ItemParameter><Name>Site</Name><ParameterTypeName>Integer</ParameterTypeName><Prompt/><PromptUser>false</PromptUser>
            <ParameterStateName>HasValidValue</ParameterStateName></ItemParameter>
            </Parameters></GetItemParametersResponse></soap:Body></soap:Envelope>"#;
        insta::assert_debug_snapshot!(read_parameters(answer).unwrap());
    }

    #[test]
    fn another_answer_is_an_error_with_what_to_check() {
        for answer in ["", "<html><body>portal</body></html>", "{}", "<a><b></a>"] {
            let error = read_parameters(answer).unwrap_err();
            assert!(error.to_string().starts_with("the answer is no GetItemParametersResponse"), "{error}");
            assert!(error.what_to_do().is_some());
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbbbbbb\">]><GetItemParametersResponse>&b;</GetItemParametersResponse>";
        assert!(read_parameters(bomb).is_err());
    }
}
