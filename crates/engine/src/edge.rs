//! What joins two stages: a channel bounded by count and by bytes, and the count of what is on its way.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use towpath_core::{Batch, Error, Name, Result, batch::handed_over};

/// Batches between two stages at the most, whatever their size.
const MOST_BATCHES: usize = 16;
/// One permit of an edge's room.
const PERMIT_BYTES: usize = 1024;

/// What goes along an edge.
#[derive(Debug)]
pub(crate) enum Item {
    /// Rows of one of the stage's inputs.
    Rows { input: Name, batch: Batch, arrival: Arrival },
    /// An input has ended, in good order: a channel that closes without it was cancelled.
    End { input: Name },
}

/// The sending end; clone it for further senders to the same stage.
#[derive(Clone, Debug)]
pub(crate) struct EdgeTx {
    items: mpsc::Sender<(Item, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
    permits: usize,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct EdgeRx {
    items: mpsc::Receiver<(Item, Option<OwnedSemaphorePermit>)>,
}

/// An edge with room for `bytes`. A batch larger than that takes all of it and passes alone.
pub(crate) fn edge(bytes: u64) -> (EdgeTx, EdgeRx) {
    let permits = (bytes as usize / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let (tx, rx) = mpsc::channel(MOST_BATCHES);
    (EdgeTx { items: tx, room: Arc::new(Semaphore::new(permits)), permits }, EdgeRx { items: rx })
}

impl EdgeTx {
    /// Waits for room, then sends. Fails as cancelled when nobody receives any more.
    pub(crate) async fn send(&self, item: Item) -> Result<()> {
        let room = match &item {
            Item::Rows { batch, .. } => {
                let permits = (batch.rows.get_array_memory_size() / PERMIT_BYTES).clamp(1, self.permits);
                Some(Arc::clone(&self.room).acquire_many_owned(permits as u32).await.map_err(|_| Error::cancelled())?)
            }
            Item::End { .. } => None,
        };
        self.items.send((item, room)).await.map_err(|_| Error::cancelled())?;
        handed_over();
        Ok(())
    }
}

impl EdgeRx {
    /// The next item; `None` when all senders are gone. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Option<Item> {
        let item = self.items.recv().await.map(|(item, _room)| item);
        // There is room again, and whoever waits for it need not wait for us.
        handed_over();
        item
    }
}

/// Counts what is between the sources and the sinks' doors.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    under_way: AtomicUsize,
    landed: Notify,
}

/// Part of a piece on its way; dropping it means that it has arrived.
#[derive(Debug)]
pub(crate) struct Arrival(Arc<Flight>);

impl Flight {
    /// A piece takes off.
    pub(crate) fn take_off(self: &Arc<Self>) -> Arrival {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Arrival(Arc::clone(self))
    }
    /// Whether nothing is under way right now.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }
    /// Waits until nothing is under way. Nothing may take off meanwhile.
    pub(crate) async fn all_landed(&self) {
        loop {
            let landed = self.landed.notified();
            if self.under_way.load(Ordering::Acquire) == 0 {
                return;
            }
            landed.await;
        }
    }
}

impl Clone for Arrival {
    fn clone(&self) -> Self {
        self.0.take_off()
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.landed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow_array::{Int64Array, RecordBatch};
    use towpath_core::{Delivery, Mark, Token, batch::PieceId, batch::Tracker};

    use super::*;

    struct Nobody;
    impl Tracker for Nobody {
        fn settled(&self, _: &PieceId, _: bool) {}
    }

    fn item(flight: &Arc<Flight>, rows: usize) -> Item {
        let column = Arc::new(Int64Array::from(vec![1; rows])) as arrow_array::ArrayRef;
        let piece = PieceId { source: "s".into(), seq: 0, mark: Mark::One(Token(0)) };
        let delivery = Delivery::new(piece, Arc::new(Nobody));
        let batch = Batch { rows: RecordBatch::try_from_iter([("a", column)]).unwrap(), delivery };
        Item::Rows { input: "s".into(), batch, arrival: flight.take_off() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_edge_is_bounded_by_bytes_and_a_giant_passes_alone() {
        let flight = Arc::new(Flight::default());
        let (tx, mut rx) = edge(64 * 1024);
        let wait = Duration::from_millis(10);
        for _ in 0..2 {
            tx.send(item(&flight, 4000)).await.unwrap(); // 31 permits each of 64
        }
        assert!(tokio::time::timeout(wait, tx.send(item(&flight, 4000))).await.is_err(), "no room for a third");
        drop(rx.recv().await);
        tx.send(item(&flight, 4000)).await.unwrap();
        drop((rx.recv().await, rx.recv().await));
        tx.send(item(&flight, 1_000_000)).await.unwrap();
        assert!(tokio::time::timeout(wait, tx.send(item(&flight, 1))).await.is_err(), "the giant takes all");
        drop(rx.recv().await);
        flight.all_landed().await;
    }
}
