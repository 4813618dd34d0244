//! Keys that need not be sent: those that the target has, as far as they are remembered, and those staged already. Bounded memory, and never the
//! authority: what is not found here is looked up by the publish.

use towpath_core::Size;

/// Keys of a bucket: a line of the processor's cache.
const WAYS: usize = 8;
/// With no more room than that, a bucket shares its keys with another one.
const CROWDED: usize = 3;
/// As many keys as are looked up together.
pub(crate) const TOGETHER: usize = 16;
/// A slot without a key.
const FREE: u64 = 0;
/// Marks a key that is staged and not committed yet.
const STAGED: u64 = 1;
/// A slot whose key was forgotten before a commit: there is room, and there was less.
const GONE: u64 = STAGED;

/// A set of 128-bit hashes. The upper half says in which of two buckets a key is kept: the first, or once that is crowded the one with more room. The
/// lower half, but for a bit, is kept there. Two keys are taken for one if all of that is the same: once in 10¹⁷ rows that are looked up, at most.
///
/// When there is no room, an older key makes it, but never one that is not committed.
#[derive(Debug, Default)]
pub(crate) struct KnownKeys {
    slots: Vec<u64>,
    staged: bool,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It was not here, and is now.
    New,
    /// It was here.
    Known,
    /// It was not here, and there is no room for it.
    Forgotten,
}

impl KnownKeys {
    /// An empty one. It takes `memory` as it fills.
    pub(crate) fn new(memory: Size) -> Self {
        Self { slots: vec![FREE; slots(memory)], staged: false }
    }

    /// How many keys of the target are worth loading into so much memory: some room is left.
    pub(crate) fn worth_loading(memory: Size) -> usize {
        slots(memory) / 4 * 3
    }

    /// The buckets in which a key may stand.
    fn buckets(&self, hash: u128) -> [usize; 2] {
        let buckets = (self.slots.len() / WAYS) as u64;
        let of = |bits: u128| ((u64::from(bits as u32) * buckets) >> 32) as usize * WAYS;
        [of(hash >> 96), of(hash >> 64)]
    }

    /// Has the memory where keys may stand brought near, all at once: one after the other, each is waited for.
    pub(crate) fn warm(&self, hashes: &[u128]) {
        let slots = hashes.iter().filter_map(|hash| self.slots.get(self.buckets(*hash)[0]));
        std::hint::black_box(slots.fold(0, |all, slot| all ^ slot));
    }

    /// Remembers a key that the target has.
    pub(crate) fn learn(&mut self, hash: u128) {
        self.put(hash, 0);
    }

    /// Remembers a key that is about to be staged.
    pub(crate) fn stage(&mut self, hash: u128) -> Added {
        self.staged = true;
        self.put(hash, STAGED)
    }

    fn put(&mut self, hash: u128, mark: u64) -> Added {
        let kept = kept(hash);
        // A place in the bucket with more room; or that of an older key, by its turn.
        let (mut room, mut most, mut older) = (None, 0, None);
        let turn = hash as usize % WAYS;
        for bucket in self.buckets(hash) {
            let Some(slots) = self.slots.get(bucket..bucket + WAYS) else { return Added::Forgotten };
            let (mut place, mut free, mut gone) = (None, 0, 0);
            for (at, slot) in slots.iter().enumerate() {
                match *slot {
                    FREE => (place, free) = (Some(bucket + at), free + 1),
                    GONE => (place, gone) = (place.or(Some(bucket + at)), gone + 1),
                    other if other & !STAGED == kept => return Added::Known,
                    other if other & STAGED == 0 && (older.is_none() || at == turn) => older = Some(bucket + at),
                    _ => {}
                }
            }
            if free + gone > most {
                (room, most) = (place, free + gone);
            }
            if free > CROWDED {
                // No key has gone on to the second bucket yet.
                break;
            }
        }
        match room.or(older).and_then(|at| self.slots.get_mut(at)) {
            Some(slot) => {
                *slot = kept | mark;
                Added::New
            }
            None => Added::Forgotten,
        }
    }

    /// Forgets a key: its row was refused.
    pub(crate) fn forget(&mut self, hash: u128) {
        for bucket in self.buckets(hash) {
            let slots = self.slots.get_mut(bucket..bucket + WAYS).into_iter().flatten();
            slots.filter(|slot| **slot & !STAGED == kept(hash)).for_each(|slot| *slot = GONE);
        }
    }

