use super::*;

fn choices() -> Arc<Choices> {
    Arc::new(Choices {
        what: "option",
        all: vec![(3, "gold".into()), (5, "silver, old".into()), (7, "twice".into()), (8, "twice".into())],
        aliases: vec![(3, "g@x".into())],
        by_id: false,
    })
}

fn standard(standard: Standard) -> Kind {
    Kind::Standard(standard)
}

#[test]
fn rows_become_what_the_server_echoes() {
    let status = standard(Standard::Word(&["open", "won"]));
    let cases: Vec<(Kind, &str, Result<Value, &str>)> = vec![
        (standard(Standard::Text), "  a b ", Ok(json!("a b"))),
        (standard(Standard::Text), "   ", Ok(Value::Null)),
        (standard(Standard::Name), " Ada   Lovelace ", Ok(json!("Ada Lovelace"))),
        (standard(Standard::Number), "12.50", Ok(json!(12.5))),
        (standard(Standard::Number), "0012", Ok(json!(12))),
        (standard(Standard::Number), "-0.0", Ok(json!(0))),
        (standard(Standard::Number), "1e3", Ok(json!(1000))),
        (standard(Standard::Number), "0.1", Ok(json!(0.1))),
        (standard(Standard::Number), "1234567890123.45", Ok(json!(1234567890123.45))),
        (
            standard(Standard::Number),
            "12345678901234567.89",
            Err("12345678901234567.89 has more digits than Pipedrive keeps"),
        ),
        (standard(Standard::Number), "12,5", Err("'12,5' is not a number")),
        (standard(Standard::Number), "nan", Err("'nan' is not a number")),
        (standard(Standard::Number), "infinity", Err("'infinity' is not a number")),
        (standard(Standard::Amount), "", Ok(json!(0))),
        (standard(Standard::Currency), "eur", Ok(json!("EUR"))),
        (standard(Standard::Currency), "euro €", Err("'euro €' is not the code of a currency")),
        (standard(Standard::Date), "2026-01-31", Ok(json!("2026-01-31"))),
        (standard(Standard::Date), "2026-01-31T10:00:00", Ok(json!("2026-01-31"))),
        (standard(Standard::Date), "2026-02-30", Err("'2026-02-30' is not a date; write 2026-01-31")),
        (standard(Standard::Date), "31.01.2026", Err("'31.01.2026' is not a date; write 2026-01-31")),
        (standard(Standard::Date), "2026-01-31x", Err("'2026-01-31x' is not a date; write 2026-01-31")),
        (standard(Standard::Date), "größe €€", Err("'größe €€' is not a date; write 2026-01-31")),
        (Kind::TimeObject, "7:30", Err("'7:30' is not a time of day; write 13:45:00")),
        (Kind::TimeObject, "07:30", Ok(json!("07:30:00"))),
        (standard(Standard::Truth), "Yes", Ok(json!(true))),
        (standard(Standard::Truth), "", Ok(json!(false))),
        (standard(Standard::Truth), "x", Err("'x' is neither true nor false")),
        (status.clone(), "Won", Ok(json!("won"))),
        (status, "gone", Err("'gone' is none of open, won")),
        (Kind::Choice(choices()), "gold", Ok(json!(3))),
        (Kind::Choice(choices()), "g@x", Ok(json!(3))),
        (Kind::Choice(choices()), "twice", Err("2 options are called 'twice'")),
        (Kind::Choice(choices()), "iron", Err("there is no option 'iron'; there are gold, silver, old, twice, twice")),
        (Kind::Choices(choices()), "silver, old", Ok(json!([5]))),
        (Kind::Choices(choices()), "gold, gold", Ok(json!([3]))),
        (Kind::Choices(choices()), ",", Ok(Value::Null)),
        (standard(Standard::Id(Entity::Persons)), "17", Ok(json!(17))),
        (standard(Standard::Id(Entity::Persons)), "0", Err("'0' is not an id")),
    ];
    for (kind, text, expected) in cases {
        let found = from_row(&kind, Some(text), None);
        assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|text| *text), "{kind:?} {text}");
    }
    let money = |text, currency| from_row(&Kind::Monetary, Some(text), currency);
    assert_eq!(money("1.10", Some("usd")), Ok(json!({ "value": 1.1, "currency": "USD" })));
    assert_eq!(money("1.10", Some(" ")), Ok(json!({ "value": 1.1 })));
    assert_eq!(from_row(&Kind::Monetary, None, Some("EUR")), Ok(Value::Null));
}

