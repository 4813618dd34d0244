//! Plan, batches, workers, the stages behind.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use towpath_core::{ErrorKind, Known, Name};

use super::{Kept, World, without};
use crate::{
    conformance::{Case, Check, Dice, During as _, Stop, broken, case, ensure, polls, unless},
    rows,
};

pub(super) fn cases<'a>() -> Vec<Case<World<'a>>> {
    vec![
        case!(plan_is_the_same_each_time, "What comes out, given what comes in."),
        case!(plan_tells_the_schema, "The schema of what comes out."),
        case!(a_missing_column_is_a_config_error, "A column that is missing in a known schema is a Config error here."),
        case!(plan_without_a_schema, "What comes out, given what comes in."),
        case!(what_is_expected_comes_out, "What comes out, given what comes in."),
        case!(a_batch_may_be_empty, "The batch may be empty."),
        case!(rejects_are_of_the_batch_in_hand, "In apply, Original::Row indexes the batch in hand."),
        case!(where_batches_end_makes_no_difference, "Batch in, batches out."),
        case!(only_who_holds_gives_rows_at_the_end, "Holds rows back until finish"),
        case!(only_who_remembers_needs_one_worker, "Remembers rows between batches (dedupe): one worker only"),
        case!(the_stages_behind_are_heard, "Waits while the stages behind are busy, so memory stays bounded."),
        case!(
            a_dropped_apply_does_no_harm,
            "May be dropped at any await on cancel; then neither its output nor its rejects are used."
        ),
        case!(odd_schemas_do_no_harm, "A column that is missing in a known schema is a Config error here."),
    ]
}

/// The inputs in pieces of random sizes; each input's rows stay in order.
fn cut(world: &World<'_>, dice: &mut Dice, most: usize) -> Vec<(Name, RecordBatch)> {
    let mut out = vec![];
    for (name, batch) in &world.test.inputs {
        let mut at = 0;
        while at < batch.num_rows() {
            let length = (1 + dice.roll(most as u64) as usize).min(batch.num_rows() - at);
            out.push((name.clone(), batch.slice(at, length)));
            at += length;
        }
    }
    out
}

async fn plan_is_the_same_each_time(world: &World<'_>) -> Check {
    let transform = world.make();
    let plan = || transform.plan(&world.known()).during("plan");
    let (first, again, other) = (plan()?, plan()?, world.plan()?);
    let shown = [&first, &again, &other].map(|plan| format!("{plan:?}"));
    ensure(shown[0] == shown[1] && shown[0] == shown[2], || format!("three plans differ: {shown:?}"))
}

async fn plan_tells_the_schema(world: &World<'_>) -> Check {
    let planned = world.plan()?.schema;
    let came = world.run(1, &world.test.inputs).await?;
    let mut schemas = came.rows.iter().chain(&came.late).filter(|batch| batch.num_rows() > 0).map(RecordBatch::schema);
    let Some(first) = schemas.next() else { return Ok(()) };
    if let Some(other) = schemas.find(|other| *other != first) {
        return broken(format!("one batch has {first:?}, another {other:?}"));
    }
    match planned {
        Known::Now(planned) => {
            ensure(planned.fields() == first.fields(), || format!("planned {planned:?}, came {first:?}"))
        }
        _ => Ok(()),
    }
}

async fn a_missing_column_is_a_config_error(world: &World<'_>) -> Check {
    if world.test.needs.is_empty() {
        return Err(Stop::Skip("it needs no column of a name".to_owned()));
    }
    for (input, column) in &world.test.needs {
        let mut known = world.known();
        for (name, known) in &mut known {
            if let (true, Known::Now(schema)) = (name == input, &known) {
                *known = Known::Now(without(schema, column));
            }
        }
        match world.make().plan(&known) {
            Ok(_) => return broken(format!("the column '{column}' is missing, and the plan is fine")),
            Err(error) => {
                let kind = error.kind();
                ensure(kind == ErrorKind::Config, || format!("an error of kind {}: {error}", kind.name()))?;
                ensure(error.to_string().contains(column.as_str()), || {
                    format!("it does not name '{column}': {error}")
                })?;
            }
        }
    }
    Ok(())
}

async fn plan_without_a_schema(world: &World<'_>) -> Check {
    let known: Vec<_> = world.known().into_iter().map(|(name, _)| (name, Known::No)).collect();
    world.make().plan(&known).during("plan of inputs whose schema is not known")?;
    // What is not planned with a schema runs all the same.
    let mut transform = world.make();
    transform.plan(&known).during("plan")?;
    for (name, batch) in &world.test.inputs {
        let mut out = Kept::default();
        transform.apply(&world.context(), name, batch.clone(), &mut out).await.during("apply")?;
    }
    Ok(())
}