    /// What is staged is in the target now.
    pub(crate) fn commit(&mut self) {
        if std::mem::take(&mut self.staged) {
            // Where one was forgotten, a key in the second bucket may no longer be found: it is committed, so the publish knows it.
            self.slots.iter_mut().for_each(|slot| *slot &= !STAGED);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.staged) {
            self.slots.fill(FREE);
        }
    }

    /// How many it holds.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.iter().filter(|slot| **slot & !STAGED != FREE).count()
    }
}

fn slots(memory: Size) -> usize {
    usize::try_from(memory.0).unwrap_or(usize::MAX) / (WAYS * size_of::<u64>()) * WAYS
}

/// What is kept of a key: not free, and not marked.
fn kept(hash: u128) -> u64 {
    let kept = hash as u64 & !STAGED;
    if kept == FREE { !STAGED } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed sequence of hashes.
    fn hash(n: u128) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes())
    }

    #[test]
    fn what_is_remembered_is_found_and_nothing_else() {
        let mut known = KnownKeys::new(Size(1 << 20));
        // Half of what there is room for.
        let mut find = |from: u128, expect| {
            for n in from..from + 60_000 {
                assert_eq!(known.stage(hash(n)), expect, "{n}");
            }
            known.commit();
        };
        find(0, Added::New);
        find(0, Added::Known);
        assert_eq!(known.len(), 60_000);
        known.forget(hash(7));
        assert_eq!((known.len(), known.stage(hash(7)), known.stage(hash(7))), (59_999, Added::New, Added::Known));
        // Hashes like what marks a slot.
        for odd in [0, 2, 4] {
            assert_eq!((known.stage(odd), known.stage(odd)), (Added::New, Added::Known), "{odd}");
        }
        known.clear();
        assert_eq!((known.len(), known.stage(hash(1))), (0, Added::New));
    }

    #[test]
    fn the_older_ones_make_room_but_not_those_that_are_not_committed() {
        let mut known = KnownKeys::new(Size(1 << 16));
        (0..100_000).for_each(|n| known.learn(hash(n)));
        assert_eq!(known.len(), known.slots.len());
        assert_eq!(known.stage(hash(99_999)), Added::Known);
        let fates: Vec<_> = (200_000..300_000).map(|n| known.stage(hash(n))).collect();
        assert!(fates.contains(&Added::Forgotten) && !fates.contains(&Added::Known));
        // Each of them is still known, or was not remembered in the first place.
        for (n, fate) in (200_000..).zip(&fates) {
            let again = known.stage(hash(n));
            assert_eq!(again, if *fate == Added::New { Added::Known } else { Added::Forgotten }, "{n}");
        }
        known.commit();
        assert_eq!(known.stage(hash(400_000)), Added::New);
    }

    #[test]
    fn what_is_staged_is_found_whatever_is_forgotten_beside_it() {
        let mut known = KnownKeys::new(Size(1 << 16));
        // Two keys of three are staged and forgotten again, so that crowded buckets have gaps.
        for n in 0..12_000 {
            assert_eq!(known.stage(hash(n)), Added::New, "{n}");
            if n % 3 != 0 {
                known.forget(hash(n));
            }
        }
        for n in 0..12_000 {
            assert_eq!(known.stage(hash(n)), if n % 3 == 0 { Added::Known } else { Added::New }, "{n}");
            known.forget(hash(n));
        }
    }

    #[test]
    fn nothing_staged_is_forgotten_where_half_of_the_room_is_left() {
        let mut known = KnownKeys::new(Size(1 << 20));
        (0..65_000).for_each(|n| known.learn(hash(n)));
        assert!((200_000..250_000).all(|n| known.stage(hash(n)) == Added::New));
    }

    #[test]
    fn memory_is_bounded() {
        for memory in [0, 100, 1 << 16] {
            let mut known = KnownKeys::new(Size(memory));
            (0..100_000).for_each(|n| known.learn(hash(n)));
            assert!(
                known.slots.capacity() as u64 * 8 <= memory
                    && KnownKeys::worth_loading(Size(memory)) <= known.slots.len(),
                "{memory}"
            );
            if known.slots.is_empty() {
                assert_eq!(known.stage(hash(1)), Added::Forgotten);
            }
        }
    }
}
