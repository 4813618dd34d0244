//! A report's parameters: what the config gives, what the server allows, what is sent. Pure; the calls are made by whoever drives a
//! [`Cascade`].
//!
//! The server says what a parameter may be only once the parameters it depends on are chosen. So: ask, choose what can be
//! chosen, ask again with what was chosen, until everything is chosen; the last answer must call every parameter valid.

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::{Error, Result};

use crate::config::Given;

/// How many values a message lists.
const LISTED: usize = 12;

/// A parameter, as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its type: `String`, `DateTime`, `Integer`, `Float`, `Boolean`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether it takes several values.
    pub multi: bool,
    /// Whether a caller may set it at all.
    pub settable: bool,
    /// The parameters that decide what it may be.
    pub dependencies: Vec<String>,
    /// What it may be, as label and value; `None` is anything of its type.
    #[serde(serialize_with = "choices")]
    pub valid: Option<Vec<(String, Option<String>)>>,
    /// What it is without being given.
    pub defaults: Option<Vec<Option<String>>>,
    /// How it stands with it.
    #[serde(skip)]
    pub state: Settled,
}

/// Valid values as a program likes them.
fn choices<S: serde::Serializer>(valid: &Option<Vec<(String, Option<String>)>>, to: S) -> Result<S::Ok, S::Error> {
    let of = |(label, value): &(String, Option<String>)| serde_json::json!({ "label": label, "value": value });
    match valid {
        None => to.serialize_none(),
        Some(valid) => to.collect_seq(valid.iter().map(of)),
    }
}

/// How it stands with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It has a valid value.
    Ready,
    /// A value is missing, or not one of the valid ones.
    Missing,
    /// A parameter it depends on must be chosen first.
    Waits,
    /// Its valid values come from a query that the server cannot run now.
    Unavailable,
}

/// A parameter with the values that are sent; `None` is null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Its values.
    pub values: Vec<Option<String>>,
}

impl Chosen {
    /// One value.
    pub fn one(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), values: vec![Some(value.into())] }
    }
    /// Name and value, as often as there are values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.values.iter().map(|value| (self.name.as_str(), value.as_deref()))
    }
}

/// The way to values for every parameter.
#[derive(Clone, Debug)]
pub struct Cascade<'a> {
    given: &'a BTreeMap<String, Given>,
    /// The window's parameters, which the config does not give.
    window: Vec<Chosen>,
    /// What `all` has become, by parameter.
    expanded: BTreeMap<String, Vec<Option<String>>>,
}

/// What to do after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask again, with what is [`chosen`](Cascade::chosen) now.
    Ask,
    /// Everything is chosen and valid.
    Done,
}

impl<'a> Cascade<'a> {
    /// Begins with what the config gives, and the values of the window's parameters.
    pub fn new(given: &'a BTreeMap<String, Given>, window: Vec<Chosen>) -> Self {
        Self { given, window, expanded: BTreeMap::new() }
    }

    /// What is chosen so far, in the order it is sent.
    pub fn chosen(&self) -> Vec<Chosen> {
        let mut chosen = self.window.clone();
        for (name, given) in self.given {
            let values = match given {
                Given::Null => vec![None],
                Given::Values(values) => values.iter().cloned().map(Some).collect(),
                Given::All => match self.expanded.get(name) {
                    Some(values) => values.clone(),
                    None => continue,
                },
            };
            chosen.push(Chosen { name: name.clone(), values });
        }
        chosen
    }

