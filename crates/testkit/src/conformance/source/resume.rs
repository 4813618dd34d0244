//! Going on from a position, and stopping at one.

use towpath_core::{Mark, Partition, Position, Resume, checkpoint::Positions, source::Replay};

use super::{Given, NAME, World, checkpoint, conflict, some};
use crate::{
    conformance::{Case, Check, Stop, broken, case, ensure, run_named, unless},
    rows,
};

pub(super) fn cases<'a>() -> Vec<Case<World<'a>>> {
    vec![
        case!(from_every_position_comes_the_rest, "Gets ready to give everything behind resume.from."),
        case!(until_is_exact, "End a piece exactly at each of its positions, then End"),
        case!(from_one_position_until_another, "Stop exactly here"),
        case!(until_what_is_not_there_is_a_conflict, "if that cannot be done, answer Conflict"),
        case!(
            a_strange_position_is_a_conflict_or_begins_anew,
            "What it takes from resume, it must prove to be the same thing, or answer Conflict; what cannot prove it begins its partition anew."
        ),
        case!(
            changed_content_is_never_mixed,
            "What it takes from resume, it must prove to be the same thing, or answer Conflict; what cannot prove it begins its partition anew."
        ),
        case!(a_new_run_reads_what_its_plan_says, "only what a new run wants to know of it"),
        case!(whole_means_all, "Read every partition whole, whatever from says of earlier runs"),
    ]
}

/// The rows of the pieces from one number to another.
fn between(given: &Given, from: usize, to: usize) -> Vec<String> {
    super::kept(&given.pieces[from..to])
}

async fn from_every_position_comes_the_rest(world: &World<'_>) -> Check {
    let (run, all) = (run_named("r1"), world.has_positions().await?);
    for (number, at) in some(&all.boundaries(), 16) {
        let resume = Resume { from: Some(checkpoint(&run, 1, false, at)), ..Resume::default() };
        let rest = world.read_all(&run, &resume).await?;
        world.same(&between(&all, *number, all.pieces.len()), &rest.lines(), &format!("from {at:?}"))?;
    }
    Ok(())
}

async fn until_is_exact(world: &World<'_>) -> Check {
    unless(world.quirks.no_until)?;
    let (run, all) = (run_named("r1"), world.has_positions().await?);
    for (number, at) in some(&all.boundaries(), 16) {
        stops(world, &run, None, at, &between(&all, 0, *number)).await?;
    }
    Ok(())
}

/// Reads up to a checkpoint: the rows, and a boundary exactly at each of its positions.
async fn stops(
    world: &World<'_>,
    run: &towpath_core::Run,
    from: Option<&Positions>,
    until: &Positions,
    expect: &[String],
) -> Check {
    let from = from.map(|at| checkpoint(run, 1, false, at));
    let resume = Resume { from, until: Some(checkpoint(run, 2, false, until)), ..Resume::default() };
    let given = world.read_all(run, &resume).await?;
    world.same(expect, &given.lines(), &format!("until {until:?}"))?;
    let reached = given.boundaries();
    let Some((_, last)) = reached.last() else { return Ok(()) };
    for (partition, position) in last.values().flatten() {
        let asked = until.get(NAME).and_then(|of| of.get(partition));
        ensure(asked == Some(position), || {
            format!("it stopped at '{position}' of '{partition}', and not at {asked:?}")
        })?;
    }
    let boundary = given.pieces.last().is_none_or(|piece| piece.mark.is_boundary());
    ensure(boundary, || "its last piece does not end at a boundary".to_owned())
}

async fn from_one_position_until_another(world: &World<'_>) -> Check {
    unless(world.quirks.no_until)?;
    let (run, all) = (run_named("r1"), world.has_positions().await?);
    let boundaries = all.boundaries();
    let chosen = some(&boundaries, 6);
    for (index, (first, from)) in chosen.iter().enumerate() {
        for (second, until) in &chosen[index..] {
            stops(world, &run, Some(from), until, &between(&all, *first, *second)).await?;
        }
    }
    Ok(())
}

/// The last checkpoint with another position in its first partition.
fn strange(all: &Given) -> Option<Positions> {
    let (_, mut at) = all.boundaries().pop()?;
    let of = at.get_mut(NAME)?;
    let first: Partition = of.keys().next()?.clone();
    of.insert(first, Position::new("no such position"));
    Some(at)
}