async fn what_is_expected_comes_out(world: &World<'_>) -> Check {
    let Some(expect) = &world.test.expect else { return Err(Stop::Skip("nothing is said of it".to_owned())) };
    let (plan, came) = (world.plan()?, world.run(1, &world.test.inputs).await?);
    let (expect, found) = (rows::lines(expect), came.lines());
    let ordered = world.test.quirks.unordered.is_none() && !plan.holds;
    let difference =
        if ordered { rows::difference_in_order(&expect, &found) } else { rows::difference(&expect, &found) };
    difference.map_or(Ok(()), broken)
}

async fn a_batch_may_be_empty(world: &World<'_>) -> Check {
    let plan = world.plan()?;
    let mut with_empty = vec![];
    for (name, batch) in &world.test.inputs {
        let empty = (name.clone(), batch.slice(0, 0));
        with_empty.extend([empty.clone(), (name.clone(), batch.clone()), empty]);
    }
    let (plain, found) = (world.run(1, &world.test.inputs).await?, world.run(1, &with_empty).await?);
    world.same(&plain, &found, plan.holds, "with empty batches between")?;
    let none: Vec<_> = world.test.inputs.iter().map(|(name, batch)| (name.clone(), batch.slice(0, 0))).collect();
    let came = world.run(1, &none).await?;
    ensure(came.refused.is_empty(), || "rows of an empty batch are refused".to_owned())?;
    let applied: usize = came.rows.iter().map(RecordBatch::num_rows).sum();
    ensure(applied == 0, || format!("{applied} rows come of empty batches"))
}

async fn rejects_are_of_the_batch_in_hand(world: &World<'_>) -> Check {
    // Which of the rows are refused must not depend on where their batch begins.
    let plan = world.plan()?;
    let whole = world.run(1, &world.test.inputs).await?;
    let mut halves = vec![];
    for (name, batch) in &world.test.inputs {
        let middle = batch.num_rows() / 2;
        halves.push((name.clone(), batch.slice(0, middle)));
        halves.push((name.clone(), batch.slice(middle, batch.num_rows() - middle)));
    }
    let found = world.run(1, &halves).await?;
    let difference = rows::difference(&whole.refused, &found.refused);
    if let Some(difference) = difference {
        return broken(format!("of the rejects, in halves: {difference}"));
    }
    if plan.holds || plan.stateful {
        return Ok(());
    }
    // A row is refused or comes out, never both: what is left of the input without the refused is the same output.
    let given: usize = world.test.inputs.iter().map(|(_, batch)| batch.num_rows()).sum();
    ensure(whole.refused.len() <= given, || format!("{} rows of {given} are refused", whole.refused.len()))
}

async fn where_batches_end_makes_no_difference(world: &World<'_>) -> Check {
    unless(world.test.quirks.sees_batches)?;
    let plan = world.plan()?;
    let whole = world.run(1, &world.test.inputs).await?;
    for (seed, most) in [(1, 1), (2, 3), (3, 7), (4, 50)] {
        let found = world.run(1, &cut(world, &mut Dice::new(seed), most)).await?;
        world.same(&whole, &found, plan.holds, &format!("in batches of up to {most} rows"))?;
    }
    Ok(())
}

async fn only_who_holds_gives_rows_at_the_end(world: &World<'_>) -> Check {
    let (plan, came) = (world.plan()?, world.run(1, &world.test.inputs).await?);
    let late: usize = came.late.iter().map(RecordBatch::num_rows).sum();
    ensure(plan.holds || late == 0, || format!("its plan says that it holds nothing, and finish gives {late} rows"))
}

async fn only_who_remembers_needs_one_worker(world: &World<'_>) -> Check {
    let plan = world.plan()?;
    if plan.holds || plan.stateful {
        return Err(Stop::Skip("its plan says that it runs in one worker".to_owned()));
    }
    unless(world.test.quirks.sees_batches)?;
    // A second time round, so that what was remembered would tell.
    let mut batches = cut(world, &mut Dice::new(9), 3);
    batches.extend(batches.clone());
    let (one, three) = (world.run(1, &batches).await?, world.run(3, &batches).await?);
    world.same(&one, &three, false, "by three workers")?;
    let all: Vec<_> = world.test.inputs.iter().chain(&world.test.inputs).cloned().collect();
    let twice = world.run(1, &all).await?;
    let mut expect = world.run(1, &world.test.inputs).await?;
    let again = world.run(1, &world.test.inputs).await?;
    expect.rows.extend(again.rows);
    expect.refused.extend(again.refused);
    world.same(&expect, &twice, false, "the same rows a second time")
}

