//! Stands in for the formats crate until that is there.
#![allow(missing_docs, dead_code, clippy::unwrap_used, reason = "it goes as soon as the decoder is there")]
pub mod columns {
    #[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
    pub struct Columns(Vec<String>);
    impl Columns {
        pub fn to_yaml(&self) -> String {
            String::new()
        }
    }
    pub fn propose(_: &[arrow_array::RecordBatch]) -> Columns {
        Columns::default()
    }
}
pub mod csv {
    use arrow_array::*;
    use arrow_schema::*;
    use std::sync::Arc;
    use towpath_core::{Reject, Result, RowPosition};
    #[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default)]
    pub struct CsvOptions {
        pub delimiter: Option<String>,
        pub columns: super::columns::Columns,
    }
    pub struct Decoded {
        pub rows: RecordBatch,
        pub rejects: Vec<Reject>,
        pub first: RowPosition,
        pub end: RowPosition,
    }
    pub struct CsvDecoder {
        buf: Vec<u8>,
        schema: Option<SchemaRef>,
        at: RowPosition,
    }
    impl CsvDecoder {
        pub fn new(_: &CsvOptions) -> Result<Self> {
            Ok(Self { buf: vec![], schema: None, at: RowPosition { record: 1, line: 1, byte: 0 } })
        }
        pub fn resume(_: &CsvOptions, schema: &SchemaRef, at: RowPosition) -> Result<Self> {
            Ok(Self { buf: vec![], schema: Some(schema.clone()), at })
        }
        pub fn push(&mut self, chunk: bytes::Bytes) {
            self.buf.extend_from_slice(&chunk)
        }
        fn lines(&mut self, last: bool) -> Result<Option<Decoded>> {
            let mut rows: Vec<Vec<String>> = vec![];
            let (mut used, first) = (0, self.at);
            let mut first = first;
            loop {
                let rest = &self.buf[used..];
                let Some(end) = rest.iter().position(|b| *b == b'\n').map(|e| e + 1).or(if last && !rest.is_empty() {
                    Some(rest.len())
                } else {
                    None
                }) else {
                    break;
                };
                let line = String::from_utf8_lossy(&rest[..end]).trim_end().to_owned();
                used += end;
                self.at.byte += end as u64;
                self.at.line += 1;
                let fields: Vec<String> = line.split(',').map(str::to_owned).collect();
                match &self.schema {
                    None => {
                        self.schema = Some(Arc::new(Schema::new(
                            fields.iter().map(|f| Field::new(f, DataType::Utf8, true)).collect::<Vec<_>>(),
                        )));
                        first = self.at;
                    }
                    Some(_) => {
                        self.at.record += 1;
                        rows.push(fields);
                    }
                }
                if rows.len() == 8192 {
                    break;
                }
            }
            self.buf.drain(..used);
            let Some(schema) = &self.schema else { return Ok(None) };
            if rows.is_empty() {
                return Ok(None);
            }
            let cols = (0..schema.fields().len())
                .map(|c| Arc::new(rows.iter().map(|r| Some(r[c].clone())).collect::<StringArray>()) as ArrayRef)
                .collect();
            Ok(Some(Decoded {
                rows: RecordBatch::try_new(schema.clone(), cols).unwrap(),
                rejects: vec![],
                first,
                end: self.at,
            }))
        }
        pub fn next(&mut self) -> Result<Option<Decoded>> {
            if self.buf.iter().filter(|b| **b == b'\n').count() >= 8192 || self.schema.is_none() {
                return self.lines(false);
            }
            Ok(None)
        }
        pub fn finish(&mut self) -> Result<Option<Decoded>> {
            self.lines(true)
        }
        pub fn schema(&self) -> Option<SchemaRef> {
            self.schema.clone()
        }
    }
    pub struct CsvEncoder;
    impl CsvEncoder {
        pub fn new(_: &CsvOptions) -> Result<Self> {
            Ok(Self)
        }
        pub fn header(&self, s: &SchemaRef, out: &mut Vec<u8>) -> Result<()> {
            out.extend(s.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(",").bytes());
            out.push(b'\n');
            Ok(())
        }
        pub fn encode(&self, r: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
            for i in 0..r.num_rows() {
                let row: Vec<String> = r
                    .columns()
                    .iter()
                    .map(|c| {
                        if c.is_null(i) {
                            String::new()
                        } else {
                            let v = arrow_cast::display::array_value_to_string(c, i).unwrap();
                            if v.is_empty() || v.contains(['"', ',', '\n', '\r']) {
                                format!("\"{}\"", v.replace('"', "\"\""))
                            } else {
                                v
                            }
                        }
                    })
                    .collect();
                out.extend(row.join(",").bytes());
                out.push(b'\n');
            }
            Ok(())
        }
    }
}
pub mod json {
    use arrow_array::Array;
    pub struct JsonLines;
    impl JsonLines {
        pub fn new() -> Self {
            Self
        }
        pub fn encode(&self, r: &arrow_array::RecordBatch, out: &mut Vec<u8>) -> towpath_core::Result<()> {
            for i in 0..r.num_rows() {
                let mut m = serde_json::Map::new();
                for (f, c) in r.schema().fields().iter().zip(r.columns()) {
                    m.insert(
                        f.name().clone(),
                        if c.is_null(i) {
                            serde_json::Value::Null
                        } else {
                            arrow_cast::display::array_value_to_string(c, i).unwrap().into()
                        },
                    );
                }
                out.extend(serde_json::to_vec(&m).unwrap());
                out.push(b'\n');
            }
            Ok(())
        }
    }
}
