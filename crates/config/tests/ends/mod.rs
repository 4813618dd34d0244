//! A component that is built and never run.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use towpath_core::{
    Checkpoint, Context, Error, Held, Known, Name, Next, Output, Result, Resume, Run, Sink, SinkPlan, Source,
    SourcePlan, Transform, TransformPlan, Wrote,
};

pub struct Nothing;

fn never<T>() -> Result<T> {
    Err(Error::unsupported("this is only built"))
}

#[async_trait]
impl Source for Nothing {
    async fn plan(&mut self, _: &Context, _: &Run, _: &Resume) -> Result<SourcePlan> {
        never()
    }
    async fn open(&mut self, _: &Context, _: &Run, _: &Resume) -> Result<()> {
        never()
    }
    async fn next(&mut self) -> Result<Next> {
        never()
    }
    async fn close(&mut self) -> Result<()> {
        never()
    }
}

#[async_trait]
impl Transform for Nothing {
    fn plan(&self, _: &[(Name, Known)]) -> Result<TransformPlan> {
        never()
    }
    async fn apply(&mut self, _: &Context, _: &Name, _: RecordBatch, _: &mut dyn Output) -> Result<()> {
        never()
    }
}

#[async_trait]
impl Sink for Nothing {
    async fn plan(&mut self, _: &Context, _: &Known) -> Result<SinkPlan> {
        never()
    }
    async fn open(&mut self, _: &Context, _: &Run) -> Result<Held> {
        never()
    }
    async fn schema(&mut self, _: &SchemaRef) -> Result<Option<String>> {
        never()
    }
    async fn write(&mut self, _: u64, _: RecordBatch) -> Result<Wrote> {
        never()
    }
    async fn flush(&mut self) -> Result<Wrote> {
        never()
    }
    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        never()
    }
    async fn close(&mut self) -> Result<()> {
        never()
    }
}
