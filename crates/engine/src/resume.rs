//! Where the sinks stand, and so where a run goes on. Pure decisions; what is in the targets decides, never what a dead process
//! believed.

use towpath_core::{Checkpoint, Error, Name, Result, WriteMode};

/// A sink that has been opened, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) name: Name,
    pub(crate) mode: WriteMode,
    pub(crate) held: Option<Checkpoint>,
}

/// What is to be done first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Start {
    /// All sinks stand at `epoch`: go on from there.
    Level { from: Option<Checkpoint>, epoch: u64 },
    /// Some sinks miss the last epoch: give them the very same rows, and commit them as the others did.
    Behind { from: Option<Checkpoint>, until: Checkpoint, who: Vec<usize> },
}

/// Decides from where the sinks stand. `taken_up`: the run is the one that wrote the newest checkpoint, or none has been written;
/// otherwise that run is left behind.
pub(crate) fn start(sinks: &[Standing], taken_up: bool) -> Result<Start> {
    let epoch = |sink: &Standing| sink.held.as_ref().map_or(0, |held| held.epoch);
    let Some(leader) = sinks.iter().max_by_key(|sink| epoch(sink)) else {
        return Err(Error::internal("a pipeline without sinks"));
    };
    let (high, low) = (epoch(leader), sinks.iter().map(epoch).min().unwrap_or(0));
    let Some(newest) = leader.held.clone().filter(|_| high != low) else {
        return Ok(Start::Level { from: leader.held.clone(), epoch: high });
    };
    let who: Vec<usize> = (0..sinks.len()).filter(|&sink| epoch(&sinks[sink]) != high).collect();
    let lowest = who.iter().copied().min_by_key(|&sink| epoch(&sinks[sink])).and_then(|sink| sinks[sink].held.clone());
    let one_apart = sinks.iter().all(|sink| epoch(sink) + 1 >= high);
    if taken_up && one_apart {
        return Ok(Start::Behind { from: lowest, until: newest, who });
    }
    let names = who.iter().map(|&sink| sinks[sink].name.to_string()).collect::<Vec<_>>().join(", ");
    if let Some(append) = sinks.iter().find(|sink| sink.mode == WriteMode::Append && epoch(sink) == high) {
        let what =
            format!("{names} stands at epoch {low}, {} at {high}, which appends and would double rows", append.name);
        let hint = if one_apart {
            "run once without --new-run: that brings the sinks to the same epoch"
        } else {
            "a table was made anew or a sink added: empty the tables and `towpath state reset checkpoint`, or use insert_new with a key"
        };
        return Err(Error::conflict(what).hint(hint));
    }
    // The others know the rows by their keys, or replace them: they may be given once more.
    let from = if one_apart { lowest } else { None };
    Ok(Start::Level { from, epoch: high })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use WriteMode::{Append, InsertNew};
    use towpath_core::Run;

    use super::*;

    fn standing(mode: WriteMode, epoch: u64) -> Standing {
        let run = Run {
            id: "r".into(),
            started: jiff::Timestamp::UNIX_EPOCH,
            parameters: BTreeMap::new(),
            fingerprint: BTreeMap::new(),
        };
        let held = Checkpoint { run, epoch, last: false, keyed_by: None, at: BTreeMap::new() };
        Standing { name: format!("sink{epoch}").as_str().into(), mode, held: (epoch > 0).then_some(held) }
    }

    #[test]
    fn where_the_sinks_stand_decides() {
        let says = |sinks: &[(WriteMode, u64)], taken_up| {
            let sinks: Vec<_> = sinks.iter().map(|&(mode, epoch)| standing(mode, epoch)).collect();
            match start(&sinks, taken_up) {
                Ok(Start::Level { from, epoch }) => {
                    format!("level at {epoch} from {}", from.map_or(0, |from| from.epoch))
                }
                Ok(Start::Behind { from, until, who }) => {
                    format!("{who:?} behind, {} to {}", from.map_or(0, |from| from.epoch), until.epoch)
                }
                Err(error) => format!("refused: {error}"),
            }
        };
        assert_eq!(says(&[(Append, 0), (Append, 0)], true), "level at 0 from 0");
        assert_eq!(says(&[(Append, 3), (Append, 3)], true), "level at 3 from 3");
        assert_eq!(says(&[(Append, 3), (Append, 4), (Append, 3)], true), "[0, 2] behind, 3 to 4");
        assert_eq!(says(&[(Append, 0), (Append, 1)], true), "[0] behind, 0 to 1");
        assert_eq!(says(&[(Append, 3), (InsertNew, 4)], false), "level at 4 from 3", "its keys tell what it has");
        assert_eq!(says(&[(InsertNew, 0), (InsertNew, 9)], true), "level at 9 from 0", "a new sink gets everything");
        let refused = "refused: sink3 stands at epoch 3, sink4 at 4, which appends and would double rows";
        assert_eq!(says(&[(Append, 3), (Append, 4)], false), refused);
        assert!(says(&[(InsertNew, 0), (Append, 9)], true).starts_with("refused: sink0 stands at epoch 0, sink9 at 9"));
    }
}
