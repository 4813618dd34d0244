//! Pages of records: filters, order, cursors.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Entity, clock,
    options::Cursors,
    query::Query,
    refusal::Refusal,
    state::{Row, State, View},
};

/// What a page may hold.
const MOST: usize = 500;
const MOST_IDS: usize = 100;
const MOST_CUSTOM: usize = 15;

/// What a record is sorted by: a number, or a text; the id decides between equals.
type SortKey = (i64, String, u64);

/// Where a page begins.
#[derive(Debug)]
enum From {
    Start,
    Behind(SortKey),
    Skip(usize),
}

pub(super) fn limit(query: &Query, most: usize) -> Result<usize, Refusal> {
    let Some(text) = query.get("limit") else { return Ok(100.min(most)) };
    let limit = text.parse::<usize>().map_err(|_| Refusal::schema("limit", "Expected number, received string"))?;
    match limit {
        0 => Err(Refusal::schema("limit", "Number must be greater than 0")),
        limit if limit > most => Err(Refusal::schema("limit", &format!("Number must be less than or equal to {most}"))),
        limit => Ok(limit),
    }
}

pub(super) fn number(query: &Query, name: &str) -> Result<Option<u64>, Refusal> {
    let parsed = query
        .get(name)
        .map(|text| text.parse::<u64>().map_err(|_| Refusal::schema(name, "Expected number, received string")));
    parsed.transpose()
}

fn instant(query: &Query, name: &str) -> Result<Option<i64>, Refusal> {
    let parsed =
        query.get(name).map(|text| clock::instant(text).ok_or_else(|| Refusal::schema(name, "not a valid datetime")));
    parsed.transpose()
}

/// A cursor that says how many to skip; the vendor's are as opaque.
pub(super) fn skip_cursor(skip: usize) -> String {
    STANDARD.encode(json!({ "offset": skip }).to_string())
}

fn decoded(cursor: &str) -> Option<Value> {
    serde_json::from_slice(&STANDARD.decode(cursor).ok()?).ok()
}

/// How many a cursor skips.
pub(super) fn skipped(query: &Query) -> Result<usize, Refusal> {
    let Some(cursor) = query.get("cursor") else { return Ok(0) };
    let skip =
        decoded(cursor).and_then(|cursor| cursor.get("offset")?.as_u64()).and_then(|skip| usize::try_from(skip).ok());
    skip.ok_or_else(|| Refusal::schema("cursor", "Invalid cursor"))
}

fn from(query: &Query, sort: &str) -> Result<From, Refusal> {
    let Some(cursor) = query.get("cursor") else { return Ok(From::Start) };
    let invalid = || Refusal::schema("cursor", "Invalid cursor");
    let cursor = decoded(cursor).ok_or_else(invalid)?;
    if let Some(skip) = cursor.get("offset").and_then(Value::as_u64) {
        return usize::try_from(skip).map(From::Skip).map_err(|_| invalid());
    }
    if cursor.get("field").and_then(Value::as_str) != Some(sort) {
        return Err(invalid());
    }
    let id = cursor.get("id").and_then(Value::as_u64).ok_or_else(invalid)?;
    Ok(From::Behind(match cursor.get("fieldValue") {
        Some(Value::String(text)) => (0, text.clone(), id),
        Some(value) => (value.as_i64().ok_or_else(invalid)?, String::new(), id),
        None => return Err(invalid()),
    }))
}

fn sort_key(row: &Row, sort: &str) -> SortKey {
    match sort {
        "add_time" => (row.add, String::new(), row.id),
        "update_time" => (row.update, String::new(), row.id),
        "order_nr" => (row.get("order_nr").as_i64().unwrap_or_default(), String::new(), row.id),
        "name" | "due_date" => (0, row.text(sort).unwrap_or_default().to_owned(), row.id),
        _ => (i64::try_from(row.id).unwrap_or(i64::MAX), String::new(), row.id),
    }
}

impl State {
    /// What a call wants to be shown.
    pub fn view(&self, entity: Entity, query: &Query) -> Result<View, Refusal> {
        let mut view = View {
            option_labels: query.is_true("include_option_labels"),
            labels: query.is_true("include_labels"),
            ..View::default()
        };
        if let Some(keys) = query.list("custom_fields") {
            if keys.len() > MOST_CUSTOM {
                return Err(Refusal::schema("custom_fields", &format!("A maximum of {MOST_CUSTOM} keys is allowed")));
            }
            let fields = self.fields(entity);
            view.custom = Some(keys.iter().filter_map(|key| fields.custom(key)).map(|(place, _)| place).collect());
        }
        for word in query.list("include_fields").unwrap_or_default() {
            let known = entity.includes().iter().find(|known| **known == word);
            let known = known
                .ok_or_else(|| Refusal::schema("include_fields", &format!("'{word}' is not one of the fields")))?;
            view.include.push(known);
        }
        Ok(view)
    }

