//! How rows meet what is there, and when it can be seen.

use towpath_core::{Known, WriteMode};

use super::{World, counted};
use crate::{
    conformance::{Case, Check, During as _, Stop, case, ensure, unless},
    memory::Key,
    rows,
};

pub(super) fn cases<'a>() -> Vec<Case<World<'a>>> {
    vec![
        case!(uncommitted_rows_are_not_seen, "Not durable and not visible until commit."),
        case!(uncommitted_rows_vanish, "Lets go of everything, rolls back what is not committed."),
        case!(epochs_add_up, "Makes the epoch's rows and the checkpoint durable in one transaction"),
        case!(append_adds_every_row, "Every row is added."),
        case!(
            insert_new_leaves_known_rows_alone,
            "A row whose key is not there yet is added; the others are known and left alone."
        ),
        case!(
            a_row_hash_tells_rows_apart,
            "A row whose key is not there yet is added; the others are known and left alone."
        ),
        case!(upsert_replaces, "A row whose key is there replaces it; the others are added."),
        case!(of_several_the_last_one_wins, "Of several in one batch the last one wins."),
        case!(replace_swaps_at_the_end_only, "checkpoint.last is the only commit in which WriteMode::Replace swaps."),
        case!(
            replace_by_nothing_leaves_nothing,
            "When the run is complete, its rows take the place of all there was, at once."
        ),
        case!(
            replace_goes_on_where_its_run_stood,
            "When the run is complete, its rows take the place of all there was, at once."
        ),
        case!(what_another_run_staged_is_thrown_away, "Anything staged by another run is thrown away."),
        case!(
            an_epoch_can_be_published_early,
            "A commit whose epoch is the one before is an early publish: rows so far and the same positions."
        ),
        case!(the_same_rows_again_are_harmless, "Writing the same rows again is harmless"),
    ]
}

use WriteMode::{Append, InsertNew, Replace, Upsert};

async fn uncommitted_rows_are_not_seen(world: &World<'_>) -> Check {
    unless(world.quirks.visible_early)?;
    world.run("r1", 1, &[rows::numbered(1..4)]).await?;
    let mut open = world.open("r2").await?;
    open.write(&rows::numbered(4..7)).await?;
    world.holds(&[rows::numbered(1..4)], "behind write").await?;
    open.sink.flush().await.during("flush")?;
    world.holds(&[rows::numbered(1..4)], "behind flush").await?;
    open.sink.commit(&open.checkpoint(2, true)).await.during("commit")?;
    let expect = if world.mode() == Replace { vec![rows::numbered(4..7)] } else { vec![rows::numbered(1..7)] };
    world.holds(&expect, "behind commit").await?;
    open.close().await
}

async fn uncommitted_rows_vanish(world: &World<'_>) -> Check {
    unless(world.quirks.visible_early)?;
    world.run("r1", 1, &[rows::numbered(1..4)]).await?;
    for (flush, close) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut open = world.open("r2").await?;
        open.write(&rows::numbered(4..7)).await?;
        if flush {
            open.sink.flush().await.during("flush")?;
        }
        // A process that dies closes nothing.
        if close {
            open.close().await?
        } else {
            drop(open)
        }
        world.holds(&[rows::numbered(1..4)], "behind a sink that did not commit").await?;
    }
    world.run("r2", 2, &[rows::numbered(7..9)]).await?;
    let rest = rows::numbered(7..9);
    let expect = if world.mode() == Replace { vec![rest] } else { vec![rows::numbered(1..4), rest] };
    world.holds(&expect, "behind the run after it").await
}

async fn epochs_add_up(world: &World<'_>) -> Check {
    let mut open = world.open("r1").await?;
    for epoch in 0..5 {
        for part in 0..3 {
            let first = epoch * 30 + part * 10;
            open.write(&rows::numbered(first..first + 10)).await?;
        }
        open.commit(epoch as u64 + 1, epoch == 4).await?;
    }
    open.close().await?;
    world.holds(&[rows::numbered(0..150)], "of five epochs").await
}

