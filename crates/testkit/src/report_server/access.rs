//! URL access: what a query asks for.
//!
//! `?/Folder/Report&rs:Command=Render&rs:Format=CSV&From=2026-01-01&Line=L1&Line=L2&Shift:isnull=true`. The item stands first and
//! without a name. Names with `rs:` and `rc:` speak to the server and the renderer, in upper or lower case; all others are parameters of
//! the report, whose case counts.

use percent_encoding::percent_decode_str;

use super::report::{Kind, Report};

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// The item's path.
    pub item: String,
    /// `rs:` and `rc:`, in lower case, with their values.
    pub commands: Vec<(String, String)>,
    /// Parameters of the report; `None` is null.
    pub parameters: Vec<(String, Option<String>)>,
}

/// A text of a query: `+` is a space, the rest is percent-encoded UTF-8.
fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

impl Access {
    /// Reads a query, and a form's body behind it. `raw_colon`: a name whose colon is percent-encoded in the query does not speak
    /// to the server.
    pub fn read(query: &str, form: &str, raw_colon: bool) -> Self {
        let mut access = Self::default();
        let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
        access.item = pairs.next().map(decoded).unwrap_or_default();
        for pair in pairs {
            access.pair(pair, raw_colon);
        }
        for pair in form.split('&').filter(|pair| !pair.is_empty()) {
            // In a form every client encodes the colon.
            access.pair(pair, false);
        }
        access
    }

    fn pair(&mut self, pair: &str, raw_colon: bool) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (speaks, value) = (!raw_colon || name.contains(':'), decoded(value));
        let name = decoded(name);
        let lower = name.to_ascii_lowercase();
        if speaks && ["rs:", "rc:", "rv:"].iter().any(|prefix| lower.starts_with(prefix)) {
            return self.commands.push((lower, value));
        }
        match name.rsplit_once(':') {
            Some((name, what)) if speaks && what.eq_ignore_ascii_case("isnull") => {
                if value.eq_ignore_ascii_case("true") {
                    self.parameters.push((name.to_owned(), None));
                }
            }
            _ => self.parameters.push((name, Some(value))),
        }
    }

    /// The value of a command, by its name in lower case.
    pub fn command(&self, name: &str) -> Option<&str> {
        self.commands.iter().rev().find(|(command, _)| command == name).map(|(_, value)| value.as_str())
    }

    /// Reads dates as someone of another language wrote them: day before month where that is the custom. ISO 8601 is read in all of
    /// them.
    pub fn localise(&mut self, report: &Report, language: &str) {
        if language.eq_ignore_ascii_case("en-US") || language.eq_ignore_ascii_case("en") {
            return;
        }
        for (name, value) in &mut self.parameters {
            let is_date = |parameter: &&super::Parameter| parameter.name == *name && parameter.kind == Kind::DateTime;
            if let Some(text) = value
                && report.parameters.iter().any(|parameter| is_date(&parameter))
                && let Some((day, month, rest)) = day_first(text)
            {
                *text = format!("{month}/{day}/{rest}");
            }
        }
    }
}

/// `31.1.2026 …` or `31/1/2026 …` into its parts.
fn day_first(text: &str) -> Option<(&str, &str, &str)> {
    let mut parts = text.splitn(3, ['.', '/']);
    let (day, month, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    (number(day) && number(month)).then_some((day, month, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_the_server_reads_it() {
        let given = |pairs: &[(&str, Option<&str>)]| -> Vec<(String, Option<String>)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
        };
        let query = "/Sales/Order%20log&RS:Format=CSV&Line=L1&Line=a%26b&Shift:isnull=true&From=1%2F2%2F2026+05:00&Gone:IsNull=false";
        let access = Access::read(query, "rs%3AFormat=XML&Shift=", true);
        assert_eq!(access.item, "/Sales/Order log");
        assert_eq!(access.command("rs:format"), Some("XML"), "the last one wins");
        let expect = [
            ("Line", Some("L1")),
            ("Line", Some("a&b")),
            ("Shift", None),
            ("From", Some("1/2/2026 05:00")),
            ("Shift", Some("")),
        ];
        assert_eq!(access.parameters, given(&expect));
        let encoded = Access::read("/R&rs%3AFormat=CSV", "", true);
        assert_eq!(
            encoded.parameters,
            given(&[("rs:Format", Some("CSV"))]),
            "an encoded colon does not speak to the server"
        );
        assert_eq!(Access::read("/R&rs%3AFormat=CSV", "", false).command("rs:format"), Some("CSV"));
    }

    #[test]
    fn a_date_without_its_language_is_another_day() {
        let report = Report::production_log(1);
        let check = |language: &str, text: &str, expect: &str| {
            let mut access = Access { parameters: vec![("From".into(), Some(text.into()))], ..Access::default() };
            access.localise(&report, language);
            assert_eq!(access.parameters[0].1.as_deref(), Some(expect), "{text} in {language}");
        };
        check("en-US", "2/1/2026", "2/1/2026");
        check("en-GB", "2/1/2026", "1/2/2026");
        check("de-DE", "31.1.2026 05:00", "1/31/2026 05:00");
        check("de-DE", "2026-01-31T05:00:00", "2026-01-31T05:00:00");
    }
}
