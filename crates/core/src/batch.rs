//! What flows: rows, and the counted handle on where they came from.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow_array::RecordBatch;

use crate::{checkpoint::Mark, pipeline::Name};

/// Rows with their lineage. Inside the engine every stage hands these on; connectors see the rows only.
#[derive(Debug)]
pub struct Batch {
    /// The rows; none for a piece that was filtered away, which must arrive all the same.
    pub rows: RecordBatch,
    /// Where they came from.
    pub delivery: Delivery,
}

/// Which piece of which source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceId {
    /// The source's name in the pipeline.
    pub source: Name,
    /// Counts the source's pieces in this attempt, from 0, in the order they left it.
    pub seq: u64,
    /// Where the piece ends.
    pub mark: Mark,
}

/// Is told when the last handle on a piece is gone.
pub trait Tracker: Send + Sync {
    /// `kept` is false if any handle was dropped without [`Delivery::complete`]. Called exactly once per piece.
    fn settled(&self, piece: &PieceId, kept: bool);
}

/// A counted handle on a piece. Splitting a batch clones it, joining keeps it, whoever has made its rows durable (or has
/// given them to the dead letters) completes it. When the last handle of a piece is gone the tracker is told, once. A handle that is
/// dropped without a word, by a panic or a cancelled task, means that the piece has *failed*: silence is never success.
pub struct Delivery {
    inner: Arc<Inner>,
    completed: bool,
}

struct Inner {
    piece: PieceId,
    failed: AtomicBool,
    tracker: Arc<dyn Tracker>,
}

impl Delivery {
    /// The first handle on a piece.
    pub fn new(piece: PieceId, tracker: Arc<dyn Tracker>) -> Self {
        Self { inner: Arc::new(Inner { piece, failed: AtomicBool::new(false), tracker }), completed: false }
    }
    /// The piece.
    pub fn piece(&self) -> &PieceId {
        &self.inner.piece
    }
    /// The rows behind this handle are safe, or deliberately gone: written, known, filtered or kept as dead letters.
    pub fn complete(mut self) {
        self.completed = true;
    }
}

impl Clone for Delivery {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), completed: false }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.piece.fmt(f)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.completed {
            self.inner.failed.store(true, Ordering::Release);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tracker.settled(&self.piece, !*self.failed.get_mut());
    }
}

/// To be called behind each hand-over of rows between two tasks: lets another thread take the task that it woke.
///
/// tokio keeps the task that was woken last for the very thread that woke it, where no other may take it. That is right where the waker is about
/// to wait; one that goes on computing holds up whoever it has given rows to, and the two take turns on one core. Waking one task more
/// moves the first to where idle threads look. Outside a runtime it does nothing.
pub fn handed_over() {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(std::future::ready(())));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::checkpoint::Token;

    #[derive(Default)]
    struct Log(Mutex<Vec<(u64, bool)>>);
    impl Tracker for Log {
        fn settled(&self, piece: &PieceId, kept: bool) {
            self.0.lock().unwrap().push((piece.seq, kept));
        }
    }

    #[test]
    fn a_piece_settles_once_and_silence_is_failure() {
        let log = Arc::new(Log::default());
        let piece = |seq| {
            Delivery::new(
                PieceId { source: "s".into(), seq, mark: Mark::One(Token(seq)) },
                Arc::clone(&log) as Arc<dyn Tracker>,
            )
        };
        let (a, b) = (piece(0), piece(1));
        let (a2, b2) = (a.clone(), b.clone());
        a.complete();
        assert!(log.0.lock().unwrap().is_empty(), "a handle is still out");
        a2.complete();
        b2.complete();
        drop(b);
        let panicked = piece(2);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = panicked;
            panic!("a stage broke");
        }));
        assert_eq!(*log.0.lock().unwrap(), [(0, true), (1, false), (2, false)]);
    }
}
