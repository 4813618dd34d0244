//! Cron expressions, read by the library that will keep them.

use croner::parser::{CronParser, Seconds};

/// Whether `text` is five cron fields. The error is in the library's words.
pub(crate) fn check_cron(text: &str) -> Result<(), String> {
    if text.split_whitespace().count() != 5 && !text.starts_with('@') {
        return Err(format!("it has {} fields", text.split_whitespace().count()));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
    parser.parse(text).map(drop).map_err(|error| {
        let text = error.to_string().to_lowercase();
        text.trim_start_matches("component error: ").trim_end_matches('.').to_owned()
    })
}
