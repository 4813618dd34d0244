//! Plan, checkpoint, refused rows, schemas.

use std::{collections::BTreeSet, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, NullArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow_schema::{DataType, Field, Fields, Schema};
use towpath_core::{ErrorKind, Held, Known, Original, WriteMode, sink::Guarantee};

use super::{Open, Setup, World, counted, sum};
use crate::{
    conformance::{Case, Check, During as _, broken, case, door, ensure, run_named, shows, unless},
    memory::Key,
    rows,
};

pub(super) fn cases<'a>() -> Vec<Case<World<'a>>> {
    vec![
        case!(plan_changes_nothing, "Only Effect::Cheap calls; nothing is changed."),
        case!(plan_is_true, "What a run would do."),
        case!(secrets_do_not_show, "What makes its checkpoint meaningful, in a short text without secrets"),
        case!(at_first_there_is_no_checkpoint, "Raises the fence and reads the checkpoint in one transaction"),
        case!(
            a_checkpoint_comes_back_as_it_was,
            "Makes the epoch's rows and the checkpoint durable in one transaction"
        ),
        case!(
            a_checkpoint_is_of_its_pipeline_and_component,
            "The checkpoint is of ctx.pipeline() and ctx.component()."
        ),
        case!(an_epoch_without_rows_stores_its_checkpoint, "A commit without rows still stores the checkpoint."),
        case!(a_target_made_anew_has_no_checkpoint, "A target that was made anew since has none, and says so."),
        case!(
            keys_are_named,
            "Returns what the keys are computed with (version and columns of a row hash, the key columns), if there are keys"
        ),
        case!(columns_go_by_name, "before the first write and at each change"),
        case!(a_new_column_is_stored_or_refused, "before the first write and at each change"),
        case!(a_bad_row_costs_one_row, "Bad rows are in rejected"),
        case!(a_batch_of_bad_rows_costs_only_itself, "After it there are no rejects"),
        case!(nothing_but_empty_batches, "An epoch without rows is committed all the same."),
        case!(large_batches_and_values_arrive_whole, "Takes rows."),
        case!(texts_arrive_as_they_are, "Takes rows."),
        case!(odd_schemas_do_no_harm, "Creates or checks the target."),
        case!(closing_at_any_time, "Called exactly once if open was called, whatever came of it."),
    ]
}

async fn plan_changes_nothing(world: &World<'_>) -> Check {
    let before = world.target.rows().await.map(|batches| rows::lines_of(&batches));
    let (ctx, calls) = door::context("target");
    let schema = Known::Now(rows::schema());
    let mut identities = BTreeSet::new();
    for known in [&schema, &schema, &Known::No] {
        let plan = world.sink().plan(&ctx.for_plan(), known).await.during("plan")?;
        identities.insert(plan.identity);
    }
    ensure(identities.len() == 1, || format!("three plans have {} identities", identities.len()))?;
    let costly = calls.not_cheap();
    ensure(costly.is_empty(), || format!("a plan called {}", costly.join(", ")))?;
    let after = world.target.rows().await.map(|batches| rows::lines_of(&batches));
    ensure(before == after, || format!("before the plan: {before:?}, behind it: {after:?}"))?;
    // With something in it, and planned by the sink that is then opened.
    world.run("r1", 1, &[rows::numbered(1..4)]).await?;
    let mut sink = world.sink();
    sink.plan(&ctx.for_plan(), &schema).await.during("plan of a target with rows")?;
    world.holds(&[rows::numbered(1..4)], "behind a plan").await?;
    sink.open(&ctx, &run_named("r2")).await.during("open behind plan")?;
    sink.close().await.during("close")
}

async fn plan_is_true(world: &World<'_>) -> Check {
    let (mode, mut sink, ctx) = (world.mode(), world.sink(), world.context());
    let plan = sink.plan(&ctx.for_plan(), &Known::Now(rows::schema())).await.during("plan")?;
    ensure(plan.mode == mode, || format!("the plan says {:?}", plan.mode))?;
    ensure(mode != WriteMode::Upsert || sink.key_columns().is_some(), || {
        "without its key columns any later row supersedes every dead letter".to_owned()
    })?;
    let held = sink.open(&ctx, &run_named("r1")).await.during("open")?;
    sink.close().await.during("close")?;
    let by_engine = world.quirks.by_engine.is_some();
    ensure(matches!(held, Held::ByEngine) == by_engine, || format!("open says {held:?}, the quirks say otherwise"))?;
    let exactly = plan.guarantee == Guarantee::ExactlyOnce;
    // What is swapped in at once by the last commit is exact wherever the checkpoint lies.
    let can = !by_engine || mode == WriteMode::Replace;
    ensure(!exactly || can, || "exactly once needs the checkpoint with the rows".to_owned())?;
    ensure(!exactly || world.quirks.visible_early.is_none(), || {
        "exactly once, and visible before the commit".to_owned()
    })?;
    ensure(!plan.early_publish || matches!(mode, WriteMode::InsertNew | WriteMode::Upsert), || {
        "early publishes double the rows of append and tear those of replace".to_owned()
    })
}

async fn secrets_do_not_show(world: &World<'_>) -> Check {
    let mut sink = world.sink();
    let ctx = world.context();
    let plan = sink.plan(&ctx.for_plan(), &Known::Now(rows::schema())).await.during("plan")?;
    shows(&format!("{plan:?}"), world.secrets)?;
    sink.open(&ctx, &run_named("r1")).await.during("open")?;
    // Any error will do.
    let odd = Schema::new(vec![Field::new("id", DataType::Null, true)]);
    let mut seen = vec![];
    match sink.schema(&Arc::new(odd)).await {
        Ok(keyed_by) => seen.extend(keyed_by),
        Err(error) => seen.extend([error.to_string(), format!("{error:?}")]),
    }
    sink.close().await.during("close")?;
    seen.iter().try_for_each(|text| shows(text, world.secrets))
}

async fn at_first_there_is_no_checkpoint(world: &World<'_>) -> Check {
    match world.found("r1").await? {
        None => Ok(()),
        Some(found) => broken(format!("a fresh target has {found:?}")),
    }
}

async fn a_checkpoint_comes_back_as_it_was(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    let mut open = world.open("r1").await?;
    let mut expect = None;
    for epoch in [1, 2, 7] {
        open.write(&rows::numbered([epoch])).await?;
        open.commit(epoch as u64, epoch == 7).await?;
        expect = Some(open.checkpoint(epoch as u64, epoch == 7));
    }
    open.close().await?;
    // Not by opening: it is durable as soon as commit has returned.
    for run in ["r1", "r2"] {
        let found = world.found(run).await?;
        ensure(found == expect, || format!("{expect:?} was committed, and {found:?} is found"))?;
    }
    Ok(())
}

async fn a_checkpoint_is_of_its_pipeline_and_component(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    unless(world.quirks.one_owner)?;
    let mut mine = world.open("r1").await?;
    mine.write(&rows::numbered([1])).await?;
    mine.commit(1, false).await?;
    let other = door::context("another target").0;
    let theirs = world.open_as(&other, "r9").await?;
    let found = theirs.held.clone();
    ensure(matches!(found, Held::Here(None)), || format!("another component finds {found:?}"))?;
    theirs.close().await?;
    // The other's fence is not ours.
    mine.write(&rows::numbered([2])).await?;
    mine.commit(2, true).await?;
    let expect = mine.checkpoint(2, true);
    mine.close().await?;
    let found = world.found("r1").await?;
    ensure(found.as_ref() == Some(&expect), || format!("{expect:?} was committed, and {found:?} is found"))
}

async fn an_epoch_without_rows_stores_its_checkpoint(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    let mut open = world.open("r1").await?;
    open.commit(1, false).await?;
    open.commit(2, true).await?;
    let expect = open.checkpoint(2, true);
    open.close().await?;
    let found = world.found("r2").await?;
    ensure(found.as_ref() == Some(&expect), || format!("{expect:?} was committed, and {found:?} is found"))
}

async fn a_target_made_anew_has_no_checkpoint(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    unless(world.quirks.cannot_be_dropped)?;
    world.run("r1", 1, &[rows::numbered(1..4)]).await?;
    ensure(world.target.drop_table().await, || "drop_table answers false, and no quirk says why".to_owned())?;
    if let Some(found) = world.found("r2").await? {
        return broken(format!("the table is gone, and epoch {} is still found", found.epoch));
    }
    world.run("r2", 1, &[rows::numbered(7..9)]).await?;
    world.holds(&[rows::numbered(7..9)], "behind the next run").await
}

async fn keys_are_named(world: &World<'_>) -> Check {
    let named = async |schema| -> Check<Option<String>> {
        let mut open = world.open("r1").await?;
        let keyed_by = open.sink.schema(&schema).await.during("schema")?;
        open.close().await?;
        Ok(keyed_by)
    };
    let (first, again) = (named(rows::schema()).await?, named(rows::schema()).await?);
    ensure(first == again, || format!("the same schema is keyed by {first:?} and by {again:?}"))?;
    let has_keys = world.setup.key != Key::None;
    ensure(first.is_some() == has_keys, || format!("keyed by {first:?}"))?;
    if world.setup.key == Key::RowHash {
        let other = named(rows::noted([1]).schema()).await?;
        ensure(first != other, || format!("a row hash over other columns has the same name, {first:?}"))?;
    }
    Ok(())
}

async fn columns_go_by_name(world: &World<'_>) -> Check {
    let mut open = world.open("r1").await?;
    open.write(&rows::numbered(1..4)).await?;
    let turned =
        rows::numbered(4..7).project(&[1, 0]).map_err(|error| towpath_core::Error::internal(error.to_string()))?;
    open.write(&turned).await?;
    open.commit(1, true).await?;
    open.close().await?;
    world.holds(&[rows::numbered(1..7)], "with columns in another order").await
}

async fn a_new_column_is_stored_or_refused(world: &World<'_>) -> Check {
    let mut open = world.open("r1").await?;
    open.write(&rows::numbered(1..4)).await?;
    open.commit(1, false).await?;
    let (old, new) = (rows::numbered(1..4), rows::noted(4..7));
    match open.sink.schema(&new.schema()).await {
        Err(error) => {
            open.close().await?;
            ensure(error.kind() != ErrorKind::Internal, || format!("an internal error: {error}"))?;
            if world.mode() == WriteMode::Replace { Ok(()) } else { world.holds(&[old], "behind the refusal").await }
        }
        Ok(_) => {
            let wrote = open.write_on(&new).await?;
            let late = open.commit(2, true).await?;
            open.close().await?;
            counted(&[wrote, late], 3, 0, 0)?;
            world.holds(&[old, new], "with a column more").await
        }
    }
}

/// What a reject of these rows took: the lines of the rows refused, in order.
fn refused(open_rejects: &[towpath_core::Reject], batch: &RecordBatch) -> Check<Vec<String>> {
    let lines = rows::lines(batch);
    let mut out = vec![];
    for reject in open_rejects {
        ensure(!reject.reason.is_empty(), || "a reject without a reason".to_owned())?;
        match &reject.row {
            Original::Row(row) => match lines.get(*row) {
                Some(line) => out.push(line.clone()),
                None => return broken(format!("a reject of row {row}, where {} were given", lines.len())),
            },
            Original::Late(row) => {
                ensure(row.num_rows() == 1, || format!("a late reject of {} rows", row.num_rows()))?;
                out.extend(rows::lines(row));
            }
            Original::Bytes(_) => return broken("a sink was given rows, and refuses bytes"),
        }
    }
    out.sort();
    Ok(out)
}

/// Writes rows of which some are refused; those that are left must be there.
async fn costs(world: &World<'_>, batches: &[RecordBatch], good: &RecordBatch, bad: &RecordBatch) -> Check {
    let mut open = world.open("r1").await?;
    let (mut wrote, mut seen) = (vec![], vec![]);
    for batch in batches {
        let got = open.write(batch).await?;
        seen.extend(refused(&got.rejected, batch)?);
        wrote.push(got);
    }
    let late = open.sink.flush().await.during("flush")?;
    let rows_of_write = late.rejected.iter().any(|reject| matches!(reject.row, Original::Row(_)));
    ensure(!rows_of_write, || "flush was handed no batch, and rejects a row by its number".to_owned())?;
    seen.extend(refused(&late.rejected, bad)?);
    open.sink.commit(&open.checkpoint(1, true)).await.during("commit")?;
    open.close().await?;
    let late_rejects = late.rejected.len() as u64;
    wrote.push(late);
    let (written, known, rejected) = sum(&wrote);
    // Those refused late were counted as written when they came, or are counted only now.
    let given = (good.num_rows() + bad.num_rows()) as u64;
    let all = written + known + rejected;
    ensure(all == given || all == given + late_rejects, || {
        format!("{given} rows were given, and {written} written, {known} known, {rejected} rejected are counted")
    })?;
    if let Some(difference) = rows::difference(&rows::lines(bad), &seen) {
        return broken(format!("of the rejects: {difference}"));
    }
    world.holds(std::slice::from_ref(good), "beside the bad rows").await
}

async fn a_bad_row_costs_one_row(world: &World<'_>) -> Check {
    unless(world.quirks.refuses_nothing)?;
    ensure(world.target.refuse(world.setup, "bad").await, || "refuse answers false, and no quirk says why".to_owned())?;
    let row = |id: i64| (id, if [1, 4, 5, 9].contains(&id) { Some("bad") } else { Some("good") });
    let all = |ids: &[i64]| rows::named(&ids.iter().map(|id| row(*id)).collect::<Vec<_>>());
    let batches = [all(&[1, 2, 3, 4, 5]), all(&[6, 7]), all(&[8, 9])];
    costs(world, &batches, &all(&[2, 3, 6, 7, 8]), &all(&[1, 4, 5, 9])).await
}

async fn a_batch_of_bad_rows_costs_only_itself(world: &World<'_>) -> Check {
    unless(world.quirks.refuses_nothing)?;
    ensure(world.target.refuse(world.setup, "bad").await, || "refuse answers false, and no quirk says why".to_owned())?;
    let all = |ids: std::ops::Range<i64>, name| rows::named(&ids.map(|id| (id, Some(name))).collect::<Vec<_>>());
    let (bad, good) = (all(1..300, "bad"), all(300..310, "good"));
    costs(world, &[bad.clone(), good.clone()], &good, &bad).await
}

async fn nothing_but_empty_batches(world: &World<'_>) -> Check {
    let mut open = world.open("r1").await?;
    let none = rows::numbered([]);
    let wrote = [open.write(&none).await?, open.write_on(&none).await?, open.commit(1, true).await?];
    counted(&wrote, 0, 0, 0)?;
    open.close().await?;
    world.holds(&[], "behind empty batches").await
}

async fn large_batches_and_values_arrive_whole(world: &World<'_>) -> Check {
    let many = rows::numbered(1..20_002);
    let wide = "wide ü ".repeat(150_000);
    let wide = rows::named(&[(30_001, Some(&wide)), (30_002, Some(""))]);
    let mut open = world.open("r1").await?;
    let wrote = [open.write(&many).await?, open.write(&wide).await?, open.commit(1, true).await?];
    counted(&wrote, 20_003, 0, 0)?;
    open.close().await?;
    world.holds(&[many, wide], "of large batches").await
}

async fn texts_arrive_as_they_are(world: &World<'_>) -> Check {
    let texts = [
        "",
        " ",
        "'",
        "\"",
        "a,b;c\td",
        "line\r\nline\n",
        "\\N",
        "NULL",
        "null",
        "0",
        "1e5",
        "ß 日本 🚣",
        "{\"a\":1}",
        "%s $1 ? :x",
    ];
    let mut given: Vec<_> = texts.iter().enumerate().map(|(id, text)| (id as i64 + 1, Some(*text))).collect();
    given.extend([(i64::MAX, Some("largest")), (i64::MIN, Some("smallest")), (0, None)]);
    let batch = rows::named(&given);
    world.run("r1", 1, std::slice::from_ref(&batch)).await?;
    world.holds(&[batch], "of odd texts").await
}

/// Rows with columns of these names and types, all null but `id`.
fn odd(columns: Vec<(&str, DataType)>) -> Option<RecordBatch> {
    let mut fields: Vec<Field> = vec![];
    let mut arrays: Vec<ArrayRef> = vec![];
    for (name, kind) in columns {
        arrays.push(match (&kind, name) {
            (DataType::Int64, "id") => Arc::new(Int64Array::from(vec![1, 2])),
            (DataType::Utf8, _) => Arc::new(StringArray::from(vec![Some("a"), None])),
            (DataType::Null, _) => Arc::new(NullArray::new(2)),
            _ => new_null_array(&kind, 2),
        });
        fields.push(Field::new(name, kind, true));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(2));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).ok()
}

