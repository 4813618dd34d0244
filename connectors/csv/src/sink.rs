//! The sink: rows are encoded into a staged file beside the target, and the ledger makes them the target's at each commit.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use towpath_core::{
    Call, Checkpoint, Context, Effect, Error, Held, Known, Result, Run, Sink, SinkPlan, WriteMode, Wrote,
    sink::Guarantee,
};

use crate::{
    config::{Format, SinkOptions},
    encode::Encoder,
    ledger::{Opening, Target},
    listing::{blocking, io_error},
};

/// So many encoded bytes are written at once.
const CHUNK: usize = 1024 * 1024;

/// Writes rows to a file.
///
/// * `write` puts rows into a file beside the target; nobody sees them before the commit that they belong to.
/// * A commit is one rename of the ledger beside the target: see the README, "What is promised".
/// * The fence is in the ledger; a commit looks at it under the lock under which it writes.
pub struct CsvSink {
    options: SinkOptions,
    open: Option<Open>,
}

struct Open {
    ctx: Context,
    target: Arc<Target>,
    fence: u64,
    staging: PathBuf,
    /// Lent to the thread that writes while it does.
    file: Option<File>,
    /// Encoded, and not written yet.
    buffer: Vec<u8>,
    /// Bytes of the staged file, those in `buffer` included.
    staged: u64,
    /// How many of them are committed (a run of `replace`).
    kept: u64,
    /// Somebody else's last line wants an end before ours.
    torn: bool,
    encoder: Encoder,
    /// The file's columns, as soon as they are known.
    columns: Option<Vec<String>>,
    /// Whether the columns stand in the file, or among the staged rows.
    headed: bool,
    layout: Option<Layout>,
}

/// How rows of one schema are laid into the file's columns.
struct Layout {
    from: SchemaRef,
    to: SchemaRef,
    /// By column of the file: the column of the rows, or none.
    places: Vec<Option<usize>>,
}

impl CsvSink {
    /// From its options.
    ///
    /// # Errors
    /// Config.
    pub fn new(options: SinkOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { options, open: None })
    }

    fn call(&self, what: &str, effect: Effect) -> Call {
        Call::new(format!("{what} {}", self.options.path.display()), "file:", effect)
    }

    fn opened(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| Error::internal("the sink is not open"))
    }
}

#[async_trait]
impl Sink for CsvSink {
    async fn plan(&mut self, _: &Context, _: &Known) -> Result<SinkPlan> {
        let path = std::path::absolute(&self.options.path).unwrap_or_else(|_| self.options.path.clone());
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let looked_at = path.clone();
        let (there, folder_there) = blocking(move || Ok((fs::metadata(&looked_at).is_ok(), folder.is_dir()))).await?;
        let mut notes = vec![match (there, self.options.write) {
            (false, _) => "the file would be created".to_owned(),
            (true, WriteMode::Append) => "rows would be added behind those that are there".to_owned(),
            (true, _) => "the file would be replaced when the run is complete".to_owned(),
        }];
        if !folder_there {
            notes.push("its folder is not there; a run would fail".to_owned());
        }
        let format = if self.options.format == Format::Jsonl { "jsonl" } else { "csv" };
        Ok(SinkPlan {
            mode: self.options.write,
            guarantee: Guarantee::ExactlyOnce,
            early_publish: false,
            identity: format!("{format} {} {}", path.display(), self.options.write.name()),
            notes,
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held> {
        let owner = format!("{}/{}", ctx.pipeline(), ctx.component());
        let target = Arc::new(Target::new(&self.options.path, self.options.write, owner));
        let encoder = Encoder::new(&self.options)?;
        let options = &self.options;
        let call = self.call("open", Effect::Idempotent);
        let (opening, file, columns) = ctx
            .call(&call, || {
                let (target, run, options) = (Arc::clone(&target), Arc::clone(&run.id), options.clone());
                blocking(move || prepare(&target, &run, &options))
            })
            .await?;
        let Opening { fence, checkpoint, staging, staged, torn } = opening;
        self.open = Some(Open {
            ctx: ctx.clone(),
            target,
            fence,
            staging,
            file: Some(file),
            buffer: Vec::new(),
            staged,
            kept: staged,
            torn,
            encoder,
            headed: columns.is_some(),
            columns,
            layout: None,
        });
        Ok(Held::Here(checkpoint))
    }

    async fn schema(&mut self, schema: &SchemaRef) -> Result<Option<String>> {
        let path = self.options.path.display().to_string();
        let open = self.opened()?;
        open.lay_out(schema).map_err(|error| error.at(path))?;
        Ok(None)
    }

    async fn write(&mut self, _: u64, rows: RecordBatch) -> Result<Wrote> {
        let open = self.opened()?;
        let written = rows.num_rows() as u64;
        open.encode(&rows)?;
        if open.buffer.len() >= CHUNK {
            open.drain(false).await?;
        }
        Ok(Wrote { written, ..Wrote::default() })
    }

    async fn flush(&mut self) -> Result<Wrote> {
        self.opened()?.drain(false).await?;
        Ok(Wrote::default())
    }

    async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let call = self.call("commit", Effect::Once);
        let replaces = self.options.write == WriteMode::Replace;
        let open = self.opened()?;
        if replaces && checkpoint.last {
            // A result without rows has its columns all the same.
            open.head()?;
        }
        open.drain(true).await?;
        let (ctx, target, fence, staging, staged) =
            (open.ctx.clone(), Arc::clone(&open.target), open.fence, open.staging.clone(), open.staged);
        let attempt = || {
            let (target, staging, checkpoint) = (Arc::clone(&target), staging.clone(), checkpoint.clone());
            blocking(move || target.commit(fence, &checkpoint, &staging, staged))
        };
        ctx.call(&call, attempt).await?;
        if !replaces {
            open.empty().await?;
        } else if checkpoint.last {
            // It is the target now.
            open.file = None;
            open.kept = 0;
        } else {
            open.kept = staged;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.kept > 0 {
            // What is behind the committed part is not taken over by whoever goes on.
            return Ok(());
        }
        let staging = open.staging;
        blocking(move || match fs::remove_file(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove the staged rows", &staging, error))
            }
            _ => Ok(()),
        })
        .await
    }
}

/// Opens the target and the file for staged rows, and looks which columns there are already.
fn prepare(target: &Target, run: &str, options: &SinkOptions) -> Result<(Opening, File, Option<Vec<String>>)> {
    let opening = target.open(run)?;
    let failed = |error| io_error("make a file beside the target", &opening.staging, error);
    let mut file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&opening.staging).map_err(failed)?;
    file.set_len(opening.staged).and_then(|()| file.seek(SeekFrom::End(0)).map(drop)).map_err(failed)?;
    let columns = match (options.format, options.write) {
        (Format::Jsonl, _) => None,
        (Format::Csv, WriteMode::Append) => crate::encode::header_of(target.path(), options)?,
        (Format::Csv, _) if opening.staged > 0 => crate::encode::header_of(&opening.staging, options)?,
        (Format::Csv, _) => None,
    };
    Ok((opening, file, columns))
}

impl Open {
    fn lay_out(&mut self, schema: &SchemaRef) -> Result<()> {
        if self.encoder.is_json() {
            return Ok(());
        }
        let fields = schema.fields();
        if fields.is_empty() {
            return Err(Error::data("rows without columns cannot be written as CSV").hint("write `format: jsonl`"));
        }
        let twice = fields
            .iter()
            .enumerate()
            .find(|(at, field)| fields[..*at].iter().any(|other| other.name() == field.name()));
        if let Some((_, field)) = twice {
            return Err(Error::data(format!("two columns are called '{}'", field.name())).hint("rename one of them"));
        }
        let named = || schema.fields().iter().map(|field| field.name().clone()).collect();
        let columns: &Vec<String> = self.columns.get_or_insert_with(named);
        let new: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .filter(|name| !columns.iter().any(|column| column == name))
            .collect();
        if !new.is_empty() {
            let what = format!("the file has the columns {}, and not {}", columns.join(", "), new.join(", "));
            return Err(
                Error::conflict(what).hint("write to another file, or leave the new columns out with a `select`")
            );
        }
        let places: Vec<Option<usize>> = columns.iter().map(|column| schema.index_of(column).ok()).collect();
        let field = |(column, place): (&String, &Option<usize>)| match place {
            Some(place) => Arc::clone(&schema.fields()[*place]),
            None => Arc::new(arrow_schema::Field::new(column, arrow_schema::DataType::Utf8, true)),
        };
        let fields: Vec<_> = columns.iter().zip(&places).map(field).collect();
        self.layout = Some(Layout { from: Arc::clone(schema), to: Arc::new(Schema::new(fields)), places });
        Ok(())
    }

