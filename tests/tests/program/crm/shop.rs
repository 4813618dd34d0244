//! Customers, orders and payments: as three files, and as what a CRM must hold of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Account, Entity};

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct Shop {
    /// Name and e-mail address.
    pub customers: BTreeMap<String, (String, String)>,
    /// Customer and day.
    pub orders: BTreeMap<String, (String, String)>,
    /// Order, cents, currency.
    pub payments: Vec<(String, i64, &'static str)>,
}

impl Shop {
    /// So many of both. One order in ten has not been paid; the others in one to three parts, one in five in dollars.
    pub fn of(customers: u64, orders: u64) -> Self {
        let customer = |n: u64| (format!("C{n}"), (format!("Customer {n}"), format!("c{n}@example.com")));
        let order = |n: u64| {
            let of = 1 + n * 7_919 % customers;
            (format!("O{n}"), (format!("C{of}"), format!("2026-{:02}-{:02}", 1 + n % 12, 1 + n % 28)))
        };
        let mut payments = vec![];
        for n in (1..=orders).filter(|n| n % 10 != 0) {
            let currency = if n % 5 == 1 { "USD" } else { "EUR" };
            // Tenths are no binary fractions: sums of doubles would show it.
            payments
                .extend((0..=n % 3).map(|part| (format!("O{n}"), 10 + (n * 37 + part * 10) as i64 % 99_991, currency)));
        }
        Self { customers: (1..=customers).map(customer).collect(), orders: (1..=orders).map(order).collect(), payments }
    }

    /// Cents and currency of an order.
    fn paid(&self) -> BTreeMap<&str, (i64, &'static str)> {
        let mut sums = BTreeMap::<&str, (i64, &'static str)>::new();
        for (order, cents, currency) in &self.payments {
            let sum = sums.entry(order).or_insert((0, currency));
            assert_eq!(sum.1, *currency, "{order} is paid in two currencies: it has no sum");
            sum.0 += cents;
        }
        sums
    }
    fn title(&self, order: &str, customer: &str) -> String {
        let name = self.customers.get(customer).map(|(name, _)| format!(", {name}"));
        format!("Order {order}{}", name.unwrap_or_default())
    }

    /// The persons that a CRM must hold: customer, name, e-mail address.
    pub fn people(&self) -> Vec<String> {
        self.customers.iter().map(|(id, (name, email))| format!("{id}|{name}|{email}")).collect()
    }
    /// The deals: order, title, value, currency, customer, day.
    pub fn sales(&self) -> Vec<String> {
        let paid = self.paid();
        let line = |(id, (customer, day)): (&String, &(String, String))| {
            let (cents, currency) = paid.get(id.as_str()).copied().unwrap_or((0, "EUR"));
            // The double that is nearest to the decimal: what the vendor keeps.
            let value: f64 = decimal(cents).parse().unwrap();
            format!("{id}|{}|{value} {currency}|{customer}|{day}", self.title(id, customer))
        };
        self.orders.iter().map(line).collect()
    }

    /// Makes an account hold it, as if it had been sent.
    pub fn seed(&self, account: &Account) {
        let person = |(id, (name, email)): (&String, &(String, String))| {
            let emails = json!([{ "value": email, "primary": true, "label": "work" }]);
            json!({ "name": name, "emails": emails, "custom_fields": { "CustomerID": id } })
        };
        let ids = account.seed(Entity::Persons, self.customers.iter().map(person));
        let ids: BTreeMap<&String, u64> = self.customers.keys().zip(ids).collect();
        let paid = self.paid();
        let deal = |(id, (customer, day)): (&String, &(String, String))| {
            let (cents, currency) = paid.get(id.as_str()).copied().unwrap_or((0, "EUR"));
            let value: f64 = decimal(cents).parse().unwrap();
            let custom = json!({ "OrderID": id, "Order date": day });
            let title = self.title(id, customer);
            json!({ "title": title, "value": value, "currency": currency, "person_id": ids[customer], "custom_fields": custom })
        };
        account.seed(Entity::Deals, self.orders.iter().map(deal));
    }

    /// `customers.csv`, `orders.csv`, `payments.csv`.
    pub fn files(&self) -> [(&'static str, String); 3] {
        let [mut customers, mut orders, mut payments] =
            ["customer_id,name,email\n", "order_id,customer_id,ordered\n", "payment_id,order_id,amount,currency\n"]
                .map(str::to_owned);
        for (id, (name, email)) in &self.customers {
            writeln!(customers, "{id},\"{name}\",{email}").unwrap();
        }
        for (id, (customer, day)) in &self.orders {
            writeln!(orders, "{id},{customer},{day}").unwrap();
        }
        for (number, (order, cents, currency)) in self.payments.iter().enumerate() {
            writeln!(payments, "{number},{order},{},{currency}", decimal(*cents)).unwrap();
        }
        [("customers.csv", customers), ("orders.csv", orders), ("payments.csv", payments)]
    }
}

fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The persons that an account holds, as [`Shop::people`] has them.
pub fn people(account: &Account) -> Vec<String> {
    let line = |person: &towpath_testkit::pipedrive::Record| {
        let emails = person.get("emails").as_array().cloned().unwrap_or_default();
        let primary = emails.iter().find(|email| email["primary"] == true).map(|email| text(&email["value"]));
        format!("{}|{}|{}", text(person.custom("CustomerID")), text(person.get("name")), primary.unwrap_or_default())
    };
    sorted(account.persons().iter().map(line).collect())
}

/// The deals that it holds, as [`Shop::sales`] has them.
pub fn sales(account: &Account) -> Vec<String> {
    let customers: BTreeMap<u64, String> =
        account.persons().iter().map(|person| (person.id, text(person.custom("CustomerID")))).collect();
    let line = |deal: &towpath_testkit::pipedrive::Record| {
        let person = deal.get("person_id").as_u64().and_then(|id| customers.get(&id).cloned());
        let value = deal.get("value").as_f64().map(|value| value.to_string()).unwrap_or_default();
        let [id, title, currency, day] =
            [deal.custom("OrderID"), deal.get("title"), deal.get("currency"), deal.custom("Order date")].map(text);
        format!("{id}|{title}|{value} {currency}|{}|{day}", person.unwrap_or_default())
    };
    sorted(account.deals().iter().map(line).collect())
}

fn text(value: &Value) -> String {
    value.as_str().map(str::to_owned).unwrap_or_default()
}

/// In the order of the keys, as a map has them.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by(|a, b| a.split('|').next().cmp(&b.split('|').next()).then_with(|| a.cmp(b)));
    lines
}

/// A server of files that change, each with an ETag. Its thread ends with the process.
#[derive(Clone)]
pub struct Files {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Default)]
struct Shelf {
    /// Content and version.
    files: BTreeMap<String, (String, u64)>,
    /// What was asked for: `GET /orders.csv`.
    asked: Vec<String>,
}

impl Files {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let files = Self { address: listener.local_addr().unwrap(), shelf: Arc::default() };
        let server = files.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // Who was killed has hung up.
                std::thread::spawn(move || drop(server.answer(stream)));
            }
        });
        files
    }
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    /// Puts a file there, unless it is the same.
    pub fn put(&self, name: &str, content: &str) {
        let mut shelf = self.shelf();
        let (old, version) = shelf.files.entry(format!("/{name}")).or_default();
        if old != content {
            (*old, *version) = (content.to_owned(), *version + 1);
        }
    }
    /// What was asked for since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shelf().asked)
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let asked = lines.next().transpose()?.unwrap_or_default();
        let mut known = None;
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("if-none-match")
            {
                known = Some(value.to_owned());
            }
        }
        let mut words = asked.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let file = {
            let mut shelf = self.shelf();
            shelf.asked.push(format!("{method} {path}"));
            shelf.files.get(path).cloned()
        };
        let Some((content, version)) = file else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let tag = format!("\"{version}\"");
        if known.as_ref() == Some(&tag) {
            let head = format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\nConnection: close\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        let (length, kind) = (content.len(), "text/csv; charset=utf-8");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nETag: {tag}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        if method == "HEAD" { Ok(()) } else { stream.write_all(content.as_bytes()) }
    }
}
