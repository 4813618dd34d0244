//! What an account has to hold, by a simpler way of thinking: loops over lists, cents as whole numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::draw::{Case, Customer, Order, Policies};

#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// `None`: made by the run.
    pub id: Option<u64>,
    pub key: String,
    pub name: String,
    pub email: Option<String>,
    pub other_emails: BTreeSet<String>,
    pub tier: String,
    pub tags: BTreeSet<String>,
    pub note: String,
    pub gone: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Deal {
    /// `None`: made by the run.
    pub id: Option<u64>,
    pub key: String,
    pub title: String,
    pub cents: i64,
    pub currency: String,
    pub day: String,
    pub fee: Option<(i64, String)>,
    /// Whose, by place.
    pub person: Option<usize>,
    pub status: String,
    pub archived: bool,
    pub gone: bool,
}

/// What is expected of a run.
#[derive(Debug, Default)]
pub struct Expected {
    pub persons: Vec<Person>,
    pub deals: Vec<Deal>,
    /// Dead letters by component.
    pub refused: BTreeMap<&'static str, usize>,
    /// More would have to be deleted than may be.
    pub fails: bool,
    /// Persons are deleted.
    pub deletes_persons: bool,
    /// The vendor refuses a row, which no plan can know.
    pub vendor_refuses: bool,
}

/// A row that cannot be.
struct No;

/// Which record a key has; `None`: none.
fn pick(all: &[usize], policy: &str) -> Result<Option<usize>, No> {
    match (all, policy) {
        ([], _) => Ok(None),
        ([one], _) | ([one, ..], "first") | ([.., one], "newest") => Ok(Some(*one)),
        _ => Err(No),
    }
}

fn code(text: &str) -> Result<Option<String>, No> {
    match text {
        "" => Ok(None),
        _ if text.chars().all(|c| c.is_ascii_alphanumeric()) => Ok(Some(text.to_uppercase())),
        _ => Err(No),
    }
}

/// What the vendor knows no currency by.
fn unknown(currency: Option<&String>) -> bool {
    currency.is_some_and(|currency| currency == "XXX")
}

fn cents(text: &str) -> Option<i64> {
    text.replace('.', "").parse().ok()
}

/// How many may be deleted.
fn most(policies: &Policies, of: usize) -> usize {
    of * policies.max_deletes as usize / 100
}

pub fn expected(case: &Case) -> Expected {
    let mut out = Expected::default();
    for (at, had) in case.had_persons.iter().enumerate() {
        out.persons.push(Person {
            id: Some(at as u64 + 1),
            key: had.key.to_owned(),
            name: had.name.to_owned(),
            email: had.emails.first().map(|email| (*email).to_owned()),
            other_emails: had.emails.iter().skip(1).map(|email| (*email).to_owned()).collect(),
            tier: had.tier.to_owned(),
            tags: had.tags.iter().map(|tag| (*tag).to_owned()).collect(),
            note: had.note.to_owned(),
            gone: had.gone,
        });
    }
    for (at, had) in case.had_deals.iter().enumerate() {
        let person = had.person.filter(|at| *at < case.had_persons.len());
        out.deals.push(Deal {
            id: Some(at as u64 + 1),
            key: had.key.to_owned(),
            title: had.title.to_owned(),
            cents: had.cents,
            currency: had.currency.to_owned(),
            day: had.day.to_owned(),
            fee: had.fee.map(|(cents, currency)| (cents, currency.to_owned())),
            person: person.filter(|at| !(case.other_way && case.had_persons[*at].gone)),
            status: had.status.to_owned(),
            archived: had.archived,
            gone: had.gone,
        });
    }
    persons(case, &mut out);
    if !out.fails {
        deals(case, &mut out);
    }
    out
}

impl Expected {
    fn refuse(&mut self, component: &'static str) {
        *self.refused.entry(component).or_default() += 1;
    }
    fn count(&self, components: &[&str]) -> usize {
        components.iter().filter_map(|component| self.refused.get(component)).sum()
    }
}