#[test]
fn what_the_server_lists_is_brought_into_the_same_form() {
    let cases = [
        (standard(Standard::Text), json!(""), Value::Null),
        (standard(Standard::Text), json!(" a "), json!("a")),
        (standard(Standard::Text), json!(7), json!("7")),
        (standard(Standard::Number), json!("7.50"), json!(7.5)),
        (standard(Standard::Number), json!(7.0), json!(7)),
        (standard(Standard::Amount), Value::Null, json!(0)),
        (standard(Standard::Date), json!("2026-01-31T00:00:00Z"), json!("2026-01-31")),
        (standard(Standard::Id(Entity::Persons)), json!({ "value": 7, "name": "x" }), json!(7)),
        (standard(Standard::Id(Entity::Persons)), json!(0), Value::Null),
        (standard(Standard::Address), json!({ "value": "Main St 1", "country": "NL" }), json!("Main St 1")),
        (Kind::TimeObject, json!({ "value": "07:30:00", "timezone_id": null }), json!("07:30:00")),
        (Kind::Monetary, json!({ "value": 10.0, "currency": "EUR" }), json!({ "value": 10, "currency": "EUR" })),
        (Kind::Monetary, json!({ "value": null, "currency": "EUR" }), Value::Null),
        (Kind::Choice(choices()), json!("3"), json!(3)),
        (Kind::Choices(choices()), json!([5, 3, 3]), json!([3, 5])),
        (Kind::Choices(choices()), json!([]), Value::Null),
        (standard(Standard::Contacts), json!([{ "value": "a" }, { "value": "b", "primary": true }]), json!("b")),
        (standard(Standard::Contacts), json!([]), Value::Null),
    ];
    for (kind, listed, expected) in cases {
        assert_eq!(from_server(&kind, &listed), expected, "{kind:?} {listed}");
    }
}

#[test]
fn contacts_of_others_are_kept() {
    let kind = standard(Standard::Contacts);
    let there = json!([
        { "value": "old@x", "primary": true, "label": "home" },
        { "value": "other@x", "primary": false, "label": "work" },
    ]);
    let sent = |value: Value, there| to_wire(&kind, "emails", &value, there);
    assert_eq!(
        sent(json!("new@x"), Some(&there)),
        json!([
            { "value": "new@x", "primary": true, "label": "home" },
            { "value": "other@x", "primary": false, "label": "work" },
        ])
    );
    assert_eq!(
        sent(json!("other@x"), Some(&there)),
        json!([{ "value": "other@x", "primary": true, "label": "home" }]),
        "one that is there already is not there twice"
    );
    assert_eq!(sent(Value::Null, Some(&there)), json!([{ "value": "other@x", "primary": true, "label": "work" }]));
    assert_eq!(sent(json!("a"), None), json!([{ "value": "a", "primary": true, "label": "work" }]));
    assert!(has_more(&there) && !has_more(&sent(json!("a"), None)));
}

proptest::proptest! {
    /// What was sent comes back as a JSON number, and is then equal to what the row asks for.
    #[test]
    fn a_decimal_that_is_taken_comes_back_as_the_same(whole in -999_999_999_999_i64..999_999_999_999, cents in 0..100u8) {
        let text = format!("{whole}.{cents:02}");
        let asked = number(&text).unwrap();
        let echoed: Value = serde_json::from_str(&serde_json::to_string(&asked).unwrap()).unwrap();
        proptest::prop_assert_eq!(&number_of(&echoed), &asked);
        // And to a reader of decimals, it is the very number.
        proptest::prop_assert_eq!(digits(&asked.to_string()), digits(&text));
    }
    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,20}") {
        for kind in [Standard::Text, Standard::Number, Standard::Date, Standard::Time, Standard::Currency] {
            let _ = from_row(&Kind::Standard(kind), Some(&text), None);
        }
    }
}
