//! Why rows were refused, most often: for a run that is stopped because there are too many of them.

use std::collections::HashMap;

use towpath_core::{Name, Reject};

/// So many reasons are told apart; what comes behind counts for none of them.
const MOST: usize = 256;
/// So many are told.
const TOLD: usize = 3;
/// No longer than this is one told.
const LENGTH: usize = 160;

/// Reasons with how often each was given. Two that differ in numbers or in what stands in quotation marks are one, because these are mostly the rows'
/// own values.
#[derive(Debug, Default)]
pub(crate) struct Reasons(HashMap<(Name, String), Reason>);

#[derive(Debug)]
struct Reason {
    count: u64,
    /// Which one it was in the order of their coming.
    place: usize,
    /// The first.
    example: String,
}

impl Reasons {
    pub(crate) fn note(&mut self, component: &Name, reject: &Reject) {
        let (place, key) = (self.0.len(), (component.clone(), shape(&reject.reason)));
        if let Some(reason) = self.0.get_mut(&key) {
            reason.count += 1;
        } else if place < MOST {
            self.0.insert(key, Reason { count: 1, place, example: reject.reason.clone() });
        }
    }

    /// The most frequent ones, for people: `380 by orders, such as "column id: 'x' is no whole number"; …`.
    pub(crate) fn told(&self) -> String {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, reason)| (std::cmp::Reverse(reason.count), reason.place));
        let told = all.into_iter().take(TOLD).map(|((component, _), Reason { count, example, .. })| {
            let such_as = if *count == 1 { "" } else { "such as " };
            format!("{count} by {component}, {such_as}\"{}\"", shortened(&example.replace('\n', " ")))
        });
        told.collect::<Vec<_>>().join("; ")
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A reason without numbers and without what is in quotation marks.
fn shape(reason: &str) -> String {
    let mut shape = String::with_capacity(reason.len());
    let mut rest = reason.chars();
    let mut before = ' ';
    while let Some(c) = rest.next() {
        // An apostrophe within a word is none.
        let quotes = matches!(c, '\'' | '"' | '`') && !before.is_alphanumeric();
        if quotes && rest.as_str().contains(c) {
            shape.push(c);
            for inner in rest.by_ref() {
                if inner == c {
                    break;
                }
            }
            before = c;
        } else if c.is_ascii_digit() {
            if !before.is_ascii_digit() {
                shape.push('0');
            }
            before = c;
        } else {
            shape.push(c);
            before = c;
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_values_are_one() {
        let check =
            |one: &str, other: &str, same: bool| assert_eq!(shape(one) == shape(other), same, "{one} / {other}");
        check("column id: 'x' is no whole number", "column id: 'y z' is no whole number", true);
        check("column id: 'x' is no whole number", "column qty: 'x' is no whole number", false);
        check("line 7 has 3 fields", "line 1024 has 12 fields", true);
        check("it isn't there, it's gone", "it isn't here, it's gone", false);
        check("conflicts with \"a\"", "conflicts with \"b\"", true);
        check("an end 'without one", "an end 'without two", false);
    }

    #[test]
    fn the_most_frequent_ones_are_told() {
        let mut reasons = Reasons::default();
        assert_eq!(reasons.told(), "");
        let names: [Name; 2] = ["orders".into(), "table".into()];
        for at in 0..1000 {
            reasons.note(&names[0], &Reject::row(0, format!("{} of its own", "x".repeat(at + 1))));
        }
        for (times, name, reason) in
            [(40, 1, "column a: 'VALUE' is too long"), (7, 0, "line VALUE\nis short"), (1, 1, "z")]
        {
            (0..times).for_each(|value| {
                reasons.note(&names[name], &Reject::row(0, reason.replace("VALUE", &value.to_string())));
            });
        }
        // Of a thousand others there was no place for these.
        assert!(
            reasons.told().starts_with("1 by orders, \"x of its own\"; 1 by orders, \"xx of its own\"; 1 by"),
            "{}",
            reasons.told()
        );
        let mut reasons = Reasons::default();
        for (times, name, reason) in
            [(1, 1, "z"), (40, 1, "column a: 'VALUE' is too long"), (7, 0, "line VALUE\nis short"), (1, 0, "y")]
        {
            (0..times).for_each(|value| {
                reasons.note(&names[name], &Reject::row(0, reason.replace("VALUE", &value.to_string())));
            });
        }
        let expect = "40 by table, such as \"column a: '0' is too long\"; 7 by orders, such as \"line 0 is short\"; 1 by table, \"z\"";
        assert_eq!(reasons.told(), expect);
    }
}
