//! Plan, pieces, cancellation, the end.

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::{Effect, ErrorKind, Known, Mark, Next, Original, Resume, Settled, source::Replay};

use super::{NAME, World, checkpoint, close, kept, to_end};
use crate::{
    conformance::{Case, Check, Dice, During as _, broken, case, door, ensure, polls, run_named, shows, unless},
    rows,
};

pub(super) fn cases<'a>() -> Vec<Case<World<'a>>> {
    vec![
        case!(
            plan_is_cheap_and_changes_nothing,
            "Only Effect::Cheap calls, which the context enforces; nothing is changed"
        ),
        case!(plan_is_true, "What a run would read."),
        case!(secrets_do_not_show, "What makes its positions meaningful, in a short text without secrets"),
        case!(every_row_is_given_once, "Gets ready to give everything behind resume.from."),
        case!(pieces_are_of_one_schema, "Rows, all of one schema per source"),
        case!(rejects_are_of_their_piece, "Original::Row indexes rows and takes that row out of it."),
        case!(the_end_stays_the_end, "Nothing any more in this run. Asked again, it says so again."),
        case!(
            a_dropped_next_loses_and_doubles_nothing,
            "the future may be dropped at any await and next called again without a row lost or doubled"
        ),
        case!(
            partitions_do_not_mix_between_boundaries,
            "Everything between two boundaries of one partition is given without a piece of another partition in between."
        ),
        case!(boundaries_can_be_told_apart, "compared for equality only"),
        case!(truncated_input_is_an_error, "Truncated input is an error, never a shorter piece."),
        case!(settled_can_be_said_again, "Hears what the sinks made durable"),
        case!(
            closing_at_any_time,
            "Called exactly once if open was called, whatever came of it, also after an error and on cancel; has a few seconds."
        ),
        case!(discover_is_cheap, "Cheap calls and samples only."),
    ]
}

async fn plan_is_cheap_and_changes_nothing(world: &World<'_>) -> Check {
    let (ctx, calls) = door::context(NAME);
    let (run, before) = (run_named("r1"), world.origin.costly_requests().await);
    // Not for a plan: so a call that is not cheap goes through, and is seen.
    let mut source = world.origin.source();
    let mut plans = vec![];
    for _ in 0..2 {
        plans.push(source.plan(&ctx, &run, &Resume::default()).await.during("plan")?);
    }
    plans.push(world.plan(&run, &Resume::default()).await?);
    let costly = calls.not_cheap();
    ensure(costly.is_empty(), || format!("a plan called {}", costly.join(", ")))?;
    let after = world.origin.costly_requests().await;
    ensure(before == after, || {
        format!("the origin saw {before:?} costly requests before the plan and {after:?} behind it")
    })?;
    let same = plans.windows(2).all(|two| two[0].identity == two[1].identity && two[0].work == two[1].work);
    ensure(same, || format!("three plans are not the same: {plans:?}"))?;
    // And the planned one can be run.
    source.open(&ctx, &run, &Resume::default()).await.during("open behind plan")?;
    let given = to_end(&mut *source).await.during("reading")?;
    close(&mut *source).await?;
    world.same(&world.lines().await, &given.lines(), "behind a plan")
}

async fn plan_is_true(world: &World<'_>) -> Check {
    let run = run_named("r1");
    let plan = world.plan(&run, &Resume::default()).await?;
    let given = world.read_all(&run, &Resume::default()).await?;
    ensure(!plan.nothing_to_do() || given.lines().is_empty(), || {
        format!("the plan said that there is nothing to do, and {} rows came", given.lines().len())
    })?;
    if let Known::Now(planned) = &plan.schema
        && let Some(piece) = given.pieces.first()
    {
        let came = piece.rows.schema();
        ensure(came.fields() == planned.fields(), || format!("planned {planned:?}, came {came:?}"))?;
    }
    let one = |mark: &Mark| matches!(mark, Mark::One(_));
    let one_by_one = given.pieces.iter().any(|piece| one(&piece.mark));
    ensure(one_by_one == (plan.replay == Replay::OneByOne) || given.pieces.is_empty(), || {
        format!("the plan says {:?}, and a piece is marked {:?}", plan.replay, given.pieces[0].mark)
    })
}