fn persons(case: &Case, out: &mut Expected) {
    for _ in case.customers.iter().filter(|row| row.is_none()) {
        out.refuse("customers");
    }
    let rows: Vec<&Customer> = case.customers.iter().flatten().collect();
    let mut given = BTreeSet::new();
    for (at, row) in rows.iter().enumerate() {
        let key = row.id.trim();
        if !key.is_empty() && rows[at + 1..].iter().any(|later| later.id.trim() == key) {
            continue;
        }
        if key.is_empty() || person(case, row, key, out).is_err() {
            out.refuse("persons");
        }
        given.insert(key);
    }
    if case.persons.on_missing == "keep" || out.count(&["customers", "persons"]) > 0 {
        return;
    }
    let keyed = |person: &&Person| !person.gone && !person.key.is_empty();
    let may = most(&case.persons, out.persons.iter().filter(keyed).count());
    let missing = |person: &Person| keyed(&person) && !given.contains(&*person.key);
    if out.persons.iter().filter(|person| missing(person)).count() > may {
        out.fails = true;
        return;
    }
    for at in 0..out.persons.len() {
        if missing(&out.persons[at]) {
            out.persons[at].gone = true;
            out.deletes_persons = true;
            let unlinked = out.deals.iter_mut().filter(|deal| case.other_way && deal.person == Some(at));
            unlinked.for_each(|deal| deal.person = None);
        }
    }
}

/// Those of a key.
fn of_key(persons: &[Person], key: &str) -> Vec<usize> {
    (0..persons.len()).filter(|at| persons[*at].key == key && !persons[*at].gone).collect()
}

fn person(case: &Case, row: &Customer, key: &str, out: &mut Expected) -> Result<(), No> {
    let name = row.name.split_whitespace().collect::<Vec<_>>().join(" ");
    let tier = row.tier.trim();
    let tags: BTreeSet<String> = match row.tags {
        "" => BTreeSet::new(),
        "x,y" => ["x,y".to_owned()].into(),
        list => list.split(',').map(str::to_owned).collect(),
    };
    if name.is_empty() || tier == "Bronze" || tags.contains("c") {
        return Err(No);
    }
    let too_long = row.note == "(too long)";
    let email = (!row.email.is_empty()).then(|| row.email.to_owned());
    match pick(&of_key(&out.persons, key), case.persons.on_duplicate)? {
        None if !case.persons.create => {}
        None => {
            if too_long {
                out.vendor_refuses = true;
                return Err(No);
            }
            out.persons.push(Person {
                id: None,
                key: key.to_owned(),
                name,
                email,
                other_emails: BTreeSet::new(),
                tier: tier.to_owned(),
                tags,
                note: row.note.to_owned(),
                gone: false,
            });
        }
        Some(_) if !case.persons.update => {}
        Some(at) => {
            let had = &mut out.persons[at];
            let writes = |field: &str, is_empty: bool| is_empty || !case.persons.fills_only(field);
            if writes("Note", had.note.is_empty()) {
                if too_long {
                    out.vendor_refuses = true;
                    return Err(No);
                }
                had.note = row.note.to_owned();
            }
            if writes("Name", false) {
                had.name = name;
            }
            if writes("Tier", had.tier.is_empty()) {
                had.tier = tier.to_owned();
            }
            if writes("Tags", had.tags.is_empty()) {
                had.tags = tags;
            }
            if let Some(email) = email.filter(|_| writes("Email", had.email.is_none()))
                && had.email.as_ref() != Some(&email)
            {
                had.other_emails.remove(&email);
                let before = had.email.replace(email);
                // A vendor that merges takes nothing away.
                had.other_emails.extend(before.filter(|_| case.other_way));
            }
        }
    }
    Ok(())
}

fn deals(case: &Case, out: &mut Expected) {
    let mut paid = BTreeMap::<&str, (i64, BTreeSet<&str>)>::new();
    for row in &case.payments {
        let Some(row) = row.as_ref().filter(|row| row.amount != "x") else {
            out.refuse("payments");
            continue;
        };
        let sum = paid.entry(row.order).or_default();
        sum.0 += cents(row.amount).unwrap_or(0);
        sum.1.insert(row.currency);
    }
    let mut orders = BTreeMap::<&str, Vec<&Order>>::new();
    for row in &case.orders {
        match row.as_ref().filter(|row| row.day != "someday" && row.fee != "x") {
            Some(row) => orders.entry(row.id).or_default().push(row),
            None => out.refuse("orders"),
        }
    }
    for (id, rows) in &orders {
        if id.is_empty() || deal(case, id, rows, &paid, out).is_err() {
            out.refuse("deals");
        }
    }
    if case.deals.on_missing == "keep" || out.count(&["customers", "orders", "payments", "deals"]) > 0 {
        return;
    }
    let keyed = |deal: &&Deal| !deal.gone && !deal.key.is_empty();
    let may = most(&case.deals, out.deals.iter().filter(keyed).count());
    let closes = case.deals.on_missing == "close";
    let missing = |deal: &Deal| {
        let ends = !deal.archived && (!closes || deal.status == "open");
        keyed(&deal) && ends && !orders.contains_key(&*deal.key)
    };
    if out.deals.iter().filter(|deal| missing(deal)).count() > may {
        out.fails = true;
        return;
    }
    for deal in out.deals.iter_mut().filter(|deal| missing(deal)) {
        if closes {
            deal.status = "lost".to_owned();
        } else {
            deal.gone = true;
        }
    }
}

