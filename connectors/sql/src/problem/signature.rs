//! A function that there is not, or not for such arguments.

use towpath_core::Error;

use super::{
    Place, at, nearest,
    planning::Asked,
    types::{plain, undeclared},
};

/// How the message about arguments goes on that no form of the function takes.
const NO_MATCH: &str = "No function matches the given name and argument types '";

/// Functions that need an `over`: without one they are looked up among the others, and not found.
const WINDOW: [&str; 10] = [
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "nth_value",
    "last_value",
];

/// A call that no form of the function fits; `None`: the message is about something else.
pub(super) fn no_match(message: &str, asked: &Asked<'_>, place: Option<Place>) -> Option<Error> {
    let (why, call) = message.split_once(NO_MATCH)?;
    // `sum(Utf8)`
    let (call, _) = call.split_once("'.")?;
    let (name, given) = call.split_once('(')?;
    let given = given.strip_suffix(')').unwrap_or(given);
    let place = place.or_else(|| call_of(name, asked));
    let count = count_of(given);
    if count == 0 {
        let error = Error::config(format!("function '{name}' is given no argument, and needs one"));
        return Some(at(place, error));
    }
    // One error for each form of the function: `Function 'lower' expects 1 arguments but received 2`.
    let takes = |reason: &str| reason.split_once(" expects ")?.1.split_once(" arguments but received ")?.0.parse().ok();
    let reasons: Vec<&str> = why.split("Error during planning: ").filter(|reason| reason.contains(name)).collect();
    let of_number = reasons.iter().filter(|reason| !reason.contains("failed to match any signature"));
    let mut numbers: Vec<usize> = of_number.clone().filter_map(|reason| takes(reason)).collect();
    if !numbers.is_empty() && numbers.len() == of_number.count() {
        numbers.sort_unstable();
        numbers.dedup();
        let takes = match numbers.as_slice() {
            [1] => "1 argument".to_owned(),
            numbers => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                format!("{} arguments", numbers.join(" or "))
            }
        };
        return Some(at(place, Error::config(format!("function '{name}' takes {takes}, and is given {count}"))));
    }
    let error = Error::config(format!("function '{name}' does not take ({})", plain(given)));
    // What asks for text is not helped by another type.
    let wants_text = why.contains("requires String")
        || why.split_once(" to the signature ").is_some_and(|(_, takes)| takes.contains("Utf8"));
    Some(at(place, if wants_text { error } else { undeclared(error, given, place, asked.query, asked.tables) }))
}

/// A function of an unknown name; `None`: the message is about something else.
pub(super) fn unknown(message: &str, asked: &Asked<'_>, place: Option<Place>) -> Option<Error> {
    let name = message.strip_prefix("Invalid function '")?.split('\'').next()?;
    let place = place.or_else(|| call_of(name, asked));
    if WINDOW.contains(&name.to_lowercase().as_str()) {
        let error = Error::config(format!("function '{name}' is one over a window"));
        return Some(at(place, error.hint(format!("write `{name}(…) over (order by …)`"))));
    }
    let error = Error::config(format!("there is no function '{name}'"));
    let names: Vec<&str> = asked.functions.iter().map(String::as_str).collect();
    Some(at(
        place,
        match nearest(name, &names) {
            Some(name) => error.hint(format!("did you mean '{name}'?")),
            None => error.hint("the functions are DataFusion's, most of them called as in PostgreSQL"),
        },
    ))
}

/// Where a function is called.
fn call_of(name: &str, asked: &Asked<'_>) -> Option<Place> {
    Place::find_where(asked.query, name, |behind| behind.trim_start().starts_with('('))
        .or_else(|| Place::find(asked.query, name))
}

/// How many types stand there; commas inside of parentheses are a type's own.
fn count_of(types: &str) -> usize {
    let mut depth = 0_usize;
    let commas = types.chars().filter(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        *c == ',' && depth == 0
    });
    let commas = commas.count();
    if types.trim().is_empty() { 0 } else { commas + 1 }
}