async fn secrets_do_not_show(world: &World<'_>) -> Check {
    let run = run_named("r1");
    let plan = world.plan(&run, &Resume::default()).await?;
    shows(&format!("{plan:?}"), world.secrets)?;
    let given = world.read_all(&run, &Resume::default()).await?;
    for piece in &given.pieces {
        shows(&format!("{:?}", piece.mark), world.secrets)?;
    }
    // What went wrong tells no secret either.
    if world.origin.truncate().await
        && let Err(error) = world.read(&run, &Resume::default()).await?
    {
        shows(&format!("{error} {error:?} {:?}", error.what_to_do()), world.secrets)?;
    }
    Ok(())
}

async fn every_row_is_given_once(world: &World<'_>) -> Check {
    let given = world.read_all(&run_named("r1"), &Resume::default()).await?;
    let expect = world.lines().await;
    ensure(!expect.is_empty(), || "the origin has no rows: nothing is tried by that".to_owned())?;
    world.same(&expect, &given.lines(), "of all rows")?;
    let partitions: BTreeSet<_> = given.pieces.iter().filter_map(|piece| piece.mark.partition()).collect();
    if partitions.len() > 1 || world.quirks.unordered.is_some() {
        return Ok(());
    }
    let difference = rows::difference_in_order(&expect, &given.lines());
    difference.map_or(Ok(()), broken)
}

async fn pieces_are_of_one_schema(world: &World<'_>) -> Check {
    let given = world.read_all(&run_named("r1"), &Resume::default()).await?;
    let mut schemas = given.pieces.iter().map(|piece| piece.rows.schema());
    let Some(first) = schemas.next() else { return Ok(()) };
    match schemas.find(|schema| *schema != first) {
        None => Ok(()),
        Some(other) => broken(format!("one piece has {first:?}, another {other:?}")),
    }
}

async fn rejects_are_of_their_piece(world: &World<'_>) -> Check {
    let given = world.read_all(&run_named("r1"), &Resume::default()).await?;
    for piece in &given.pieces {
        for reject in &piece.rejects {
            ensure(!reject.reason.is_empty(), || "a reject without a reason".to_owned())?;
            match reject.row {
                Original::Row(row) if row < piece.rows.num_rows() => {}
                Original::Row(row) => {
                    return broken(format!("a reject of row {row}, where the piece has {}", piece.rows.num_rows()));
                }
                Original::Bytes(_) => {}
                Original::Late(_) => return broken("a source never learns of a row late"),
            }
        }
    }
    Ok(())
}

async fn the_end_stays_the_end(world: &World<'_>) -> Check {
    let mut source = world.origin.source();
    source.open(&world.context(), &run_named("r1"), &Resume::default()).await.during("open")?;
    to_end(&mut *source).await.during("reading")?;
    for _ in 0..3 {
        let next = source.next().await.during("next behind the end")?;
        ensure(matches!(next, Next::End), || format!("behind the end comes {next:?}"))?;
    }
    close(&mut *source).await
}

