//! What the config asks of an account, found in it: the fields with their keys and kinds, whom and what names stand for, and how a
//! listed record becomes one of the index.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use serde::Deserialize;
use serde_json::{Map, Value};
use towpath_core::{Error, Result};

use crate::{
    client::Crm,
    compare::{Mapped, as_text},
    config::{FieldFrom, LinkOptions, NameOrId, SinkOptions, Source},
    entity::{Entity, Standard},
    fields::{self, Definition, Field},
    index::{Record, State},
    page::{Listed, Wanted},
    value::{self, Choices, Kind},
};

/// The most keys that a list can be asked for by `custom_fields`.
const MOST_KEYS: usize = 15;

/// What follows an amount's name where its currency is meant.
const CURRENCY: &str = " (currency)";

/// What is asked of one kind of records.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The kind.
    pub entity: Entity,
    /// The field that tells records apart.
    pub match_on: String,
    /// Where the config says that: for its mistakes.
    pub place: String,
    /// What is compared and written beyond it; nothing where ids are only looked up.
    pub write: Option<Box<SinkOptions>>,
}

/// What the names of configs stood for when this process last found them: account, kind of records, name and key. A field that people
/// rename keeps its key.
type Found = BTreeMap<(String, Entity, String), String>;

static FOUND: LazyLock<Mutex<Found>> = LazyLock::new(Mutex::default);

/// So many fields are named that an unknown one may be.
const SUGGESTED: usize = 5;

impl Ask {
    /// What a sink asks.
    pub fn of_sink(options: &SinkOptions) -> Self {
        let write = Some(Box::new(options.clone()));
        Self { entity: options.entity, match_on: options.match_on.clone(), place: "match_on".to_owned(), write }
    }
    /// What a link of this name asks of what it links.
    pub fn of_link(name: &str, link: &LinkOptions) -> Self {
        let place = format!("link.{name}.match_on");
        Self { entity: link.entity, match_on: link.match_on.clone(), place, write: None }
    }

    /// A field by the name of the config. Where there is none, one that may have been renamed is looked for.
    fn field(&self, account: &str, definitions: &[Definition], name: &str) -> Result<Field> {
        let place = (account.to_owned(), self.entity, name.to_owned());
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match fields::resolve(definitions, self.entity, name) {
            Ok(field) => {
                if field.custom && field.code != name {
                    found.insert(place, field.code.clone());
                }
                return Ok(field);
            }
            Err(error) if fields::is_unknown(definitions, self.entity, name) => error,
            Err(error) => return Err(error),
        };
        let kept = found.get(&place);
        if let Some(renamed) = definitions.iter().find(|one| Some(&one.field_code) == kept) {
            let now = &renamed.field_name;
            let what = format!("there is no field '{name}' in {} any more: it is called '{now}' now", self.entity);
            return Err(
                Error::config(what).hint(format!("write '{now}' in its place, or the key {}", renamed.field_code))
            );
        }
        if !fields::nearest(name, definitions.iter().map(|one| one.field_name.as_str())).is_empty() {
            return Err(error);
        }
        // Nobody else remembers which one it was; one that is mapped already it is not.
        let mapped = |one: &Definition| {
            let named = |name: &String| *name == one.field_name || *name == one.field_code;
            self.write.as_ref().is_some_and(|options| options.fields.keys().chain(options.link.keys()).any(named))
        };
        let left = definitions.iter().filter(|one| one.is_custom_field && !mapped(one));
        let left: Vec<_> = left.map(|one| format!("'{}'", one.field_name)).take(SUGGESTED + 1).collect();
        if left.is_empty() {
            return Err(error);
        }
        let more = if left.len() > SUGGESTED { ", …" } else { "" };
        let left = left[..left.len().min(SUGGESTED)].join(", ");
        Err(error.hint(format!(
            "if it was renamed in Pipedrive, write its new name (not mapped so far: {left}{more}); else add it there (Settings, Data fields)"
        )))
    }
}