    /// Looks at an answer.
    ///
    /// # Errors
    /// Config, if the parameters do not go with the report; Data, if nothing can be chosen; Unavailable, if the server cannot say.
    pub fn answered(&mut self, definitions: &[Definition]) -> Result<Step> {
        self.check(definitions)?;
        let open: BTreeSet<&str> = self.open().collect();
        let mut chose = false;
        for definition in definitions.iter().filter(|definition| open.contains(definition.name.as_str())) {
            // What it may be is not known before everything above it is chosen, also where the server has a default for that.
            let waits = above(definition, definitions).iter().any(|name| open.contains(name));
            if waits || definition.state == Settled::Waits {
                continue;
            }
            self.expanded.insert(definition.name.clone(), every(definition)?);
            chose = true;
        }
        if chose {
            return Ok(Step::Ask);
        }
        let unsettled = definitions.iter().find(|definition| definition.state != Settled::Ready && definition.settable);
        match unsettled {
            None if self.open().next().is_none() => Ok(Step::Done),
            None => Err(Error::data("the server's parameters depend on each other in a circle")),
            Some(definition) => Err(self.unsettled(definition)),
        }
    }

    /// Parameters given as `all` that are not expanded yet.
    fn open(&self) -> impl Iterator<Item = &'a str> + '_ {
        let all = self.given.iter().filter(|(_, given)| **given == Given::All);
        all.map(|(name, _)| name.as_str()).filter(|name| !self.expanded.contains_key(*name))
    }

