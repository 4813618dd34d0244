//! What is drawn: three files, an account, policies.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Account, Entity, FieldType};

use super::decimal;

/// More than a text of 255 characters takes.
pub const TOO_LONG: usize = 300;

/// A row of a file; `None`: a record that is none.
pub type Row<T> = Option<T>;

#[derive(Clone, Debug)]
pub struct Customer {
    pub id: &'static str,
    pub name: &'static str,
    pub email: &'static str,
    pub tier: &'static str,
    pub tags: &'static str,
    pub note: &'static str,
}

#[derive(Clone, Debug)]
pub struct Order {
    pub id: &'static str,
    pub customer: &'static str,
    pub day: &'static str,
    pub fee: &'static str,
    pub fee_currency: &'static str,
}

#[derive(Clone, Debug)]
pub struct Payment {
    pub order: &'static str,
    pub amount: &'static str,
    pub currency: &'static str,
}

/// A person that is there before.
#[derive(Clone, Debug)]
pub struct HadPerson {
    pub key: &'static str,
    pub name: &'static str,
    pub emails: Vec<&'static str>,
    pub tier: &'static str,
    pub tags: Vec<&'static str>,
    pub note: &'static str,
    pub gone: bool,
}

/// A deal that is there before.
#[derive(Clone, Debug)]
pub struct HadDeal {
    pub key: &'static str,
    pub title: &'static str,
    pub cents: i64,
    pub currency: &'static str,
    pub day: &'static str,
    pub fee: Option<(i64, &'static str)>,
    pub person: Option<usize>,
    pub status: &'static str,
    pub archived: bool,
    pub gone: bool,
}

/// What a sink is told to do.
#[derive(Clone, Debug)]
pub struct Policies {
    pub on_duplicate: &'static str,
    pub on_missing: &'static str,
    /// In hundredths.
    pub max_deletes: u64,
    pub create: bool,
    pub update: bool,
    /// `false`, `true`, or a list.
    pub only_empty: &'static str,
}

impl Policies {
    /// In one line of a sink.
    pub fn yaml(&self) -> String {
        let Self { on_duplicate, on_missing, max_deletes, create, update, only_empty } = self;
        format!(
            "on_duplicate_match: {on_duplicate}, on_missing: {on_missing}, max_deletes: {max_deletes}%, create: {create}, update: {update}, only_empty: {only_empty}"
        )
    }
    pub fn fills_only(&self, field: &str) -> bool {
        let names = self.only_empty.trim_matches(['[', ']']);
        self.only_empty == "true" || names.split(", ").any(|name| name == field)
    }
}

#[derive(Clone, Debug)]
pub struct Case {
    /// What nobody knows of the vendor is as it is not by default.
    pub other_way: bool,
    /// The run does what `plan --diff` kept.
    pub planned: bool,
    pub customers: Vec<Row<Customer>>,
    pub orders: Vec<Row<Order>>,
    pub payments: Vec<Row<Payment>>,
    pub had_persons: Vec<HadPerson>,
    pub had_deals: Vec<HadDeal>,
    pub persons: Policies,
    pub deals: Policies,
    /// Of the link: which one of several.
    pub linked: &'static str,
}

type Text = BoxedStrategy<&'static str>;

/// One of these; where rows are wrong now and then, one of those for a change.
fn text(right: &'static [&'static str], wrong: &'static [&'static str], dirty: bool) -> Text {
    if dirty { prop_oneof![7 => select(right), 1 => select(wrong)].boxed() } else { select(right).boxed() }
}

/// A row, now and then none.
fn row<T: std::fmt::Debug + Clone + 'static>(
    of: impl Strategy<Value = T> + 'static,
    dirty: bool,
) -> BoxedStrategy<Row<T>> {
    if dirty { prop::option::weighted(0.93, of).boxed() } else { of.prop_map(Some).boxed() }
}

const CUSTOMERS: &[&str] = &["C0", "C1", "C2", "C3", " C1 "];
const ORDERS: &[&str] = &["O0", "O1", "O2", "O3", "O4", "O5"];
const NAMES: &[&str] = &["Ada", "Bo \"B.\" Li", "Zoë  Ångström", "O'Neil, Sam ", "李雷", "two\nlines"];
const ADDRESSES: &[&str] = &["", "a@x.example", "b@x.example", "ä@x.example"];
const NOTES: &[&str] = &["", "n", "ein \"Zitat\", ja; 3 €"];
const DAYS: &[&str] = &["", "2026-01-05", "2026-02-28"];

