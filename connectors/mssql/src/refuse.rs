//! Rows that the target would refuse: found by questions over the staging table, or, where the server names nothing, by trying.

use std::{collections::BTreeMap, sync::Arc};

use towpath_core::{Error, ErrorKind, Result, WriteMode};

use crate::{
    catalog::{Table, TableName},
    client::{Pool, number, text},
    error::{Meaning, meaning, told},
    statements::{self, Publish},
};

/// Rows found by trying, for one publish: each costs a score of trials.
pub(crate) const TRIED_AT_MOST: usize = 100;
/// Numbers in one statement: VALUES takes no more.
const AT_ONCE: usize = 1000;
/// So many numbers are named in the statement itself.
const NAMED_AT_MOST: usize = 100;

/// Why a row is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: ErrorKind,
    /// Shared by all rows that a question finds.
    pub(crate) reason: Arc<str>,
    pub(crate) column: Option<Arc<str>>,
    /// Found by trying.
    pub(crate) tried: bool,
}

/// A question about staged rows; its answer are the numbers of those refused.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) sql: String,
    pub(crate) refusal: Refusal,
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The row by itself.
    Row,
    /// Its place among others.
    Others,
}

/// What must be asked before rows go into a table: of most tables nothing, because what a row is by itself was looked at before it was sent.
pub(crate) fn questions(
    about: About,
    publish: &Publish<'_>,
    table: &Table,
    mode: WriteMode,
    beyond_ascii: &[String],
    first: i64,
) -> Vec<Question> {
    let mut questions = vec![];
    let mut ask = |sql: Option<String>, kind, column: Option<&str>, reason: String| {
        if let Some(sql) = sql {
            questions.push(Question {
                sql,
                refusal: Refusal { kind, reason: reason.into(), column: column.map(Into::into), tried: false },
            });
        }
    };
    if about == About::Row {
        for loaded in publish.columns {
            let (name, of) = (loaded.column.name.as_str(), &loaded.column.of);
            if beyond_ascii.contains(&loaded.column.name) {
                let reason = format!(
                    "column {name}: a character has no place in the code page of {of}, or the text needs more bytes than it has"
                );
                ask(publish.not_in_code_page(loaded, first), ErrorKind::Data, Some(name), reason);
            }
            ask(
                publish.not_convertible(loaded, first),
                ErrorKind::Data,
                Some(name),
                format!("column {name}: cannot be converted to {of}"),
            );
        }
        for check in &table.checks {
            let mentioned: Vec<_> = publish
                .columns
                .iter()
                .filter(|loaded| check.mentions(&loaded.column.name))
                .map(|loaded| loaded.column.name.as_str())
                .collect();
            let column = if let [one] = mentioned[..] { Some(one) } else { None };
            let reason = format!("conflicts with the CHECK constraint \"{}\": {}", check.name, check.definition);
            ask(publish.refused_by(check, &table.columns, first), ErrorKind::Data, column, reason);
        }
        for key in &table.foreign {
            let column = if let [(one, _)] = &key.columns[..] { Some(one.as_str()) } else { None };
            let reason = format!(
                "conflicts with the FOREIGN KEY constraint \"{}\": there is no such row in {}",
                key.name, key.parent
            );
            ask(publish.orphans(key, first), ErrorKind::Data, column, reason);
        }
    }
    for unique in table.uniques.iter().filter(|_| about == About::Others) {
        let column = if let [one] = &unique.columns[..] { Some(one.as_str()) } else { None };
        let what = if unique.primary { "PRIMARY KEY" } else { "UNIQUE KEY" };
        let reason =
            format!("violation of {what} \"{}\": its value of {} is taken", unique.name, unique.columns.join(", "));
        ask(publish.taken(unique, mode, first), ErrorKind::Conflict, column, reason);
    }
    questions
}

