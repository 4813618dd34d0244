//! Processes that die, hang on, or come back late.

use towpath_core::{ErrorKind, WriteMode};

use super::{Open, World};
use crate::{
    conformance::{Case, Check, Dice, During as _, broken, case, ensure, polls, shows, unless},
    rows,
};

pub(super) fn cases<'a>() -> Vec<Case<World<'a>>> {
    vec![
        case!(
            a_late_commit_changes_nothing,
            "so that a commit of a dead process that lands later finds the fence raised and changes nothing."
        ),
        case!(
            a_commit_behind_another_changes_nothing,
            "if no checkpoint row was updated, another process owns the target now: Conflict, and nothing was written."
        ),
        case!(
            who_lost_the_target_cannot_write_on,
            "if no checkpoint row was updated, another process owns the target now: Conflict, and nothing was written."
        ),
        case!(of_two_that_open_at_once_one_owns_it, "Raises the fence and reads the checkpoint in one transaction"),
        case!(a_write_that_is_dropped_leaves_nothing, "Lets go of everything, rolls back what is not committed."),
        case!(
            a_commit_that_is_dropped_is_whole_or_nothing,
            "Makes the epoch's rows and the checkpoint durable in one transaction"
        ),
        case!(any_schedule_of_crashes_is_exact, "what that finds in the target decides"),
    ]
}

/// Ends the case unless the commit was refused as a conflict.
fn conflict(world: &World<'_>, got: Result<(), towpath_core::Error>) -> Check {
    match got {
        Ok(()) => broken("the commit of the process that lost the target succeeded"),
        Err(error) => {
            shows(&error.to_string(), world.secrets)?;
            ensure(error.kind() == ErrorKind::Conflict, || {
                format!("the error is of kind {}, not conflict: {error}", error.kind().name())
            })
        }
    }
}

async fn a_late_commit_changes_nothing(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    unless(world.quirks.locks)?;
    world.run("r1", 1, &[rows::numbered(1..4)]).await?;
    let mut dead = world.open("r2").await?;
    dead.write(&rows::numbered(4..7)).await?;
    dead.sink.flush().await.during("flush")?;
    let heir = world.open("r2").await?;
    let before = heir.held.clone();
    conflict(world, dead.sink.commit(&dead.checkpoint(2, true)).await)?;
    dead.close().await?;
    world.holds(&[rows::numbered(1..4)], "behind a late commit").await?;
    let towpath_core::Held::Here(before) = before else { return Ok(()) };
    heir.close().await?;
    let after = world.found("r2").await?;
    ensure(before == after, || format!("a late commit made {before:?} into {after:?}"))
}

async fn a_commit_behind_another_changes_nothing(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    unless(world.quirks.locks)?;
    let mut dead = world.open("r1").await?;
    dead.write(&rows::numbered(1..4)).await?;
    let mut heir = world.open("r1").await?;
    heir.write(&rows::numbered(1..4)).await?;
    heir.commit(1, true).await?;
    let expect = heir.checkpoint(1, true);
    let late = async {
        dead.sink.flush().await?;
        dead.sink.commit(&dead.checkpoint(1, true)).await
    };
    conflict(world, late.await)?;
    dead.close().await?;
    heir.close().await?;
    world.holds(&[rows::numbered(1..4)], "behind both").await?;
    let found = world.found("r1").await?;
    ensure(found.as_ref() == Some(&expect), || format!("{expect:?} was committed, and {found:?} is found"))
}

async fn who_lost_the_target_cannot_write_on(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    let mut dead = world.open("r1").await?;
    let mut heir = world.open("r1").await?;
    let late = async {
        dead.sink.schema(&rows::schema()).await?;
        dead.sink.write(0, rows::numbered(1..4)).await?;
        dead.sink.flush().await?;
        dead.sink.commit(&dead.checkpoint(1, true)).await
    };
    conflict(world, late.await)?;
    dead.close().await?;
    heir.write(&rows::numbered(7..9)).await?;
    heir.commit(1, true).await?;
    heir.close().await?;
    world.holds(&[rows::numbered(7..9)], "behind the process that lost the target").await
}