async fn append_adds_every_row(world: &World<'_>) -> Check {
    world.only(&[Append])?;
    let twice = rows::numbered([1, 2, 2]);
    world.run("r1", 1, std::slice::from_ref(&twice)).await?;
    let mut open = world.open("r2").await?;
    let wrote = [open.write(&twice).await?, open.commit(2, true).await?];
    open.close().await?;
    counted(&wrote, 3, 0, 0)?;
    world.holds(&[twice.clone(), twice], "behind two runs").await
}

async fn insert_new_leaves_known_rows_alone(world: &World<'_>) -> Check {
    world.only(&[InsertNew])?;
    if world.setup.key == Key::RowHash {
        return Err(Stop::Beside);
    }
    let old = rows::named(&[(1, Some("old")), (2, None)]);
    world.run("r1", 1, std::slice::from_ref(&old)).await?;
    let mut open = world.open("r2").await?;
    let first = open.write(&rows::named(&[(1, Some("new")), (3, Some("c")), (2, Some("b")), (4, None)])).await?;
    // In the same epoch, and in the next.
    let second = open.write(&rows::named(&[(3, Some("other")), (5, None)])).await?;
    let third = open.commit(2, false).await?;
    let fourth = open.write(&rows::named(&[(5, Some("other")), (6, None)])).await?;
    let fifth = open.commit(3, true).await?;
    open.close().await?;
    counted(&[first, second, third, fourth, fifth], 4, 4, 0)?;
    let new = rows::named(&[(3, Some("c")), (4, None), (5, None), (6, None)]);
    world.holds(&[old, new], "behind insert_new").await
}

async fn a_row_hash_tells_rows_apart(world: &World<'_>) -> Check {
    if world.setup.key != Key::RowHash {
        return Err(Stop::Beside);
    }
    let old = rows::named(&[(1, Some("a")), (2, None), (12, Some("3"))]);
    world.run("r1", 1, std::slice::from_ref(&old)).await?;
    let mut open = world.open("r2").await?;
    // Null is not the empty text, and values do not run together.
    let given = [(1, Some("a")), (1, Some("A")), (2, Some("")), (2, None), (1, Some("23")), (1, Some("23"))];
    let wrote = [open.write(&rows::named(&given)).await?, open.commit(2, true).await?];
    open.close().await?;
    counted(&wrote, 3, 3, 0)?;
    let new = rows::named(&[(1, Some("A")), (2, Some("")), (1, Some("23"))]);
    world.holds(&[old, new], "behind insert_new by row hash").await
}

async fn upsert_replaces(world: &World<'_>) -> Check {
    world.only(&[Upsert])?;
    world.run("r1", 1, &[rows::named(&[(1, Some("old")), (2, Some("old")), (3, None)])]).await?;
    let mut open = world.open("r2").await?;
    let wrote = [
        open.write(&rows::named(&[(1, Some("new")), (4, Some("new"))])).await?,
        open.write(&rows::named(&[(2, None), (4, Some("newer"))])).await?,
        open.commit(2, true).await?,
    ];
    open.close().await?;
    let (written, known, rejected) = super::sum(&wrote);
    ensure(written + known == 4 && rejected == 0 && written >= 3, || {
        format!("{written} written, {known} known, {rejected} rejected are counted for four rows of three keys")
    })?;
    let expect = rows::named(&[(1, Some("new")), (2, None), (3, None), (4, Some("newer"))]);
    world.holds(&[expect], "behind upsert").await
}

async fn of_several_the_last_one_wins(world: &World<'_>) -> Check {
    world.only(&[InsertNew, Upsert])?;
    if world.mode() == InsertNew && world.setup.key == Key::RowHash {
        return Err(Stop::Beside);
    }
    let mut open = world.open("r1").await?;
    let batch = rows::named(&[(1, Some("a")), (2, Some("a")), (1, Some("b")), (1, None), (2, Some("b"))]);
    let wrote = [open.write(&batch).await?, open.commit(1, true).await?];
    open.close().await?;
    counted(&wrote, 2, 3, 0)?;
    world.holds(&[rows::named(&[(1, None), (2, Some("b"))])], "of several rows of one key").await?;
    // Beside rows that are there.
    let mut open = world.open("r2").await?;
    let batch = rows::named(&[(2, Some("c")), (3, Some("a")), (2, Some("d")), (3, Some("b"))]);
    let wrote = [open.write(&batch).await?, open.commit(2, true).await?];
    open.close().await?;
    let (second, written) = if world.mode() == InsertNew { ("b", 1) } else { ("d", 2) };
    counted(&wrote, written, 4 - written, 0)?;
    let expect = rows::named(&[(1, None), (2, Some(second)), (3, Some("b"))]);
    world.holds(&[expect], "of several rows of one key, beside others").await
}