async fn a_dropped_next_loses_and_doubles_nothing(world: &World<'_>) -> Check {
    let expect = world.lines().await;
    for seed in 0..12 {
        let mut dice = Dice::new(seed + 1);
        let mut source = world.origin.source();
        source.open(&world.context(), &run_named("r1"), &Resume::default()).await.during("open")?;
        let (mut pieces, mut drops) = (vec![], 0);
        loop {
            // Progress is promised to nobody who drops for ever: after some drops in a row it may come to its end.
            let got =
                if drops < 4 { polls(1 + dice.roll(4) as u32, source.next()).await } else { Some(source.next().await) };
            match got {
                None => {
                    drops += 1;
                    if dice.roll(2) == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                Some(next) => match next.during("next behind a dropped one")? {
                    Next::Piece(piece) => {
                        drops = 0;
                        pieces.push(*piece);
                    }
                    Next::Idle => {}
                    Next::End => break,
                },
            }
        }
        close(&mut *source).await?;
        world.same(&expect, &kept(&pieces), "with calls of next dropped")?;
    }
    Ok(())
}

async fn partitions_do_not_mix_between_boundaries(world: &World<'_>) -> Check {
    let given = world.read_all(&run_named("r1"), &Resume::default()).await?;
    let mut within = None;
    for piece in &given.pieces {
        if let Some(partition) = &within
            && piece.mark.partition() != Some(partition)
        {
            return broken(format!("{:?} comes in the middle of partition '{partition}'", piece.mark));
        }
        within = if let Mark::Within(partition) = &piece.mark { Some(partition.clone()) } else { None };
    }
    let left = |partition| broken(format!("partition '{partition}' ends without a boundary"));
    within.map_or(Ok(()), left)
}

async fn boundaries_can_be_told_apart(world: &World<'_>) -> Check {
    let given = world.read_all(&run_named("r1"), &Resume::default()).await?;
    let mut last: BTreeMap<_, (BTreeSet<_>, bool)> = BTreeMap::new();
    for piece in &given.pieces {
        let Some(partition) = piece.mark.partition() else { continue };
        let (seen, moved) = last.entry(partition).or_default();
        *moved |= piece.rows.num_rows() > 0;
        if let Mark::At(_, position) = &piece.mark {
            let new = seen.insert(position.0.as_ref());
            ensure(new || !*moved, || {
                format!("two boundaries of '{partition}' are both '{position}', with rows between")
            })?;
            *moved = false;
        }
    }
    Ok(())
}

async fn truncated_input_is_an_error(world: &World<'_>) -> Check {
    unless(world.quirks.never_truncated)?;
    let whole = world.read_all(&run_named("r1"), &Resume::default()).await?.lines().len();
    ensure(world.origin.truncate().await, || "truncate answers false, and no quirk says why".to_owned())?;
    match world.read(&run_named("r2"), &Resume::default()).await? {
        Ok(given) => broken(format!("of {whole} rows {} came, and then the end", given.lines().len())),
        Err(error) => {
            let meant = [ErrorKind::Data, ErrorKind::Unavailable, ErrorKind::Timeout].contains(&error.kind());
            ensure(meant, || format!("the error is of kind {}: {error}", error.kind().name()))
        }
    }
}

async fn settled_can_be_said_again(world: &World<'_>) -> Check {
    let run = run_named("r1");
    let mut source = world.origin.source();
    source.open(&world.context(), &run, &Resume::default()).await.during("open")?;
    let given = to_end(&mut *source).await.during("reading")?;
    if let Some((_, at)) = given.boundaries().last() {
        let last = checkpoint(&run, 1, true, at);
        source.settled(Settled::UpTo(last.clone())).await.during("settled")?;
        source.settled(Settled::UpTo(last.clone())).await.during("settled, said again")?;
        close(&mut *source).await?;
        // In the next run, before anything is read.
        let mut next = world.origin.source();
        let resume = Resume { from: Some(last.clone()), ..Resume::default() };
        next.open(&world.context(), &run_named("r2"), &resume).await.during("open of the next run")?;
        next.settled(Settled::UpTo(last)).await.during("settled in the next run")?;
        return close(&mut *next).await;
    }
    for piece in &given.pieces {
        if let Mark::One(token) = piece.mark {
            source.settled(Settled::One(token, Ok(vec![]))).await.during("settled")?;
        }
    }
    close(&mut *source).await
}

async fn closing_at_any_time(world: &World<'_>) -> Check {
    let run = run_named("r1");
    for pieces in 0..3 {
        let mut source = world.origin.source();
        source.open(&world.context(), &run, &Resume::default()).await.during("open")?;
        for _ in 0..pieces {
            source.next().await.during("next")?;
        }
        // Cancelled in the middle.
        let _dropped = polls(1, source.next()).await;
        close(&mut *source).await?;
    }
    for times in 1..4 {
        let mut source = world.origin.source();
        let _dropped = polls(times, source.open(&world.context(), &run, &Resume::default())).await;
        close(&mut *source).await?;
    }
    if world.origin.truncate().await {
        let mut source = world.origin.source();
        if source.open(&world.context(), &run, &Resume::default()).await.is_ok() {
            let _failed = to_end(&mut *source).await;
        }
        close(&mut *source).await?;
    }
    Ok(())
}

async fn discover_is_cheap(world: &World<'_>) -> Check {
    let (ctx, calls) = door::context(NAME);
    let before = world.origin.costly_requests().await;
    match world.origin.source().discover(&ctx).await {
        Ok(found) => {
            shows(&format!("{found:?}"), world.secrets)?;
            ensure(!found.text.is_empty(), || "it discovers, and has nothing to say".to_owned())?;
        }
        Err(error) => {
            shows(&error.to_string(), world.secrets)?;
            ensure(error.kind() == ErrorKind::Unsupported, || format!("discover failed: {error}"))?;
        }
    }
    let writes = calls.of(&[Effect::Once, Effect::Idempotent]);
    ensure(writes.is_empty(), || format!("discover called {}", writes.join(", ")))?;
    let after = world.origin.costly_requests().await;
    ensure(before == after, || format!("the origin saw {before:?} costly requests before and {after:?} behind it"))
}