/// Asks them all. A question that the server does not answer (an expression that fails on a value, a parent that this login may not read) is left to
/// the publish.
pub(crate) async fn ask(pool: &Pool, questions: &[Question]) -> Result<BTreeMap<i64, Refusal>> {
    let mut refused = BTreeMap::new();
    let mut session = pool.session().await?;
    for question in questions {
        match session.ask("look over rows", &question.sql, &[]).await {
            Ok(rows) => {
                for row in rows {
                    if let Some(number) = number(&row, 0) {
                        refused.entry(number).or_insert_with(|| question.refusal.clone());
                    }
                }
            }
            Err(error) if !error.can_retry() => {
                tracing::debug!(%error, "a constraint cannot be asked about beforehand");
                session = pool.session().await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// Takes rows out of the staging table, which is read once for it.
pub(crate) async fn take_out(pool: &Pool, staging: &TableName, rows: &[i64]) -> Result<()> {
    let (mut session, doing) = (pool.session().await?, "take out rows");
    if rows.len() <= NAMED_AT_MOST {
        return session.batch(doing, &statements::take_out(staging, rows)).await.map(drop);
    }
    session.batch(doing, statements::CREATE_TAKEN_OUT).await?;
    for rows in rows.chunks(AT_ONCE) {
        session.batch(doing, &statements::list_taken_out(rows)).await?;
    }
    session.batch(doing, &statements::take_out_listed(staging)).await.map(drop)
}

/// Which rows are tried, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Values of an identity column are given.
    pub(crate) identity: bool,
    /// Rows may take values of a unique index that others leave: a part of them is tried [alone](Publish::probe).
    pub(crate) moving: bool,
}

/// The first row with which the rows before it do not go in any more, and the server's own words. `None`: all of them go in, or nobody can tell which
/// one it is.
pub(crate) async fn first_refused(
    pool: &Pool,
    publish: &Publish<'_>,
    mode: WriteMode,
    Trial { first, last, identity, moving }: Trial,
) -> Result<Option<(i64, Refusal)>> {
    let mut session = pool.session().await?;
    if identity {
        session.batch("try rows", &statements::identity_insert(publish.target, true)).await?;
    }
    let (mut found, mut alone, mut whole) = (None, moving, None);
    // Up to `low` they go in, up to `high` they do not.
    let (mut low, mut high) = (first - 1, last);
    let mut next = last;
    loop {
        let part = next != last;
        let answer = session.batch("try rows", &publish.probe(mode, (first, next), alone && part)).await?;
        let row = answer.iter().flatten().last().ok_or_else(|| Error::internal("a trial without an answer"))?;
        let code = number(row, 0).and_then(|code| u32::try_from(code).ok()).unwrap_or_default();
        if code != 0 && alone && part && number(row, 2) == Some(0) {
            // The others are held in their places, by a foreign key or a trigger.
            alone = false;
            continue;
        }
        if code == 0 {
            if next == last {
                break;
            }
            low = next;
        } else {
            let meant = meaning(code);
            if part && moving && !alone && meant == Meaning::Duplicate && whole != Some(Meaning::Duplicate) {
                // The part lacks a row that makes room: nothing is known of the rows themselves.
                found = None;
                break;
            }
            whole.get_or_insert(meant);
            let kind = match meant {
                Meaning::Duplicate => ErrorKind::Conflict,
                Meaning::Data | Meaning::Other => ErrorKind::Data,
                _ => {
                    let words = text(row, 1).unwrap_or_default();
                    return Err(Error::unavailable("cannot try rows").because(format!("{words} (error {code})")));
                }
            };
            high = next;
            let reason = told(&text(row, 1).unwrap_or_default(), code, &text(row, 3).unwrap_or_default());
            found =
                Some(Refusal { kind, column: column_of(&reason).map(Into::into), reason: reason.into(), tried: true });
        }
        if high - low <= 1 {
            break;
        }
        next = low + (high - low) / 2;
    }
    if identity {
        session.batch("try rows", &statements::identity_insert(publish.target, false)).await?;
    }
    Ok(found.map(|refusal| (high, refusal)))
}

/// The column that a message names: `Cannot insert the value NULL into column 'qty', …`, `… table "dbo.t", column 'qty'.`
fn column_of(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("column '")?;
    Some(rest.split_once('\'')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_is_found_in_the_servers_words() {
        for (message, column) in [
            (
                "Cannot insert the value NULL into column 'qty', table 'd.dbo.t'; column does not allow nulls.",
                Some("qty"),
            ),
            (
                "The INSERT statement conflicted with the CHECK constraint \"c\". The conflict occurred in database \"d\", table \"dbo.t\", column 'n'.",
                Some("n"),
            ),
            ("String or binary data would be truncated.", None),
        ] {
            assert_eq!(column_of(message).as_deref(), column, "{message}");
        }
    }
}