    /// A page of records.
    pub fn list(&self, entity: Entity, archived: bool, query: &Query) -> Result<Vec<u8>, Refusal> {
        let view = self.view(entity, query)?;
        let limit = limit(query, MOST)?;
        let sort = query.get("sort_by").unwrap_or("id");
        if !entity.sorts().contains(&sort) {
            return Err(Refusal::schema("sort_by", &format!("Expected one of {}", entity.sorts().join(", "))));
        }
        let descending = match query.get("sort_direction") {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(Refusal::schema("sort_direction", "Expected one of asc, desc")),
        };
        if query.get("filter_id").is_some() {
            return Err(Refusal::not_found("Filter"));
        }
        let filter = self.filter(entity, archived, query)?;
        let from = from(query, sort)?;
        let rows = &self.table(entity).rows;
        let fits = |row: &&Row| !self.is_purged(row) && filter.fits(row);

        let mut page: Vec<&Row> = if sort == "id" && !descending {
            let (behind, skip) = match &from {
                From::Start => (0, 0),
                From::Behind((.., id)) => (*id + 1, 0),
                From::Skip(skip) => (0, *skip),
            };
            rows.range(behind..).map(|(_, row)| row).filter(fits).skip(skip).take(limit + 1).collect()
        } else {
            let mut keyed: Vec<(SortKey, &Row)> =
                rows.values().filter(fits).map(|row| (sort_key(row, sort), row)).collect();
            if let From::Behind(last) = &from {
                keyed.retain(|(key, _)| if descending { key < last } else { key > last });
            }
            keyed.sort_unstable_by(|(a, _), (b, _)| if descending { b.cmp(a) } else { a.cmp(b) });
            let skip = if let From::Skip(skip) = from { skip } else { 0 };
            keyed.into_iter().map(|(_, row)| row).skip(skip).take(limit + 1).collect()
        };

        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|last| match self.options.unsettled.cursors {
            Cursors::Offset => {
                let skip = if let From::Skip(skip) = from { skip } else { 0 };
                skip_cursor(skip + limit)
            }
            Cursors::Keyset => {
                let (number, text, id) = sort_key(last, sort);
                let value = if text.is_empty() { json!(number) } else { json!(text) };
                let direction = if descending { "desc" } else { "asc" };
                STANDARD.encode(
                    json!({ "field": sort, "fieldValue": value, "sortDirection": direction, "id": id }).to_string(),
                )
            }
        });
        let mut out = br#"{"success":true,"data":["#.to_vec();
        for (number, row) in page.into_iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            self.write(entity, row, &view, &mut out);
        }
        out.extend_from_slice(format!(r#"],"additional_data":{}}}"#, json!({ "next_cursor": next })).as_bytes());
        Ok(out)
    }

    fn filter(&self, entity: Entity, archived: bool, query: &Query) -> Result<Filter, Refusal> {
        let mut filter = Filter {
            archived: (entity == Entity::Deals).then_some(archived),
            since: instant(query, "updated_since")?,
            until: instant(query, "updated_until")?,
            ..Filter::default()
        };
        if let Some(ids) = query.list("ids") {
            if ids.len() > MOST_IDS {
                return Err(Refusal::schema("ids", &format!("A maximum of {MOST_IDS} ids is allowed")));
            }
            let parsed: Result<Vec<u64>, _> = ids.iter().map(|id| id.parse()).collect();
            filter.ids = Some(parsed.map_err(|_| Refusal::schema("ids", "Expected numbers with commas between"))?);
        }
        for name in entity.filters() {
            match *name {
                "status" => {
                    for word in query.list("status").unwrap_or_default() {
                        if !["open", "won", "lost", "deleted"].contains(&word) {
                            return Err(Refusal::schema("status", "Expected one of open, won, lost, deleted"));
                        }
                        filter.statuses.push(word.to_owned());
                    }
                }
                "done" => filter.done = query.get("done").map(|done| matches!(done, "true" | "1")),
                "lead_id" => filter.lead = query.get("lead_id").map(str::to_owned),
                // Persons of a deal: itself has only one.
                "deal_id" if entity == Entity::Persons => {
                    if let Some(deal) = number(query, "deal_id")? {
                        let person = self.alive(Entity::Deals, deal).and_then(|deal| deal.int("person_id"));
                        filter.ids = Some(match filter.ids.take() {
                            Some(ids) => ids.into_iter().filter(|id| Some(*id) == person).collect(),
                            None => person.into_iter().collect(),
                        });
                    }
                }
                name => filter.links.extend(number(query, name)?.map(|id| (name, id))),
            }
        }
        Ok(filter)
    }
}

#[derive(Debug, Default)]
struct Filter {
    archived: Option<bool>,
    since: Option<i64>,
    until: Option<i64>,
    ids: Option<Vec<u64>>,
    statuses: Vec<String>,
    done: Option<bool>,
    lead: Option<String>,
    links: Vec<(&'static str, u64)>,
}

impl Filter {
    fn fits(&self, row: &Row) -> bool {
        let status = if row.deleted.is_some() { "deleted" } else { row.text("status").unwrap_or_default() };
        let of_status = match self.statuses.is_empty() {
            true => row.deleted.is_none(),
            false => self.statuses.iter().any(|wanted| wanted == status),
        };
        of_status
            && self.archived.is_none_or(|archived| row.is_archived() == archived)
            && self.since.is_none_or(|since| row.update >= since)
            && self.until.is_none_or(|until| row.update < until)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&row.id))
            && self.done.is_none_or(|done| (row.get("done") == &json!(true)) == done)
            && self.lead.as_deref().is_none_or(|lead| row.text("lead_id") == Some(lead))
            && self.links.iter().all(|(key, id)| row.int(key) == Some(*id))
    }
}