fn customer(dirty: bool) -> BoxedStrategy<Row<Customer>> {
    let (id, name) = (text(CUSTOMERS, &["", "C4", "c1"], dirty), text(NAMES, &["", " "], dirty));
    let (tier, tags) =
        (text(&["", "Gold", "Silver"], &["Bronze", " Gold "], dirty), text(&["", "a", "b,a", "x,y"], &["a,c"], dirty));
    let note = text(NOTES, &["(too long)"], dirty);
    let all = (id, name, select(ADDRESSES), tier, tags, note);
    row(all.prop_map(|(id, name, email, tier, tags, note)| Customer { id, name, email, tier, tags, note }), dirty)
}

fn order(dirty: bool) -> BoxedStrategy<Row<Order>> {
    let (id, customer) = (text(ORDERS, &[""], dirty), text(CUSTOMERS, &["", "C4", "C9"], dirty));
    let (day, fee) = (text(DAYS, &["someday"], dirty), text(&["", "1.10", "20.00"], &["x"], dirty));
    let fee_currency = text(&["", "EUR", "USD", "usd"], &["XXX", "E+R"], dirty);
    let all = (id, customer, day, fee, fee_currency);
    row(all.prop_map(|(id, customer, day, fee, fee_currency)| Order { id, customer, day, fee, fee_currency }), dirty)
}

fn payment(dirty: bool) -> BoxedStrategy<Row<Payment>> {
    let amount = text(&["0.10", "0.20", "19.99", "-5.00", ""], &["x"], dirty);
    let all = (text(ORDERS, &["", " O1", "O9"], dirty), amount, text(&["EUR"], &["USD", "", "XXX"], dirty));
    row(all.prop_map(|(order, amount, currency)| Payment { order, amount, currency }), dirty)
}

fn had_person() -> impl Strategy<Value = HadPerson> {
    let key = prop_oneof![1 => Just(""), 9 => select(&["C0", "C1", "C2", "C3", "C4"][..])];
    let emails = prop::sample::subsequence(ADDRESSES[1..].to_vec(), 0..3).prop_shuffle();
    let tags = prop::sample::subsequence(vec!["a", "b", "x,y"], 0..3);
    (key, select(NAMES), emails, select(&["", "Gold", "Silver"][..]), tags, select(NOTES), prop::bool::weighted(0.1))
        .prop_map(|(key, name, emails, tier, tags, note, gone)| HadPerson {
            key,
            name: name.trim(),
            emails,
            tier,
            tags,
            note,
            gone,
        })
}

fn had_deal() -> impl Strategy<Value = HadDeal> {
    let key = prop_oneof![1 => Just(""), 9 => select(ORDERS)];
    let title = select(&["Order O1", "Order O1, Ada", "Order O2, 李雷", "mine"][..]);
    let money = (select(&[0, 10, 20, 30, 1999, -500][..]), select(&["EUR", "USD"][..]));
    let fee = prop::option::of((select(&[110, 2000][..]), select(&["EUR", "USD"][..])));
    let life = (
        prop_oneof![4 => Just("open"), 1 => Just("won"), 1 => Just("lost")],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    );
    (key, title, money, select(DAYS), fee, prop::option::of(0..6_usize), life).prop_map(
        |(key, title, (cents, currency), day, fee, person, (status, archived, gone))| HadDeal {
            key,
            title,
            cents,
            currency,
            day,
            fee,
            person,
            status,
            archived,
            gone,
        },
    )
}

fn policies(
    on_missing: &'static [&'static str],
    only_empty: &'static [&'static str],
) -> impl Strategy<Value = Policies> {
    let often = || prop::bool::weighted(0.85);
    let only_empty = prop_oneof![2 => Just("false"), 1 => select(only_empty)];
    (which(), select(on_missing), select(&[100_u64, 100, 100, 50, 20, 1][..]), often(), often(), only_empty).prop_map(
        |(on_duplicate, on_missing, max_deletes, create, update, only_empty)| Policies {
            on_duplicate,
            on_missing,
            max_deletes,
            create,
            update,
            only_empty,
        },
    )
}

fn which() -> impl Strategy<Value = &'static str> + Clone {
    select(&["error", "first", "newest"][..])
}