async fn replace_swaps_at_the_end_only(world: &World<'_>) -> Check {
    world.only(&[Replace])?;
    let old = rows::numbered(1..4);
    world.run("r1", 1, std::slice::from_ref(&old)).await?;
    let mut open = world.open("r2").await?;
    for epoch in 2..5 {
        open.write(&rows::numbered([epoch * 10])).await?;
        open.commit(epoch as u64, false).await?;
        world.holds(std::slice::from_ref(&old), "before the last commit").await?;
    }
    open.commit(5, true).await?;
    open.close().await?;
    world.holds(&[rows::numbered([20, 30, 40])], "behind the last commit").await
}

async fn replace_by_nothing_leaves_nothing(world: &World<'_>) -> Check {
    world.only(&[Replace])?;
    unless(world.quirks.no_empty_table)?;
    world.run("r1", 1, &[rows::numbered(1..4)]).await?;
    let mut open = world.open("r2").await?;
    open.commit(2, true).await?;
    open.close().await?;
    world.holds(&[], "behind a complete run without rows").await
}

async fn replace_goes_on_where_its_run_stood(world: &World<'_>) -> Check {
    world.only(&[Replace])?;
    // What it has staged goes with the process; so the engine makes it one epoch.
    unless(world.quirks.by_engine)?;
    world.run("r1", 1, &[rows::numbered(1..4)]).await?;
    let mut first = world.open("r2").await?;
    first.write(&rows::numbered(10..13)).await?;
    first.commit(2, false).await?;
    first.write(&rows::numbered(90..95)).await?;
    drop(first);
    let mut second = world.open("r2").await?;
    second.write(&rows::numbered(13..16)).await?;
    second.commit(3, true).await?;
    second.close().await?;
    world.holds(&[rows::numbered(10..16)], "of a run that was taken up").await
}

async fn what_another_run_staged_is_thrown_away(world: &World<'_>) -> Check {
    world.only(&[Replace])?;
    world.run("r1", 1, &[rows::numbered(1..4)]).await?;
    let mut first = world.open("r2").await?;
    first.write(&rows::numbered(10..13)).await?;
    first.commit(2, false).await?;
    first.close().await?;
    world.run("r3", 3, &[rows::numbered(20..23)]).await?;
    world.holds(&[rows::numbered(20..23)], "of the run that was completed").await
}

async fn an_epoch_can_be_published_early(world: &World<'_>) -> Check {
    let plan = world.sink().plan(&world.context().for_plan(), &Known::Now(rows::schema())).await.during("plan")?;
    if !plan.early_publish {
        return Err(Stop::Beside);
    }
    let mut open = world.open("r1").await?;
    open.write(&rows::numbered(1..4)).await?;
    open.commit(1, false).await?;
    let before = open.checkpoint(1, false);
    for part in 1..4 {
        open.write(&rows::numbered(part * 10..part * 10 + 3)).await?;
        open.commit(1, false).await?;
    }
    drop(open);
    let published = [1, 10, 20, 30].map(|first| rows::numbered(first..first + 3));
    world.holds(&published, "behind early publishes").await?;
    if world.quirks.by_engine.is_none() {
        let found = world.found("r1").await?;
        ensure(found.as_ref() == Some(&before), || format!("{before:?} was repeated, and {found:?} is found"))?;
    }
    let mut open = world.open("r1").await?;
    open.write(&rows::numbered(10..33)).await?;
    open.commit(2, true).await?;
    open.close().await?;
    world.holds(&[rows::numbered(1..4), rows::numbered(10..33)], "of the epoch written again").await
}

async fn the_same_rows_again_are_harmless(world: &World<'_>) -> Check {
    world.only(&[InsertNew, Upsert])?;
    for run in 1..4 {
        world.run(&format!("r{run}"), run, &[rows::numbered(1..40)]).await?;
        world.holds(&[rows::numbered(1..40)], "behind the same rows again").await?;
    }
    Ok(())
}
