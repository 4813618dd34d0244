//! How components hang together: names, inputs, order.

use towpath_core::pipeline::Role;

use crate::{
    nearest,
    problem::{Finding, Severity},
    spec::Part,
    tree::{Node, Value, join},
};

/// One name, one component.
pub(crate) fn check_names(parts: &[Part], findings: &mut Vec<Finding>) {
    for (index, part) in parts.iter().enumerate() {
        if let Some(other) = parts[..index].iter().find(|other| other.key.name == part.key.name) {
            let message = format!("'{}' is also the name of a {}", part.key.name, other.role.name());
            findings.push(
                Finding::error(part.key.at, &part.path, message)
                    .hint("give each component a name of its own".to_owned()),
            );
        }
    }
}

/// Inputs and `after` name what is there, nothing runs in a circle, nothing is left over.
pub(crate) fn check_inputs(parts: &[Part], findings: &mut Vec<Finding>) {
    let names = |node: Option<&Node>| -> Vec<Node> {
        match node.map(|node| &node.value) {
            Some(Value::List(items)) => items.clone(),
            _ => vec![],
        }
    };
    let giving: Vec<&str> =
        parts.iter().filter(|part| part.role != Role::Sink).map(|part| part.key.name.as_str()).collect();
    let sinks: Vec<&str> =
        parts.iter().filter(|part| part.role == Role::Sink).map(|part| part.key.name.as_str()).collect();
    let mut used: Vec<String> = Vec::new();
    for part in parts {
        for (list, known, what) in [("inputs", &giving, "input"), ("after", &sinks, "sink")] {
            for (index, item) in names(part.node.get(list)).iter().enumerate() {
                let Some(name) = item.text().filter(|_| !item.unset) else { continue };
                let path = format!("{}.{list}[{index}]", part.path);
                if name == part.key.name {
                    findings.push(Finding::error(item.at, path, format!("'{name}' cannot take its own rows")));
                } else if !known.contains(&name) {
                    let message = if sinks.contains(&name) && list == "inputs" {
                        format!("'{name}' is a sink and gives no rows")
                    } else {
                        format!("unknown {what} '{name}'")
                    };
                    let others = known.iter().copied().filter(|other| *other != part.key.name);
                    let mut others: Vec<&str> = others.collect();
                    others.dedup();
                    let hint =
                        nearest::hint(name, others).or_else(|| Some(format!("there is no other {what}; take it out")));
                    findings.push(Finding::error(item.at, path, message).hint(hint));
                } else if list == "inputs" {
                    used.push(name.to_owned());
                }
            }
        }
    }
    // With a wrong name somewhere, it is most likely that one which was meant.
    let errors = findings.iter().any(|finding| finding.severity == Severity::Error);
    for part in parts.iter().filter(|part| !errors && part.role != Role::Sink && !used.contains(&part.key.name)) {
        let message = format!("nothing takes the rows of {} '{}'", part.role.name(), part.key.name);
        findings.push(
            Finding::warning(part.key.at, &part.path, message)
                .hint(format!("name it in the 'inputs' of a transform or sink: [{}]", part.key.name)),
        );
    }
    for list in ["inputs", "after"] {
        if let Some(part) = in_a_circle(parts, list) {
            let at = part.node.get(list).map_or(part.key.at, |node| node.at);
            findings.push(Finding::error(
                at,
                join(&part.path, list),
                format!("'{}' waits for itself, through others", part.key.name),
            ));
        }
    }
}

/// The first component that is reached from itself.
fn in_a_circle<'p>(parts: &'p [Part], list: &str) -> Option<&'p Part> {
    let next = |part: &Part| -> Vec<String> {
        let items = part.node.get(list).map(|node| node.value.clone());
        let Some(Value::List(items)) = items else { return vec![] };
        items.iter().filter_map(Node::text).filter(|name| *name != part.key.name).map(str::to_owned).collect()
    };
    parts.iter().find(|start| {
        let (mut open, mut seen) = (next(start), Vec::new());
        while let Some(name) = open.pop() {
            if name == start.key.name {
                return true;
            }
            if !seen.contains(&name) {
                open.extend(parts.iter().filter(|part| part.key.name == name).flat_map(next));
                seen.push(name);
            }
        }
        false
    })
}
