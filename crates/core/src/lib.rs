//! The contract between Towpath's engine and its connectors, and nothing else.
//!
//! Read in this order, which is the way of a batch: [`source`] gives pieces, each with a [`checkpoint::Mark`];
//! [`batch`] is what flows; [`transform`] turns batches into batches; [`sink`] makes them durable together with a
//! [`checkpoint::Checkpoint`]. [`context`] is the one door to the world outside, [`connector`] the registration,
//! [`pipeline`] what a config file becomes. This crate does no I/O and knows no connector.
//!
//! # The promises, in one place
//!
//! * **Nothing lost, nothing doubled.** An *epoch* is everything up to a set of marks. A sink's
//!   [`commit`](sink::Sink::commit) makes the rows of an epoch and its checkpoint durable at once; the next epoch
//!   begins to commit only when every sink has this one. After a crash, [`open`](sink::Sink::open) tells what is
//!   there, and that decides, never what a dead process believed.
//! * **Rows fail, runs don't.** A bad row is a [`Reject`], a return value, never an error.
//! * **Everything outside goes through [`Context::call`](context::Context::call).** Connectors classify errors;
//!   they never sleep, retry or log about failures.
//! * **Whoever opens closes.** `close` is called exactly once on everything whose `open` was called, also when
//!   `open` failed, also on cancel.

pub mod batch;
pub mod budget;
pub mod change;
pub mod checkpoint;
pub mod connector;
pub mod context;
pub mod error;
pub mod key;
pub mod pipeline;
pub mod reject;
pub mod secret;
pub mod sink;
pub mod source;
pub mod transform;
pub mod units;

pub use batch::{Batch, Delivery};
pub use budget::{Budget, BudgetState, Burst, Day, Price, Resets, Told};
pub use change::{Action, Change, FieldChange, Verdict};
pub use checkpoint::{Checkpoint, Mark, Partition, Position, Resume, Run, Token};
pub use connector::Connector;
pub use context::{Call, Context, Effect, Lease};
pub use error::{Error, ErrorKind, Result, Retry};
pub use key::{KeySpec, RowHash};
pub use pipeline::{ComponentSpec, Name, PipelineSpec};
pub use reject::{Original, Reject, RowPosition};
pub use secret::Secret;
pub use sink::{Complete, Held, Sink, SinkPlan, WriteMode, Wrote};
pub use source::{Known, Next, Piece, Settled, Source, SourcePlan, Work};
pub use transform::{Output, Transform, TransformPlan};
pub use units::{Period, Share, Size};

#[doc(hidden)]
pub use inventory;
