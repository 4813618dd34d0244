//! One dead letter, as it stands in its line.

use std::{borrow::Cow, fmt, sync::Arc};

use arrow_array::{Array as _, RecordBatch, make_array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_json::{LineDelimitedWriter, WriterBuilder};
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use towpath_core::{ErrorKind, Name, Partition, RowPosition};

/// Who refused a row: its entries count once this one has committed their epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// A source or a transform, before the ways to the sinks part.
    Shared,
    /// A sink, or something that only this sink is behind.
    Sink(Name),
}

/// Where a row stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Where {
    /// In its file or answer.
    Record(RowPosition),
    /// Where nothing better is known: which piece of its source, and which row of what the component was given of it, both from 0.
    Piece {
        /// The piece's number; `None` for a row that came out of many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        piece: Option<u64>,
        /// The row; `None` where only the row itself is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        row: Option<u64>,
    },
}

/// The row itself.
#[derive(Clone, Debug)]
pub enum Row {
    /// Byte for byte as it came. In the file: `raw` where it is UTF-8, else `raw_base64`.
    Bytes(Bytes),
    /// As columns: a JSON object, kept as text so that no number loses digits. In the file: `row`.
    Json(Box<RawValue>),
}

/// For people: on one line, as it came.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(String::from_utf8_lossy(bytes).trim_end()),
            Self::Json(json) => f.write_str(json.get()),
        }
    }
}

impl Row {
    /// One row of a batch. Nulls are written out: an absent key would be another row.
    pub fn of(batch: &RecordBatch, row: usize) -> Self {
        let one = plain_times(&batch.slice(row, 1));
        let written = (|| {
            let mut writer: LineDelimitedWriter<_> =
                WriterBuilder::new().with_explicit_nulls(true).build(Vec::<u8>::new());
            writer.write(&one)?;
            writer.finish()?;
            Ok::<_, arrow_schema::ArrowError>(writer.into_inner())
        })();
        let text = written.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.and_then(|text| RawValue::from_string(text.trim_end().to_owned()).ok()) {
            Some(columns) => Self::Json(columns),
            None => Self::as_text(&one),
        }
    }

    /// For types that have no JSON: every value as its text.
    fn as_text(one: &RecordBatch) -> Self {
        let mut columns = serde_json::Map::new();
        for (field, column) in one.schema_ref().fields().iter().zip(one.columns()) {
            let text = ArrayFormatter::try_new(column, &FormatOptions::default())
                .ok()
                .and_then(|formatter| formatter.value(0).try_to_string().ok());
            let value = if column.is_null(0) { None } else { text };
            columns.insert(field.name().clone(), value.into());
        }
        match serde_json::value::to_raw_value(&columns) {
            Ok(columns) => Self::Json(columns),
            Err(_) => Self::Bytes(Bytes::new()),
        }
    }
}

/// Moments by their offset from UTC, which have a text without a table of time zones.
fn plain_times(rows: &RecordBatch) -> RecordBatch {
    match plain_schema(&rows.schema()) {
        Some(schema) => relabelled(rows, &schema).unwrap_or_else(|| rows.clone()),
        None => rows.clone(),
    }
}

/// A schema whose moments are in UTC, written as an offset; `None` if it is that already.
pub(crate) fn plain_schema(schema: &SchemaRef) -> Option<SchemaRef> {
    let plain = |field: &FieldRef| match field.data_type() {
        DataType::Timestamp(unit, Some(zone)) if &**zone != "+00:00" => {
            let moment = DataType::Timestamp(*unit, Some("+00:00".into()));
            Some(Arc::new(field.as_ref().clone().with_data_type(moment)))
        }
        _ => None,
    };
    if !schema.fields().iter().any(|field| plain(field).is_some()) {
        return None;
    }
    let fields: Vec<FieldRef> =
        schema.fields().iter().map(|field| plain(field).unwrap_or_else(|| Arc::clone(field))).collect();
    Some(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

/// The same rows under another schema, of which only the time zones differ.
pub(crate) fn relabelled(rows: &RecordBatch, schema: &SchemaRef) -> Option<RecordBatch> {
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            return Some(Arc::clone(column));
        }
        // The instants are the same; only what they are called changes.
        let data = column.to_data().into_builder().data_type(field.data_type().clone()).build().ok()?;
        Some(make_array(data))
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Option<Vec<_>>>()?).ok()
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Json(a), Self::Json(b)) => a.get() == b.get(),
            _ => false,
        }
    }
}

/// A refused row with everything that is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The epoch whose commit covers the row.
    pub epoch: u64,
    /// Of a row that was sent again and refused again: the epoch of its sink, in the pipeline itself, behind which that was.
    pub as_of: Option<u64>,
    /// Who refused it.
    pub domain: Domain,
    /// The run's id.
    pub run: Arc<str>,
    /// The component that refused it.
    pub component: Name,
    /// The source it came from, where it is one.
    pub source: Option<Name>,
    /// The partition it came from, where there is one.
    pub partition: Option<Partition>,
    /// Where it stood.
    pub position: Where,
    /// What it failed with.
    pub kind: ErrorKind,
    /// What is wrong with it.
    pub reason: String,
    /// The column at fault, where there is one.
    pub column: Option<String>,
    /// The row.
    pub row: Row,
}

/// A line of the file. The tag comes first, so that opening need not parse the row.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    as_of: Option<u64>,
    domain: Cow<'a, Domain>,
    run: Cow<'a, str>,
    component: Cow<'a, Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, Name>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<Cow<'a, Partition>>,
    position: Where,
    kind: ErrorKind,
    reason: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    row: Option<Cow<'a, RawValue>>,
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (raw, raw_base64, row) = match &self.row {
            Row::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => (Some(text.into()), None, None),
                Err(_) => (None, Some(BASE64_STANDARD.encode(bytes)), None),
            },
            Row::Json(columns) => (None, None, Some(Cow::Borrowed(&**columns))),
        };
        Line {
            epoch: self.epoch,
            as_of: self.as_of,
            domain: Cow::Borrowed(&self.domain),
            run: Cow::Borrowed(&self.run),
            component: Cow::Borrowed(&self.component),
            source: self.source.as_ref().map(Cow::Borrowed),
            partition: self.partition.as_ref().map(Cow::Borrowed),
            position: self.position,
            kind: self.kind,
            reason: Cow::Borrowed(&self.reason),
            column: self.column.as_deref().map(Cow::Borrowed),
            raw,
            raw_base64,
            row,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = Line::deserialize(deserializer)?;
        let row = match (line.raw, line.raw_base64, line.row) {
            (Some(raw), None, None) => Row::Bytes(raw.into_owned().into()),
            (None, Some(base64), None) => Row::Bytes(BASE64_STANDARD.decode(base64).map_err(D::Error::custom)?.into()),
            (None, None, Some(row)) => Row::Json(row.into_owned()),
            _ => return Err(D::Error::custom("a dead letter has one of raw, raw_base64 and row")),
        };
        Ok(Self {
            epoch: line.epoch,
            as_of: line.as_of,
            domain: line.domain.into_owned(),
            run: line.run.into(),
            component: line.component.into_owned(),
            source: line.source.map(Cow::into_owned),
            partition: line.partition.map(Cow::into_owned),
            position: line.position,
            kind: line.kind,
            reason: line.reason.into_owned(),
            column: line.column.map(Cow::into_owned),
            row,
        })
    }
}

/// What opening needs to know of an entry.
#[derive(Deserialize)]
pub(super) struct Tag<'a> {
    pub epoch: u64,
    pub domain: Domain,
    #[serde(borrow)]
    pub run: Cow<'a, str>,
}