/// Any of them. Half have only rows that make sense, or nothing would ever be deleted.
pub fn case() -> impl Strategy<Value = Case> {
    any::<bool>().prop_flat_map(|dirty| {
        let files = (
            prop::collection::vec(customer(dirty), 0..8),
            prop::collection::vec(order(dirty), 0..8),
            prop::collection::vec(payment(dirty), 0..10),
        );
        let account = (prop::collection::vec(had_person(), 0..6), prop::collection::vec(had_deal(), 0..7));
        let persons = policies(&["keep", "delete"], &["true", "[Email]", "[Name, Tier, Tags]"]);
        let deals = policies(&["keep", "close", "delete"], &["true", "[Value]", "[Title, person_id, Fee]"]);
        let ways = (any::<bool>(), any::<bool>());
        (ways, files, account, persons, deals, which()).prop_map(
            move |(ways, files, account, persons, deals, linked)| {
                let (customers, mut orders, payments) = files;
                if !dirty {
                    // They are of customers that there are.
                    let known: Vec<_> = customers.iter().flatten().map(|customer: &Customer| customer.id).collect();
                    for (at, order) in orders.iter_mut().flatten().enumerate() {
                        order.customer = if known.is_empty() { "" } else { known[at % known.len()] };
                    }
                }
                let (had_persons, had_deals) = account;
                let (other_way, planned) = ways;
                Case { other_way, planned, customers, orders, payments, had_persons, had_deals, persons, deals, linked }
            },
        )
    })
}

/// A field of a record, in quotes if it has to be.
fn quoted(text: &str) -> String {
    if text == "(too long)" {
        "ü".repeat(TOO_LONG)
    } else if text.contains(['"', ',', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

impl Case {
    /// The files.
    pub fn files(&self) -> [(&'static str, String); 3] {
        fn file<T>(head: &str, rows: &[Row<T>], line: impl Fn(&T) -> Vec<&'static str>) -> String {
            // One field too many.
            let broken = format!("{head},more");
            let lines = rows.iter().map(|row| match row {
                Some(row) => line(row).into_iter().map(quoted).collect::<Vec<_>>().join(","),
                None => broken.clone(),
            });
            std::iter::once(head.to_owned()).chain(lines).map(|line| line + "\n").collect()
        }
        let customers = file("customer_id,name,email,tier,tags,note", &self.customers, |row| {
            vec![row.id, row.name, row.email, row.tier, row.tags, row.note]
        });
        let orders = file("order_id,customer_id,ordered,fee,fee_currency", &self.orders, |row| {
            vec![row.id, row.customer, row.day, row.fee, row.fee_currency]
        });
        let payments =
            file("order_id,amount,currency", &self.payments, |row| vec![row.order, row.amount, row.currency]);
        [("customers.csv", customers), ("orders.csv", orders), ("payments.csv", payments)]
    }

    /// Makes an account what it is before.
    pub fn seed(&self, account: &Account) {
        let fields = account.fields(Entity::Persons);
        fields.add_options("Tier", FieldType::Enum, &["Gold", "Silver"]);
        fields.add_options("Tags", FieldType::Set, &["a", "b", "x,y"]);
        fields.add("Note", FieldType::Varchar);
        account.fields(Entity::Deals).add("Fee", FieldType::Monetary);
        let filled = |text: &'static str| if text.is_empty() { Value::Null } else { json!(text) };
        let mut ids = vec![];
        for HadPerson { key, name, emails, tier, tags, note, .. } in &self.had_persons {
            let emails: Vec<_> =
                emails.iter().enumerate().map(|(at, email)| json!({ "value": email, "primary": at == 0 })).collect();
            let tags = if tags.is_empty() { Value::Null } else { json!(tags) };
            let custom = json!({ "CustomerID": filled(key), "Tier": filled(tier), "Tags": tags, "Note": filled(note) });
            ids.push(account.add(Entity::Persons, json!({ "name": name, "emails": emails, "custom_fields": custom })));
        }
        let amount = |cents: i64| decimal(cents).parse::<f64>().unwrap();
        for deal in &self.had_deals {
            let fee = deal.fee.map(|(cents, currency)| json!({ "value": amount(cents), "currency": currency }));
            let custom = json!({ "OrderID": filled(deal.key), "Order date": filled(deal.day), "Fee": fee });
            let person = deal.person.and_then(|at| ids.get(at));
            let body = json!({
                "title": deal.title, "value": amount(deal.cents), "currency": deal.currency, "person_id": person,
                "status": deal.status, "is_archived": deal.archived, "custom_fields": custom,
            });
            let id = account.add(Entity::Deals, body);
            if deal.gone {
                account.delete(Entity::Deals, id);
            }
        }
        for (id, person) in ids.iter().zip(&self.had_persons) {
            if person.gone {
                account.delete(Entity::Persons, *id);
            }
        }
    }
}