async fn the_stages_behind_are_heard(world: &World<'_>) -> Check {
    // An error of the stage behind is the answer of apply, or of finish.
    let ctx = world.context();
    let (mut transform, mut came) = (world.make(), 0);
    transform.plan(&world.known()).during("plan")?;
    let mut heard = false;
    for (name, batch) in &world.test.inputs {
        let mut out = Kept { fails_at: Some(0), ..Kept::default() };
        match transform.apply(&ctx, name, batch.clone(), &mut out).await {
            Ok(()) => came += out.batches.len(),
            Err(error) => {
                heard = true;
                ensure(error.kind() == ErrorKind::Cancelled, || format!("the error behind became another: {error}"))?;
                break;
            }
        }
    }
    if !heard {
        let mut out = Kept { fails_at: Some(0), ..Kept::default() };
        heard = transform.finish(&ctx, &mut out).await.is_err();
        came += out.batches.len();
    }
    let gives = !world.run(1, &world.test.inputs).await?.lines().is_empty();
    ensure(heard || !gives, || format!("the stage behind failed, and nobody heard of it ({came} batches came)"))?;
    // While they are busy it waits: with a stage that never takes anything, a call makes one batch at the most.
    let plain = world.run(1, &world.test.inputs).await?;
    let mut slow = world.make();
    slow.plan(&world.known()).during("plan")?;
    let mut lines = vec![];
    for (name, batch) in &world.test.inputs {
        let mut out = Kept { waits: true, ..Kept::default() };
        slow.apply(&ctx, name, batch.clone(), &mut out).await.during("apply")?;
        lines.extend(rows::lines_of(&out.batches));
    }
    let mut out = Kept { waits: true, ..Kept::default() };
    slow.finish(&ctx, &mut out).await.during("finish")?;
    lines.extend(rows::lines_of(&out.batches));
    let difference = rows::difference(&plain.lines(), &lines);
    difference.map_or(Ok(()), |difference| broken(format!("with a busy stage behind: {difference}")))
}

async fn a_dropped_apply_does_no_harm(world: &World<'_>) -> Check {
    let ctx = world.context();
    for times in 1..6 {
        let mut transform = world.make();
        transform.plan(&world.known()).during("plan")?;
        for (name, batch) in &world.test.inputs {
            let mut out = Kept { waits: true, ..Kept::default() };
            let done = polls(times, transform.apply(&ctx, name, batch.clone(), &mut out)).await;
            if done.is_none() {
                break;
            }
        }
    }
    // Another instance is not touched by it.
    let (plan, whole) = (world.plan()?, world.run(1, &world.test.inputs).await?);
    let again = world.run(1, &world.test.inputs).await?;
    world.same(&whole, &again, plan.holds, "behind a call that was dropped")
}

async fn odd_schemas_do_no_harm(world: &World<'_>) -> Check {
    let field = |name: &str, kind: DataType| Arc::new(Field::new(name, kind, true));
    let list = DataType::List(field("item", DataType::Utf8));
    let schemas = [
        vec![],
        vec![field("", DataType::Utf8)],
        vec![field("a", DataType::Utf8), field("a", DataType::Int64)],
        vec![field("l", list), field("n", DataType::Null)],
        (0..2000).map(|number| field(&format!("c{number}"), DataType::Utf8)).collect(),
    ];
    for fields in schemas {
        // Besides its own columns, and instead of them.
        for beside in [false, true] {
            let mut batches = vec![];
            for (name, own) in &world.test.inputs {
                let mut all = fields.clone();
                if beside {
                    all.extend(own.schema().fields().iter().cloned());
                }
                let schema = Arc::new(Schema::new(all));
                let columns = schema.fields().iter().map(|field| arrow_array::new_null_array(field.data_type(), 3));
                let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(3));
                let columns = columns.collect();
                if let Ok(batch) = RecordBatch::try_new_with_options(schema, columns, &options) {
                    batches.push((name.clone(), batch));
                }
            }
            let known: Vec<_> =
                batches.iter().map(|(name, batch)| (name.clone(), Known::Now(batch.schema()))).collect();
            let mut transform = world.make();
            // Refused by the plan, or run: a panic is caught around the case, an internal error is not an answer.
            if let Err(error) = transform.plan(&known) {
                ensure(error.kind() != ErrorKind::Internal, || format!("an internal error: {error}"))?;
                continue;
            }
            for (name, batch) in batches {
                let mut out = Kept::default();
                if let Err(error) = transform.apply(&world.context(), &name, batch, &mut out).await {
                    ensure(error.kind() != ErrorKind::Internal, || format!("an internal error: {error}"))?;
                    break;
                }
            }
        }
    }
    Ok(())
}