async fn odd_schemas_do_no_harm(world: &World<'_>) -> Check {
    let text = DataType::Utf8;
    let id = ("id", DataType::Int64);
    let list = DataType::List(Arc::new(Field::new_list_field(text.clone(), true)));
    let inner = Fields::from(vec![Field::new("x", text.clone(), true)]);
    let long = "long ".repeat(60);
    let many: Vec<String> = (0..3000).map(|number| format!("c{number}")).collect();
    let many = many.iter().map(|name| (name.as_str(), text.clone()));
    // Each with whether it is so plain that its rows must arrive if it is taken at all.
    let schemas: Vec<(&str, Option<RecordBatch>)> = vec![
        ("no columns", odd(vec![])),
        ("two columns of one name", odd(vec![id.clone(), ("a", text.clone()), ("a", text.clone())])),
        (
            "names that differ in case",
            odd(vec![id.clone(), ("a", text.clone()), ("A", text.clone()), ("ID", text.clone())]),
        ),
        ("an empty name", odd(vec![id.clone(), ("", text.clone())])),
        (
            "names with quotes",
            odd(vec![id.clone(), ("a\"b'c`d]e", text.clone()), ("x; DROP TABLE t; --", text.clone())]),
        ),
        (
            "words of SQL",
            odd(vec![id.clone(), ("select", text.clone()), ("order", text.clone()), ("rowid", text.clone())]),
        ),
        ("letters of all kinds", odd(vec![id.clone(), ("Größe 日本 🚣", text.clone()), ("a\nb", text.clone())])),
        ("a very long name", odd(vec![id.clone(), (&long, text.clone())])),
        ("3000 columns", odd(std::iter::once(id.clone()).chain(many).collect())),
        ("a list and a struct", odd(vec![id.clone(), ("l", list), ("s", DataType::Struct(inner))])),
        ("a column of nothing", odd(vec![id.clone(), ("n", DataType::Null)])),
        ("no key column", odd(vec![("other", text.clone())])),
    ];
    let ctx = world.context();
    for (number, (what, batch)) in schemas.into_iter().enumerate() {
        let Some(batch) = batch else { continue };
        let run = format!("r{number}");
        let mut open: Open = world.open(&run).await?;
        // Whatever it is: an error of a kind that means something, or the rows. A panic is caught around the case.
        let done = async {
            open.keyed_by = open.sink.schema(&batch.schema()).await?;
            open.sink.write(0, batch.clone()).await?;
            open.sink.flush().await?;
            Ok::<_, towpath_core::Error>(())
        };
        let done = done.await;
        open.close().await?;
        if let Err(error) = done {
            let meant = ![ErrorKind::Internal, ErrorKind::Unavailable, ErrorKind::Timeout].contains(&error.kind());
            ensure(meant, || format!("{what}: the error is of kind {}: {error}", error.kind().name()))?;
        }
        let known = Known::Now(batch.schema());
        let _either = world.sink().plan(&ctx.for_plan(), &known).await;
    }
    // And the target is none the worse for it.
    world.run("after", 1, &[rows::numbered(1..3)]).await?;
    world.holds(&[rows::numbered(1..3)], "behind odd schemas").await
}

async fn closing_at_any_time(world: &World<'_>) -> Check {
    for steps in 0..5 {
        let mut open = world.open("r1").await?;
        if steps > 0 {
            open.sink.schema(&rows::schema()).await.during("schema")?;
        }
        if steps > 1 {
            open.write_on(&rows::numbered([1])).await?;
        }
        if steps > 2 {
            open.sink.flush().await.during("flush")?;
        }
        open.close().await?;
    }
    // Planned only: never opened, never closed.
    let Setup { .. } = world.setup;
    let mut sink = world.sink();
    sink.plan(&world.context().for_plan(), &Known::No).await.during("plan")?;
    drop(sink);
    world.holds(&[], "behind sinks that were closed early").await
}
