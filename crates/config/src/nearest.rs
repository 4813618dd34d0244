//! The right name nearest to a wrong one.

/// The candidate that was most likely meant, if one is near enough to be worth naming.
pub(crate) fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let flat = |text: &str| text.to_lowercase().replace(['-', '_', ' ', '.'], "");
    let wanted = flat(wrong);
    let near = (wanted.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter_map(|name| {
            let flat = flat(name);
            let distance = strsim::damerau_levenshtein(&wanted, &flat);
            // `max` for `max_concurrent`, `parameter` for `parameters`.
            let begins =
                wanted.len() >= 3 && (flat.starts_with(&wanted) || wanted.starts_with(&flat) && flat.len() >= 3);
            (distance <= near || begins).then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `did you mean 'report'?`, or else what there is; `None` where there is nothing.
pub fn hint<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = nearest(wrong, candidates.clone()) {
        return Some(format!("did you mean '{name}'?"));
    }
    let names: Vec<&str> = candidates.into_iter().collect();
    match names.len() {
        0 => None,
        1..=24 => Some(format!("known here: {}", names.join(", "))),
        _ => Some(format!("known here: {}, …", names[..24].join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let names = ["report", "url", "parameters", "max_concurrent", "window", "insert_new"];
        for (wrong, right) in [
            ("reprot", Some("report")),
            ("Report", Some("report")),
            ("param", Some("parameters")),
            ("max-concurrent", Some("max_concurrent")),
            ("maxConcurrent", Some("max_concurrent")),
            ("uri", Some("url")),
            ("insert", Some("insert_new")),
            ("banana", None),
        ] {
            assert_eq!(nearest(wrong, names), right, "{wrong}");
        }
    }
}