    /// What can be wrong with what the config gives.
    fn check(&self, definitions: &[Definition]) -> Result<()> {
        let window = self.window.iter().map(|chosen| (chosen.name.as_str(), None));
        let given = self.given.iter().map(|(name, given)| (name.as_str(), Some(given)));
        for (name, given) in window.chain(given) {
            let place = |error: Error| error.at(format!("parameters.{name}"));
            let Some(definition) = definitions.iter().find(|definition| definition.name == name) else {
                return Err(place(unknown(name, definitions)));
            };
            if !definition.settable {
                let error = Error::config("this parameter is fixed by the report and cannot be given");
                return Err(place(error.hint("take it out of `parameters`; its default is used")));
            }
            match given {
                Some(Given::Null) if !definition.nullable => {
                    return Err(place(Error::config("this parameter cannot be null").hint(wants(definition))));
                }
                Some(Given::All) if !definition.multi => {
                    let error = Error::config("this parameter takes one value, so `all` is not one");
                    return Err(place(error.hint(wants(definition))));
                }
                Some(Given::Values(values)) if values.len() > 1 && !definition.multi => {
                    let what = format!("this parameter takes one value, and {} are given", values.len());
                    return Err(place(Error::config(what).hint(wants(definition))));
                }
                Some(Given::Values(values)) if definition.state != Settled::Waits => {
                    // A query may not have been run; then the server has the last word.
                    let Some(valid) = definition.valid.as_ref().filter(|valid| !valid.is_empty()) else { continue };
                    let is_valid =
                        |value: &&String| valid.iter().any(|(_, valid)| same(valid.as_deref(), value, definition));
                    let waits = above(definition, definitions).iter().any(|name| self.open().any(|open| open == *name));
                    if let Some(wrong) = values.iter().find(|value| !waits && !is_valid(value)) {
                        return Err(place(
                            Error::config(format!("'{wrong}' is not one of its values")).hint(wants(definition)),
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unsettled(&self, definition: &Definition) -> Error {
        let name = &definition.name;
        let given = self.window.iter().any(|chosen| chosen.name == *name) || self.given.contains_key(name);
        let error = match definition.state {
            Settled::Unavailable => {
                Error::unavailable("the server cannot say what it may be: the query behind its values was not run")
                    .hint("give the values themselves, or ask whoever looks after the report's data source")
            }
            Settled::Waits => {
                let of = definition.dependencies.join(", ");
                Error::config(format!("it depends on {of}, which has no value")).hint(format!("give {of} a value"))
            }
            _ if given => Error::config("the server does not take the value given").hint(wants(definition)),
            _ => Error::config("the report needs a value for it").hint(wants(definition)),
        };
        error.at(format!("parameters.{name}"))
    }
}

/// Whether a given text is this valid value; numbers, times and flags are the server's to compare.
fn same(valid: Option<&str>, given: &str, definition: &Definition) -> bool {
    valid == Some(given) || !definition.kind.eq_ignore_ascii_case("String")
}

/// Every valid value of a parameter.
fn every(definition: &Definition) -> Result<Vec<Option<String>>> {
    let place = |error: Error| error.at(format!("parameters.{}", definition.name));
    if definition.state == Settled::Unavailable {
        let error = Error::unavailable("the server cannot say what `all` is: the query behind its values was not run");
        return Err(place(
            error.hint("give the values themselves, or ask whoever looks after the report's data source"),
        ));
    }
    let Some(valid) = &definition.valid else {
        let error = Error::config("it may be anything, so the server has no list of `all` its values");
        return Err(place(error.hint("give the values themselves")));
    };
    if valid.is_empty() {
        let error = Error::data("the server has no value to choose from at the moment, and it must have one");
        return Err(place(
            error.hint("look at the report in the portal; give the values themselves if they are known"),
        ));
    }
    let mut seen = BTreeSet::new();
    // A parameter of several values cannot be null.
    let values = valid.iter().filter_map(|(_, value)| value.as_ref()).filter(|value| seen.insert(value.as_str()));
    Ok(values.cloned().map(Some).collect())
}

/// Everything a parameter depends on, over all steps.
pub fn above<'d>(definition: &'d Definition, definitions: &'d [Definition]) -> BTreeSet<&'d str> {
    let mut above = BTreeSet::new();
    let mut next: Vec<&Definition> = vec![definition];
    while let Some(definition) = next.pop() {
        for name in &definition.dependencies {
            if above.insert(name.as_str()) {
                next.extend(definitions.iter().filter(|definition| definition.name == *name));
            }
        }
    }
    above
}

fn unknown(name: &str, definitions: &[Definition]) -> Error {
    let names: Vec<_> = definitions.iter().filter(|d| d.settable).map(|d| d.name.as_str()).collect();
    let error = Error::config("the report has no such parameter");
    match names.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        Some(known) => error.hint(format!("write {known}: upper and lower case differ")),
        None if names.is_empty() => error.hint("the report takes no parameters; leave it out"),
        None => error.hint(format!("its parameters are {}", names.join(", "))),
    }
}

/// What a parameter wants, in a sentence.
fn wants(definition: &Definition) -> String {
    match &definition.valid {
        Some(valid) if !valid.is_empty() => {
            let mut values: Vec<_> =
                valid.iter().take(LISTED).map(|(_, value)| value.as_deref().unwrap_or("null")).collect();
            let more = format!("… ({} in all)", valid.len());
            if valid.len() > LISTED {
                values.push(&more);
            }
            let how = if definition.multi { "choose from" } else { "choose one of" };
            format!("{how} {}", values.join(", "))
        }
        _ => {
            let several = if definition.multi { ", or several" } else { "" };
            format!("give a value of the type {}{several}", definition.kind)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, valid: Option<&[&str]>) -> Definition {
        let valid = valid.map(|valid| valid.iter().map(|v| ((*v).to_owned(), Some((*v).to_owned()))).collect());
        let (kind, state) = ("String".to_owned(), Settled::Ready);
        let (nullable, multi, settable) = (false, true, true);
        Definition {
            name: name.into(),
            kind,
            nullable,
            multi,
            settable,
            dependencies: vec![],
            valid,
            defaults: None,
            state,
        }
    }

    fn given(yaml: &[(&str, serde_json::Value)]) -> BTreeMap<String, Given> {
        yaml.iter().map(|(name, value)| ((*name).to_owned(), serde_json::from_value(value.clone()).unwrap())).collect()
    }

    /// A server with Plant → Line → Station; each asks for what stands above it.
    fn server(chosen: &[Chosen]) -> Vec<Definition> {
        let of = |name: &str| chosen.iter().find(|chosen| chosen.name == name);
        let below = |parent: &str, each: &[&str]| -> Option<Vec<String>> {
            let values = of(parent)?.values.iter().flatten();
            Some(values.flat_map(|value| each.iter().map(move |each| format!("{value}{each}"))).collect())
        };
        let mut all = vec![definition("Plant", Some(&["A", "B"]))];
        for (name, parent, each) in [("Line", "Plant", ["1", "2"]), ("Station", "Line", ["x", "y"])] {
            let valid = below(parent, &each).unwrap_or_default();
            let mut of = definition(name, Some(&valid.iter().map(String::as_str).collect::<Vec<_>>()));
            of.dependencies = vec![parent.to_owned()];
            of.state = if of.valid.as_ref().is_none_or(Vec::is_empty) { Settled::Waits } else { Settled::Missing };
            all.push(of);
        }
        for definition in &mut all {
            if of(&definition.name).is_some() {
                definition.state = Settled::Ready;
            } else if definition.state == Settled::Ready {
                definition.state = Settled::Missing;
            }
        }
        all
    }

    fn settle(given: &BTreeMap<String, Given>) -> (usize, Result<Vec<Chosen>>) {
        let mut cascade = Cascade::new(given, vec![]);
        for asked in 1..10 {
            match cascade.answered(&server(&cascade.chosen())) {
                Ok(Step::Ask) => {}
                Ok(Step::Done) => return (asked, Ok(cascade.chosen())),
                Err(error) => return (asked, Err(error)),
            }
        }
        panic!("it asks for ever");
    }

    #[test]
    fn a_cascade_is_walked_down_step_by_step() {
        let (asked, chosen) =
            settle(&given(&[("Plant", "all".into()), ("Line", "all".into()), ("Station", "all".into())]));
        let values: Vec<_> = chosen.unwrap().iter().map(|chosen| (chosen.name.clone(), chosen.values.len())).collect();
        assert_eq!(values, [("Line".into(), 4), ("Plant".into(), 2), ("Station".into(), 8)]);
        assert_eq!(asked, 4, "a step for each, and one to see that it is right");
        let (asked, chosen) =
            settle(&given(&[("Plant", "A".into()), ("Line", "all".into()), ("Station", ["A1x"][..].into())]));
        let line = &chosen.unwrap()[0];
        assert_eq!((asked, line.values.clone()), (2, vec![Some("A1".into()), Some("A2".into())]));
    }

    #[test]
    fn what_does_not_go_with_the_report_is_told_with_what_would() {
        let check = |of: &[(&str, serde_json::Value)], change: fn(&mut Vec<Definition>)| {
            let given = given(of);
            let mut definitions = vec![definition("Line", Some(&["L1", "L2"]))];
            change(&mut definitions);
            match Cascade::new(&given, vec![]).answered(&definitions) {
                Ok(step) => format!("{step:?}"),
                Err(error) => format!("{}: {error}\n  {}", error.kind().name(), error.what_to_do().unwrap_or("-")),
            }
        };
        let cases = [
            check(&[("line", "L1".into())], |_| {}),
            check(&[("Lime", "L1".into())], |_| {}),
            check(&[("Line", "L1".into())], |_| {}),
            check(&[("Line", "L9".into())], |_| {}),
            check(&[("Line", serde_json::Value::Null)], |_| {}),
            check(&[("Line", serde_json::Value::Null)], |d| d[0].nullable = true),
            check(&[("Line", "all".into())], |d| d[0].multi = false),
            check(&[("Line", "all".into())], |d| d[0].valid = None),
            check(&[("Line", "all".into())], |d| d[0].valid = Some(vec![])),
            check(&[("Line", "all".into())], |d| d[0].state = Settled::Unavailable),
            check(&[("Line", vec!["L1", "L2"].into())], |d| d[0].multi = false),
            check(&[("Line", "L1".into())], |d| d[0].settable = false),
            check(&[], |d| d[0].state = Settled::Missing),
            check(&[], |d| {
                d[0] = Definition { state: Settled::Waits, dependencies: vec!["Plant".into()], ..d[0].clone() }
            }),
            check(&[], |d| {
                d[0].valid = Some((0..40).map(|n| (String::new(), Some(format!("L{n}")))).collect());
                d[0].state = Settled::Missing;
            }),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}