async fn of_two_that_open_at_once_one_owns_it(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    let (one, two) = futures::join!(world.open("r1"), world.open("r1"));
    let (mut one, mut two) = (one?, two?);
    let mut owners = 0;
    for open in [&mut one, &mut two] {
        let committed = async {
            open.sink.schema(&rows::schema()).await?;
            open.sink.write(0, rows::numbered(1..4)).await?;
            open.sink.flush().await?;
            open.sink.commit(&open.checkpoint(1, true)).await
        };
        match committed.await {
            Ok(()) => owners += 1,
            refused => conflict(world, refused)?,
        }
        open.sink.close().await.during("close")?;
    }
    ensure(owners == 1, || format!("{owners} of two committed"))?;
    world.holds(&[rows::numbered(1..4)], "behind two that opened at once").await
}

async fn a_write_that_is_dropped_leaves_nothing(world: &World<'_>) -> Check {
    unless(world.quirks.visible_early)?;
    for times in 1..6 {
        let mut open = world.open("r1").await?;
        open.sink.schema(&rows::schema()).await.during("schema")?;
        let _dropped = polls(times, open.sink.write(0, rows::numbered(1..100))).await;
        open.close().await?;
        world.holds(&[], "behind a write that was dropped").await?;
    }
    Ok(())
}

/// Commits until the `times`-th time it waits, and dies there. Whether it came to its end.
async fn dies_in_commit(open: &mut Open, times: u32, epoch: u64, last: bool) -> Check<bool> {
    open.sink.flush().await.during("flush")?;
    let checkpoint = open.checkpoint(epoch, last);
    match polls(times, open.sink.commit(&checkpoint)).await {
        None => Ok(false),
        Some(done) => done.during("commit").map(|()| true),
    }
}

async fn a_commit_that_is_dropped_is_whole_or_nothing(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    let mut committed = vec![];
    for (number, times) in (1..10).enumerate() {
        let epoch = number as u64 + 1;
        let run = format!("r{epoch}");
        let batch = rows::numbered([epoch as i64 * 10, epoch as i64 * 10 + 1]);
        let mut open = world.open(&run).await?;
        open.write(&batch).await?;
        let done = dies_in_commit(&mut open, times, epoch, true).await?;
        drop(open);
        // What is there decides. Whoever opens waits for what is still landing, or shuts it out.
        let found = world.found(&run).await?;
        let is_there = found.is_some_and(|found| found.epoch == epoch);
        ensure(is_there || !done, || "commit returned, and its checkpoint is not there".to_owned())?;
        if is_there {
            if world.mode() == WriteMode::Replace {
                committed.clear();
            }
            committed.push(batch);
        }
        world.holds(&committed, "behind a commit that was dropped").await?;
    }
    Ok(())
}

/// A run of 24 epochs, by processes that die at any point; each goes on from what the one before left behind.
async fn any_schedule_of_crashes_is_exact(world: &World<'_>) -> Check {
    unless(world.quirks.by_engine)?;
    const EPOCHS: u64 = 24;
    let of = |epoch: u64| rows::numbered(epoch as i64 * 10..epoch as i64 * 10 + 4);
    let mut dice = Dice::new(5);
    let mut dead: Vec<Open> = vec![];
    for _ in 0..400 {
        let mut open = world.open("r1").await?;
        let towpath_core::Held::Here(found) = &open.held else { return Ok(()) };
        let stands = found.as_ref().map_or(0, |found| found.epoch);
        if stands == EPOCHS {
            open.close().await?;
            drop(dead);
            let all: Vec<_> = (1..=EPOCHS).map(of).collect();
            return world.holds(&all, "behind many crashes").await;
        }
        // One that stopped between two calls may come back; of one that died inside a call there is nothing to come back.
        let mut hangs = false;
        for epoch in stands + 1..=EPOCHS {
            open.write(&of(epoch)).await?;
            if dice.roll(4) == 0 {
                hangs = true;
                break;
            }
            // A process that hung on commits late.
            if let Some(mut late) = dead.pop()
                && world.quirks.locks.is_none()
            {
                let committed = async {
                    late.sink.flush().await?;
                    late.sink.commit(&late.checkpoint(epoch, epoch == EPOCHS)).await
                };
                conflict(world, committed.await)?;
            }
            // Some sinks wait a few times for a commit, others, behind a network, a few dozen times.
            let most = if dice.roll(2) == 0 { 8 } else { 48 };
            if !dies_in_commit(&mut open, 1 + dice.roll(most) as u32, epoch, epoch == EPOCHS).await? {
                break;
            }
        }
        if world.quirks.locks.is_none() && hangs { dead.push(open) } else { drop(open) }
    }
    broken("400 processes did not come to the end of 24 epochs")
}