    /// The header, where it belongs and does not stand yet.
    fn head(&mut self) -> Result<()> {
        let Some(layout) = self.layout.as_ref().filter(|_| !self.headed) else { return Ok(()) };
        let before = self.buffer.len();
        self.encoder.header(&layout.to, &mut self.buffer)?;
        self.staged += (self.buffer.len() - before) as u64;
        self.headed = true;
        Ok(())
    }

    fn encode(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let schema = rows.schema();
        if !self.encoder.is_json() && self.layout.as_ref().is_none_or(|layout| layout.from != schema) {
            self.lay_out(&schema)?;
        }
        if std::mem::take(&mut self.torn) {
            self.buffer.push(b'\n');
            self.staged += 1;
        }
        self.head()?;
        let before = self.buffer.len();
        match &self.layout {
            Some(layout) => {
                let column = |place: &Option<usize>| match place {
                    Some(place) => Arc::clone(rows.column(*place)),
                    None => new_null_array(&arrow_schema::DataType::Utf8, rows.num_rows()),
                };
                let columns = layout.places.iter().map(column).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                let rows = RecordBatch::try_new_with_options(Arc::clone(&layout.to), columns, &options)
                    .map_err(|error| Error::internal("cannot lay rows into the file's columns").because(error))?;
                self.encoder.rows(&rows, &mut self.buffer)?;
            }
            None => self.encoder.rows(rows, &mut self.buffer)?,
        }
        self.staged += (self.buffer.len() - before) as u64;
        Ok(())
    }

    /// Writes what is encoded, and makes it durable if asked to.
    async fn drain(&mut self, sync: bool) -> Result<()> {
        let Some(mut file) = self.file.take() else {
            return Err(Error::internal("the staged rows have been handed over"));
        };
        let bytes = std::mem::take(&mut self.buffer);
        let staging = self.staging.clone();
        let (file, mut bytes) = blocking(move || {
            let failed = |error| io_error("write beside the target", &staging, error);
            file.write_all(&bytes).map_err(failed)?;
            if sync {
                file.sync_all().map_err(failed)?;
            }
            Ok((file, bytes))
        })
        .await?;
        bytes.clear();
        (self.file, self.buffer) = (Some(file), bytes);
        Ok(())
    }

    /// The staged rows stand in the target now.
    async fn empty(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let staging = self.staging.clone();
        let emptied = blocking(move || {
            let emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
            emptied.map_err(|error| io_error("empty the staged rows", &staging, error))?;
            Ok(file)
        });
        self.file = Some(emptied.await?);
        self.staged = 0;
        Ok(())
    }
}