fn deal(
    case: &Case,
    id: &str,
    rows: &[&Order],
    paid: &BTreeMap<&str, (i64, BTreeSet<&str>)>,
    out: &mut Expected,
) -> Result<(), No> {
    fn most<'a>(rows: &[&'a Order], of: impl Fn(&'a Order) -> &'static str) -> &'static str {
        rows.iter().map(|row| of(row)).max().unwrap_or_default()
    }
    let customer = most(rows, |row| row.customer);
    let name = case.customers.iter().flatten().filter(|row| row.id == customer).map(|row| row.name).max();
    let title = format!("Order {id}{}", name.map(|name| format!(", {name}")).unwrap_or_default()).trim().to_owned();
    let (sum, currency) = match paid.get(id) {
        None => (0, "EUR".to_owned()),
        Some((sum, currencies)) => (*sum, currencies.iter().copied().collect::<Vec<_>>().join("+")),
    };
    let currency = code(&currency)?;
    let day = most(rows, |row| row.day);
    let fee = match rows.iter().filter_map(|row| cents(row.fee)).max() {
        None => None,
        Some(cents) => Some((cents, code(most(rows, |row| row.fee_currency))?)),
    };
    let person = match customer.trim() {
        "" => None,
        key => Some(pick(&of_key(&out.persons, key), case.linked)?.ok_or(No)?),
    };
    let those: Vec<usize> =
        (0..out.deals.len()).filter(|at| out.deals[*at].key == id && !out.deals[*at].gone).collect();
    let live: Vec<usize> = those.iter().copied().filter(|at| !out.deals[*at].archived).collect();
    let or_ours = |code: Option<String>| code.unwrap_or_else(|| "EUR".to_owned());
    match pick(&live, case.deals.on_duplicate)? {
        None if !case.deals.create || !those.is_empty() => {}
        None => {
            if unknown(currency.as_ref()) || fee.as_ref().is_some_and(|(_, code)| unknown(code.as_ref())) {
                out.vendor_refuses = true;
                return Err(No);
            }
            out.deals.push(Deal {
                id: None,
                key: id.to_owned(),
                title,
                cents: sum,
                currency: or_ours(currency),
                day: day.to_owned(),
                fee: fee.map(|(cents, code)| (cents, or_ours(code))),
                person,
                status: "open".to_owned(),
                archived: false,
                gone: false,
            });
        }
        Some(_) if !case.deals.update => {}
        Some(at) => {
            let had = out.deals[at].clone();
            let mut new = had.clone();
            let writes = |field: &str, is_empty: bool| is_empty || !case.deals.fills_only(field);
            if writes("Title", false) {
                new.title = title;
            }
            if writes("Order date", had.day.is_empty()) {
                new.day = day.to_owned();
            }
            if writes("Value", had.cents == 0) {
                new.cents = sum;
                new.currency = currency.unwrap_or(new.currency);
            }
            if writes("Fee", had.fee.is_none()) {
                let in_it = had.fee.as_ref().map(|(_, code)| code.clone());
                new.fee = fee.map(|(cents, code)| (cents, or_ours(code.or(in_it))));
            }
            if writes("person_id", had.person.is_none()) {
                new.person = person;
            }
            if unknown(Some(&new.currency)) || new.fee.as_ref().is_some_and(|(_, code)| unknown(Some(code))) {
                out.vendor_refuses = true;
                return Err(No);
            }
            out.deals[at] = new;
        }
    }
    Ok(())
}