async fn until_what_is_not_there_is_a_conflict(world: &World<'_>) -> Check {
    unless(world.quirks.no_until)?;
    let (run, all) = (run_named("r1"), world.has_positions().await?);
    let Some(at) = strange(&all) else { return Ok(()) };
    let resume = Resume { until: Some(checkpoint(&run, 2, false, &at)), ..Resume::default() };
    match world.read(&run, &resume).await? {
        Err(error) => conflict(&error, world.secrets),
        Ok(given) => broken(format!("a position that never was is passed over, and {} rows come", given.lines().len())),
    }
}

async fn a_strange_position_is_a_conflict_or_begins_anew(world: &World<'_>) -> Check {
    let (run, all) = (run_named("r1"), world.has_positions().await?);
    let Some(strange) = strange(&all) else { return Ok(()) };
    let Some((partition, _)) = strange.get(NAME).and_then(|of| of.iter().next()) else { return Ok(()) };
    let resume = Resume { from: Some(checkpoint(&run, 1, false, &strange)), ..Resume::default() };
    match world.read(&run, &resume).await? {
        Err(error) => conflict(&error, world.secrets),
        Ok(given) => {
            let of = |given: &Given| {
                let pieces = given.pieces.iter().filter(|piece| piece.mark.partition() == Some(partition));
                super::kept(&pieces.cloned().collect::<Vec<_>>())
            };
            world.same(&of(&all), &of(&given), "of the partition whose position it does not know")
        }
    }
}

async fn changed_content_is_never_mixed(world: &World<'_>) -> Check {
    unless(world.quirks.never_changes)?;
    let (run, all) = (run_named("r1"), world.has_positions().await?);
    let of_first = |given: &Given| {
        let first = given.pieces.iter().find_map(|piece| piece.mark.partition().cloned());
        let pieces = given.pieces.iter().filter(|piece| piece.mark.partition() == first.as_ref());
        super::kept(&pieces.cloned().collect::<Vec<_>>())
    };
    // A position inside the first partition: behind it, more of the same partition comes.
    let inside = all.boundaries().into_iter().find(|(number, _)| {
        let next = all.pieces.get(*number).map(|piece| &piece.mark);
        next.is_some_and(|next| next.partition() == all.pieces[number - 1].mark.partition())
    });
    let Some((_, at)) = inside.filter(|(_, at)| at.get(NAME).is_some_and(|of| of.len() == 1)) else {
        return Err(Stop::Skip("it has no positions inside a partition".to_owned()));
    };
    ensure(world.origin.change().await, || "change answers false, and no quirk says why".to_owned())?;
    let resume = Resume { from: Some(checkpoint(&run, 1, false, &at)), ..Resume::default() };
    match world.read(&run, &resume).await? {
        Err(error) => conflict(&error, world.secrets),
        Ok(given) => {
            let anew = world.read_all(&run_named("r2"), &Resume::default()).await?;
            ensure(of_first(&anew) != of_first(&all), || "change changed nothing".to_owned())?;
            world.same(&of_first(&anew), &of_first(&given), "of the partition that was written anew")
        }
    }
}

async fn a_new_run_reads_what_its_plan_says(world: &World<'_>) -> Check {
    let (old, run, all) = (run_named("r1"), run_named("r2"), world.has_positions().await?);
    let Some((_, at)) = all.boundaries().pop() else { return Ok(()) };
    let resume = Resume { from: Some(checkpoint(&old, 9, true, &at)), ..Resume::default() };
    let plan = world.plan(&run, &resume).await?;
    let lines = world.read_all(&run, &resume).await?.lines();
    if plan.replay == Replay::OneByOne {
        return Ok(());
    }
    if !plan.carries {
        return world.same(&all.lines(), &lines, "of a new run, where positions mean nothing to it");
    }
    ensure(!plan.nothing_to_do() || lines.is_empty(), || {
        format!("the plan said that there is nothing to do, and {} rows came", lines.len())
    })?;
    ensure(plan.rereads || lines.is_empty(), || format!("nothing has changed, and {} rows come once more", lines.len()))
}

async fn whole_means_all(world: &World<'_>) -> Check {
    let (old, run, all) = (run_named("r1"), run_named("r2"), world.has_positions().await?);
    let Some((_, at)) = all.boundaries().pop() else { return Ok(()) };
    let resume = Resume { from: Some(checkpoint(&old, 9, true, &at)), whole: true, ..Resume::default() };
    let given = world.read_all(&run, &resume).await?;
    let gone = given.pieces.iter().any(|piece| matches!(piece.mark, Mark::Gone(_)));
    ensure(!gone, || "a partition is said to be gone that is there".to_owned())?;
    let difference = rows::difference(&all.lines(), &given.lines());
    difference.map_or(Ok(()), |difference| broken(format!("of a run that reads everything: {difference}")))
}