/// What the config asks, found in the account.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The kind of records.
    pub entity: Entity,
    /// The fields, in the config's order; links behind them.
    pub mapped: Vec<Mapped>,
    /// Which of them tells records apart.
    pub key: usize,
    /// What is read of a listed record: a value for each field, and a deal's status behind them.
    pub wanted: Wanted,
    /// The links, by [`Mapped::link`].
    pub links: Vec<LinkOptions>,
    /// What a new record gets besides its fields.
    pub extras: Map<String, Value>,
    /// What the keys are, with their account.
    pub keyed_by: String,
    /// The names of all custom fields, by their keys.
    pub names: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Named {
    id: i64,
    #[serde(default)]
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Stage {
    id: i64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    pipeline_id: Option<i64>,
}

impl Shape {
    /// Looks everything up that the config names.
    ///
    /// # Errors
    /// Of the calls; Config: what is named is not there, or cannot be written.
    pub async fn find(crm: &Crm, ask: &Ask) -> Result<Self> {
        let definitions = crm.definitions(ask.entity).await?;
        let mut shape = Self::from_definitions(crm.account(), &definitions, ask)?;
        if let Some(options) = &ask.write {
            shape.name_people_and_places(crm, options).await?;
            shape.check_fixed(options)?;
        }
        Ok(shape)
    }

    /// The part that needs the definitions only.
    ///
    /// # Errors
    /// Config.
    pub fn from_definitions(account: &str, definitions: &[Definition], ask: &Ask) -> Result<Self> {
        let entity = ask.entity;
        let (mut mapped, mut links) = (vec![], vec![]);
        match &ask.write {
            None => {
                let field =
                    ask.field(account, definitions, &ask.match_on).map_err(|error| error.at(ask.place.as_str()))?;
                let from = Source::Column(String::new());
                mapped.push(Mapped { field, from, currency: None, link: None, only_empty: false });
            }
            Some(options) => {
                for (name, from) in &options.fields {
                    let field = ask.field(account, definitions, name);
                    field
                        .and_then(|field| map(field, options, name, from, &mut mapped))
                        .map_err(|error| error.at(format!("fields.{name}")))?;
                }
                for (name, link) in &options.link {
                    let field = ask.field(account, definitions, name).map_err(|error| error.at("link"))?;
                    if field.kind != Kind::Standard(Standard::Id(link.entity)) {
                        let what = format!("link.{name}: the field does not link {}", link.entity);
                        return Err(
                            Error::config(what).hint("name a field such as person_id or org_id, and its entity")
                        );
                    }
                    let from = Source::Column(link.from.clone());
                    let only_empty = options.is_only_empty(name);
                    mapped.push(Mapped { field, from, currency: None, link: Some(links.len()), only_empty });
                    links.push(link.clone());
                }
                check_required(options, &mapped)?;
            }
        }
        let twice = mapped
            .iter()
            .enumerate()
            .find(|(at, one)| mapped[..*at].iter().any(|other| other.field.code == one.field.code));
        if let Some((_, twice)) = twice {
            return Err(Error::config(format!("fields: the field {} is mapped twice", twice.field.name)));
        }
        let key = mapped.iter().position(|mapped| mapped.field.name == ask.match_on);
        let key = key.ok_or_else(|| Error::internal("the match_on field is not mapped"))?;
        let key_field = &mapped[key].field;
        if !value::can_be_key(&key_field.kind) {
            return Err(Error::config(format!("{}: records cannot be told apart by {}", ask.place, ask.match_on))
                .hint("take a text or a number"));
        }
        let keyed_by = format!("{account} {entity} {}", key_field.code);
        let wanted = wanted(entity, &mapped);
        let custom = definitions.iter().filter(|one| one.is_custom_field);
        let names = custom.map(|one| (one.field_code.clone(), one.field_name.clone())).collect();
        Ok(Self { entity, mapped, key, wanted, links, extras: Map::new(), keyed_by, names })
    }

    /// What the keys are or were, with the field's name as it is now.
    pub fn keyed_in_words(&self, keyed_by: &str) -> String {
        let Some((place, code)) = keyed_by.rsplit_once(' ') else { return keyed_by.to_owned() };
        match self.names.get(code) {
            Some(name) => format!("{place} {name} ({code})"),
            None => keyed_by.to_owned(),
        }
    }

    /// Users, pipelines and stages by their names. Nothing is asked where no name stands.
    async fn name_people_and_places(&mut self, crm: &Crm, options: &SinkOptions) -> Result<()> {
        let has =
            |shape: &Self, standard| shape.mapped.iter().any(|mapped| mapped.field.kind == Kind::Standard(standard));
        if has(self, Standard::User) || matches!(options.owner, Some(NameOrId::Name(_))) {
            let users = crm.users().await?;
            let named = |name: fn(&crate::client::User) -> &Option<String>| {
                users.iter().filter_map(move |user| Some((user.id, name(user).clone()?))).collect::<Vec<_>>()
            };
            let (all, aliases) = (named(|user| &user.name), named(|user| &user.email));
            let choices = Arc::new(Choices { what: "user", all, aliases, by_id: true });
            if let Some(NameOrId::Name(name)) = &options.owner {
                self.extra("owner_id", choices.id(name).map_err(|why| Error::config(format!("owner: {why}")))?);
            }
            self.choose(Standard::User, &choices);
        }
        if let Some(NameOrId::Id(id)) = options.owner {
            self.extra("owner_id", i64::try_from(id).unwrap_or_default());
        }
        let mut pipeline = None;
        if has(self, Standard::Pipeline) || options.pipeline.is_some() {
            let all = crm.all::<Named>("list the pipelines", "pipelines").await?;
            let all = all.into_iter().map(|one| (one.id, one.name)).collect();
            let choices = Arc::new(Choices { what: "pipeline", all, aliases: vec![], by_id: true });
            if let Some(name) = &options.pipeline {
                let id = choices.id(name).map_err(|why| Error::config(format!("pipeline: {why}")))?;
                self.extra("pipeline_id", id);
                pipeline = Some(id);
            }
            self.choose(Standard::Pipeline, &choices);
        }
        if has(self, Standard::Stage) || options.stage.is_some() {
            let mut all = crm.all::<Stage>("list the stages", "stages").await?;
            // Pipelines have stages of the same names.
            all.retain(|stage| pipeline.is_none() || stage.pipeline_id == pipeline);
            let all = all.into_iter().map(|stage| (stage.id, stage.name)).collect();
            let choices = Arc::new(Choices { what: "stage", all, aliases: vec![], by_id: true });
            if let Some(name) = &options.stage {
                let id = choices.id(name).map_err(|why| {
                    Error::config(format!("stage: {why}")).hint("name its `pipeline` as well, if several have one")
                })?;
                self.extra("stage_id", id);
            }
            self.choose(Standard::Stage, &choices);
        }
        Ok(())
    }

    /// Values that are the same for all rows: one that does not fit would refuse every row.
    fn check_fixed(&self, options: &SinkOptions) -> Result<()> {
        for Mapped { field, from, currency, .. } in &self.mapped {
            let (name, part) = match field.name.strip_suffix(CURRENCY) {
                Some(name) if options.fields.contains_key(name) => (name, "currency"),
                _ => (field.name.as_str(), "value"),
            };
            let check = |kind: &Kind, source: &Source, part: &str| {
                let Source::Fixed(text) = source else { return Ok(()) };
                let empty = || "it is empty, and Pipedrive takes none without".to_owned();
                let required = !field.custom && field.code == options.entity.required();
                let value = value::from_row(kind, Some(text), None);
                let fits = value.and_then(|value| if required && value.is_null() { Err(empty()) } else { Ok(()) });
                fits.map_err(|why| {
                    let error = Error::config(format!("fields.{name}.{part}: {why}"));
                    match fields::nearest(text, kind.words().into_iter()).as_slice() {
                        [] => error,
                        near => error.hint(format!("did you mean {}?", near.join(", "))),
                    }
                })
            };
            check(&field.kind, from, part)?;
            if let Some(currency) = currency {
                check(&Kind::Standard(Standard::Currency), currency, "currency")?;
            }
        }
        Ok(())
    }

    fn extra(&mut self, code: &str, id: i64) {
        // A field that is mapped has the last word.
        if !self.mapped.iter().any(|mapped| mapped.field.code == code) {
            self.extras.insert(code.to_owned(), Value::from(id));
        }
    }

    fn choose(&mut self, standard: Standard, choices: &Arc<Choices>) {
        for mapped in &mut self.mapped {
            if mapped.field.kind == Kind::Standard(standard) {
                mapped.field.kind = Kind::Choice(Arc::clone(choices));
            }
        }
    }

    /// The keys under `custom_fields` to ask a list for; `None`: they are too many, so all are listed.
    pub fn custom_keys(&self) -> Option<String> {
        let keys: Vec<_> = self.wanted.custom.iter().map(|(key, _)| key.as_str()).collect();
        (!keys.is_empty() && keys.len() <= MOST_KEYS).then(|| keys.join(","))
    }

    /// A listed record with its key.
    pub fn record(&self, listed: &Listed, state: Option<State>) -> (Option<String>, Record) {
        let values: Vec<Value> = self
            .mapped
            .iter()
            .zip(&listed.values)
            .map(|(mapped, raw)| value::from_server(&mapped.field.kind, raw))
            .collect();
        let key = value::key(&values[self.key]);
        let more: Vec<_> = self
            .mapped
            .iter()
            .zip(&listed.values)
            .enumerate()
            .filter(|(_, (mapped, raw))| {
                mapped.field.kind == Kind::Standard(Standard::Contacts) && value::has_more(raw)
            })
            .map(|(at, (_, raw))| (at, raw.clone()))
            .collect();
        let closed =
            listed.values.get(self.mapped.len()).and_then(Value::as_str).is_some_and(|status| status != "open");
        let state = state.unwrap_or(if closed { State::Closed } else { State::Live });
        let more = (!more.is_empty()).then(|| more.into());
        (key, Record { id: listed.id, values: as_text(&values).into(), more, state })
    }
}

fn map(field: Field, options: &SinkOptions, name: &str, from: &FieldFrom, mapped: &mut Vec<Mapped>) -> Result<()> {
    let (source, currency) = from.parts().map_err(Error::config)?;
    let only_empty = options.is_only_empty(name);
    let add = |mapped: &mut Vec<Mapped>, field, from, currency| {
        mapped.push(Mapped { field, from, currency, link: None, only_empty });
    };
    match (&field.kind, currency) {
        (Kind::Monetary, None) => {
            return Err(Error::config("an amount needs its currency").hint(
                "write {column: amount, currency: currency_column} or {column: amount, currency: {value: EUR}}",
            ));
        }
        (Kind::Monetary, currency) => add(mapped, field, source, currency),
        (Kind::Standard(Standard::Amount), Some(currency)) => {
            let kind = Kind::Standard(Standard::Currency);
            let code = Field { name: format!("{name}{CURRENCY}"), code: "currency".to_owned(), custom: false, kind };
            add(mapped, field, source, None);
            add(mapped, code, currency, None);
        }
        (_, Some(_)) => return Err(Error::config("only amounts have a currency").hint("leave the currency out")),
        (Kind::Standard(Standard::Id(_)), None) => {
            // An id in a column is unusual, but one's own.
            add(mapped, field, source, None);
        }
        (_, None) => add(mapped, field, source, None),
    }
    Ok(())
}

fn check_required(options: &SinkOptions, mapped: &[Mapped]) -> Result<()> {
    let code = options.entity.required();
    if !options.create || mapped.iter().any(|mapped| mapped.field.code == code) {
        return Ok(());
    }
    let what = format!("fields: a {} cannot be made without its {code}", options.entity.one());
    Err(Error::config(what).hint(format!("map the field {code}, or set `create: false`")))
}

fn wanted(entity: Entity, mapped: &[Mapped]) -> Wanted {
    let mut wanted = Wanted { width: mapped.len(), ..Wanted::default() };
    for (at, Mapped { field, .. }) in mapped.iter().enumerate() {
        let list = if field.custom { &mut wanted.custom } else { &mut wanted.standard };
        list.push((field.code.clone(), at));
    }
    if entity == Entity::Deals {
        // Where the status is mapped, it is read for that.
        match wanted.standard.iter().any(|(code, _)| code == "status") {
            true => {}
            false => {
                wanted.standard.push(("status".to_owned(), wanted.width));
                wanted.width += 1;
            }
        }
    }
    wanted
}
