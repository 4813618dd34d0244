//! What the first record says, and what it must say.

use std::{collections::HashSet, sync::Arc};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use towpath_core::{Error, Result};

use super::{CsvOptions, Encoding, Header, record::Fields};
use crate::columns::Columns;

/// How the fields of a record become columns.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) schema: SchemaRef,
    /// For each column, the field.
    pub(super) from: Vec<usize>,
}

/// In the schema's metadata, what a reader who goes on in the middle has to know besides: the encoding that a byte order
/// mark said, and the order of the fields. Missing where the options say it all.
const MIDDLE: &str = "towpath.csv";

impl Layout {
    /// Columns in the order of the fields.
    fn plain(names: &[String], columns: &Columns) -> Self {
        Self { schema: schema(names, columns), from: (0..names.len()).collect() }
    }

    /// What is known before a byte was read.
    pub(super) fn declared(options: &CsvOptions) -> Result<Option<Self>> {
        let CsvOptions { header, columns, .. } = options;
        match header {
            Header::Names => Ok(None),
            Header::None if columns.is_empty() => Ok(None),
            Header::None => {
                let names: Vec<_> = columns.iter().map(|(name, _)| name.to_owned()).collect();
                Ok(Some(Self::plain(&names, columns)))
            }
            Header::Must(names) if names.is_empty() => Err(Error::config("`header` is an empty list")),
            Header::Must(names) => {
                if let Some((other, _)) = columns.iter().find(|(column, _)| !names.iter().any(|name| name == column)) {
                    return Err(Error::config(format!("`columns` names '{other}', which `header` does not")));
                }
                let mut seen = HashSet::new();
                if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
                    return Err(Error::config(format!("`header` names '{twice}' twice")));
                }
                Ok(Some(Self::plain(names, columns)))
            }
        }
    }

    /// Without a header and without declared columns: as many as the first record has fields.
    pub(super) fn numbered(fields: usize, columns: &Columns) -> Self {
        let names: Vec<_> = (1..=fields).map(|at| format!("column_{at}")).collect();
        Self::plain(&names, columns)
    }

    /// By the header.
    pub(super) fn read(options: &CsvOptions, header: Fields) -> Result<Self> {
        let hint = "is this the right file? look at `delimiter`, `quote` and `encoding`";
        if !header.whole {
            return Err(Error::data("the header has a broken quote").hint(hint));
        }
        let mut found = vec![];
        for name in header.values {
            let name = String::from_utf8(name)
                .map_err(|_| Error::data("the header is not of its encoding").hint("say the right `encoding`"))?;
            if name.contains('\0') {
                return Err(
                    Error::data("the header holds NUL bytes").hint("it may be UTF-16: say so as `encoding: utf-16le`")
                );
            }
            found.push(name);
        }
        let shown = |names: &[String]| names.join(", ");
        if let Header::Must(names) = &options.header {
            let place = |name: &String| found.iter().position(|other| other == name);
            let from: Option<Vec<_>> = names.iter().map(place).collect();
            let Some(from) = from.filter(|_| found.len() == names.len()) else {
                return Err(
                    Error::data(format!("the header is {}, and must be {}", shown(&found), shown(names))).hint(hint)
                );
            };
            return Ok(Self { schema: schema(names, &options.columns), from });
        }
        let names = unique(found);
        if let Some((missing, _)) = options.columns.iter().find(|(column, _)| !names.iter().any(|name| name == column))
        {
            let what = format!("the header has no column '{missing}', which `columns` names; it is {}", shown(&names));
            return Err(Error::data(what).hint(hint));
        }
        Ok(Self::plain(&names, &options.columns))
    }

    /// As it is told to the world.
    pub(super) fn told(&self, declared: Encoding, found: Encoding) -> Self {
        let assumed = if declared == Encoding::Auto { Encoding::Utf8 } else { declared };
        let in_order = self.from.iter().enumerate().all(|(at, from)| at == *from);
        if assumed == found && in_order {
            return self.clone();
        }
        let mut metadata = self.schema.metadata().clone();
        let middle = serde_json::json!({ "encoding": found, "fields": self.from });
        metadata.insert(MIDDLE.to_owned(), middle.to_string());
        let schema = self.schema.as_ref().clone().with_metadata(metadata);
        Self { schema: Arc::new(schema), from: self.from.clone() }
    }

    /// What [`told`](Layout::told) told.
    pub(super) fn resume(options: &CsvOptions, told: &SchemaRef) -> Result<(Self, Encoding)> {
        #[derive(serde::Deserialize)]
        struct Middle {
            encoding: Encoding,
            fields: Vec<usize>,
        }
        let names: Vec<_> = told.fields().iter().map(|field| field.name().clone()).collect();
        let mut layout = Self::plain(&names, &options.columns);
        let mut encoding = if options.encoding == Encoding::Auto { Encoding::Utf8 } else { options.encoding };
        if let Some(middle) = told.metadata().get(MIDDLE) {
            let wrong = || Error::internal("the schema of a file cannot be read");
            let middle: Middle = serde_json::from_str(middle).map_err(|error| wrong().because(error))?;
            let mut sorted = middle.fields.clone();
            sorted.sort_unstable();
            if sorted != layout.from {
                return Err(wrong());
            }
            (layout.from, encoding) = (middle.fields, middle.encoding);
            layout = layout.told(options.encoding, encoding);
        }
        Ok((layout, encoding))
    }
}

fn schema(names: &[String], columns: &Columns) -> SchemaRef {
    let field = |name: &String| {
        let of = columns.get(name).map_or(DataType::Utf8, crate::columns::ColumnType::data_type);
        Field::new(name, of, true)
    };
    Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
}

/// Names without one get `column_N`, those that stood before a number.
fn unique(found: Vec<String>) -> Vec<String> {
    let all: HashSet<_> = found.iter().cloned().collect();
    let mut taken: HashSet<String> = HashSet::with_capacity(found.len());
    let mut names = vec![];
    for (at, name) in found.into_iter().enumerate() {
        let mut made_up = name.is_empty();
        let base = if made_up { format!("column_{}", at + 1) } else { name };
        let mut name = base.clone();
        let mut number = 1;
        // A made-up name makes way for one that stands in the header.
        while taken.contains(&name) || made_up && all.contains(&name) {
            made_up = true;
            number += 1;
            name = format!("{base}_{number}");
        }
        taken.insert(name.clone());
        names.push(name);
    }
    names
}
