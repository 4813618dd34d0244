//! Errors of the report server, and the pages it shows them on.

use super::{
    access::Access,
    report::{ParameterState, Report},
    soap::escaped,
};

/// An error with the code the server gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RsError {
    pub code: &'static str,
    pub text: String,
}

impl RsError {
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
    pub fn item_not_found(item: &str) -> Self {
        Self::new("rsItemNotFound", format!("The item '{item}' cannot be found."))
    }
    pub fn access_denied(user: &str) -> Self {
        let text = format!("The permissions granted to user '{user}' are insufficient for performing this operation.");
        Self::new("rsAccessDenied", text)
    }
    /// The status it comes with by URL access, unless the server is told another one.
    pub fn status(&self) -> u16 {
        match self.code {
            "rsAccessDenied" => 401,
            "rsItemNotFound" => 404,
            _ => 500,
        }
    }
    /// The page.
    pub fn page(&self) -> String {
        let (text, code) = (escaped(&self.text), self.code);
        format!(
            "<!DOCTYPE html PUBLIC \"-//W3C//DTD HTML 4.01//EN\"><html><head><title>\r\n\tSQL Server Reporting Services\r\n</title>\
             <meta name=\"Generator\" content=\"Microsoft SQL Server Reporting Services Version 15.0.1102.1235\" />\r\n\
             <style>A:link {{color:#0066cc;}} BODY {{font-family:Verdana;}}</style></head><body>\r\n<h1>\r\n\tReporting Services Error\
             <hr width=\"100%\" size=\"1\" color=\"silver\" />\r\n</h1><ul>\r\n\t<li>{text} ({code}) \
             <a href=\"https://go.microsoft.com/fwlink/?LinkId=20476\" target=\"_blank\">Get Online Help</a></li>\r\n</ul>\
             <hr width=\"100%\" size=\"1\" color=\"silver\" />\r\n<span>SQL Server Reporting Services</span></body></html>"
        )
    }
}

/// A page of something else than the report server: a proxy, a sign-in form.
pub(super) fn foreign(title: &str) -> String {
    let title = escaped(title);
    format!(
        "<html><head><title>{title}</title></head><body><h1>{title}</h1><p>Please try again later.</p></body></html>"
    )
}

/// What is wrong with the parameters of a rendering, if anything: the first error, in the words of the server.
pub(super) fn wrong_parameter(report: &Report, access: &Access) -> Option<RsError> {
    for (name, _) in &access.parameters {
        let Some(parameter) = report.parameters.iter().find(|parameter| parameter.name == *name) else {
            let text =
                format!("An attempt was made to set a report parameter '{name}' that is not defined in this report.");
            return Some(RsError::new("rsUnknownReportParameter", text));
        };
        if !parameter.prompt {
            let text = format!("The report parameter '{name}' is read-only and cannot be modified.");
            return Some(RsError::new("rsReadOnlyReportParameter", text));
        }
    }
    for resolved in report.resolve(&access.parameters, true) {
        let name = &resolved.parameter.name;
        if resolved.state == ParameterState::HasValidValue {
            continue;
        }
        let not_set = format!(
            "This report requires a default or user-defined value for the report parameter '{name}'. To run or subscribe to this report, you must provide a parameter value."
        );
        return Some(if resolved.values.is_empty() {
            RsError::new("rsReportParameterValueNotSet", not_set)
        } else if resolved.values.len() > 1 && !resolved.parameter.multi {
            RsError::new("rsParameterError", format!("The parameter '{name}' takes one value, and several were given."))
        } else if resolved.values.iter().flatten().any(|value| !resolved.parameter.accepts(value)) {
            let text = format!("The value provided for the report parameter '{name}' is not valid for its type.");
            RsError::new("rsReportParameterTypeMismatch", text)
        } else {
            let text =
                format!("Default value or value provided for the report parameter '{name}' is not a valid value.");
            RsError::new("rsInvalidReportParameter", text)
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_parameters_are_named_with_the_servers_code() {
        let report = Report::production_log(1);
        let check = |query: &str, expect: Option<&str>| {
            let access = Access::read(&format!("/R&From=2026-01-01&To=2026-01-02&{query}"), "", true);
            assert_eq!(wrong_parameter(&report, &access).map(|error| error.code), expect, "{query}");
        };
        check("Line=L1&Line=L2", None);
        check("Line=L1&Station=S12&Shift:isnull=true", None);
        check("", Some("rsReportParameterValueNotSet"));
        check("line=L1", Some("rsUnknownReportParameter"));
        check("Line=L1&Site=Main", Some("rsReadOnlyReportParameter"));
        check("Line=L9", Some("rsInvalidReportParameter"));
        check("Line=L1&Station=S21", Some("rsInvalidReportParameter"));
        check("Line:isnull=true", Some("rsInvalidReportParameter"));
        check("Line=L1&Shift=1&Shift=2", Some("rsParameterError"));
        check("Line=L1&From=yesterday", Some("rsParameterError"));
        let access = Access::read("/R&From=31/1/2026&To=2026-01-02&Line=L1", "", true);
        assert_eq!(wrong_parameter(&report, &access).map(|error| error.code), Some("rsReportParameterTypeMismatch"));
    }
}
