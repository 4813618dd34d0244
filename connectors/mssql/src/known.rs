//! Hashes of rows that the target has, in bounded memory, so that those rows need not be sent again. Never the authority: what is not found here is
//! looked up by the publish.

use towpath_core::Size;

/// A table of hashes with linear probing; a hash is its own place. 16 bytes a slot, at most nine tenths of them in use.
#[derive(Debug, Default)]
pub(crate) struct KnownKeys {
    /// 0 is an empty slot; the one hash that is 0 is not remembered.
    slots: Vec<u128>,
    used: usize,
    most: usize,
}

/// The smallest table.
const FIRST: usize = 1 << 10;

impl KnownKeys {
    /// An empty one that may grow to `memory`.
    pub(crate) fn new(memory: Size) -> Self {
        Self { slots: vec![], used: 0, most: usize::try_from(memory.0 / 16).unwrap_or(usize::MAX) }
    }

    /// How many hashes it may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.most / 10 * 9
    }

    /// Whether the hash is here.
    pub(crate) fn has(&self, hash: u128) -> bool {
        !self.slots.is_empty() && self.slots.get(self.place(hash)) == Some(&hash) && hash != 0
    }

    /// Where the hash is, or would be.
    fn place(&self, hash: u128) -> usize {
        // The upper half, spread over the slots: a multiplication instead of a division.
        let mut at = (((hash >> 64) * self.slots.len() as u128) >> 64) as usize;
        loop {
            match self.slots.get(at) {
                Some(0) => return at,
                Some(other) if *other == hash => return at,
                Some(_) => at += 1,
                None => at = 0,
            }
        }
    }

    /// Remembers a hash, as long as there is room.
    pub(crate) fn add(&mut self, hash: u128) {
        if hash == 0 || (self.used + 1) * 10 > self.slots.len() * 9 && !self.grow() {
            return;
        }
        let at = self.place(hash);
        if let Some(slot) = self.slots.get_mut(at).filter(|slot| **slot == 0) {
            *slot = hash;
            self.used += 1;
        }
    }

    /// By a half; what is there is put anew. For a moment there are two tables, so the last step is kept within the limit.
    fn grow(&mut self) -> bool {
        let next = (self.slots.len() + self.slots.len() / 2).max(FIRST).min(self.most);
        if next <= self.slots.len() + self.slots.len() / 16 || next < 16 {
            return false;
        }
        let old = std::mem::replace(&mut self.slots, vec![0; next]);
        self.used = 0;
        old.into_iter().filter(|hash| *hash != 0).for_each(|hash| self.add(hash));
        true
    }
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
        assert!(!known.has(hash(1)));
        for n in 0..40_000 {
            known.add(hash(n));
            known.add(hash(n));
        }
        assert_eq!(known.used, 40_000);
        assert!((0..40_000).all(|n| known.has(hash(n))));
        assert!(!(40_000..80_000).any(|n| known.has(hash(n))));
    }

    #[test]
    fn memory_is_bounded() {
        for memory in [0, 100, 1 << 16] {
            let mut known = KnownKeys::new(Size(memory));
            (0..100_000).for_each(|n| known.add(hash(n)));
            assert!(known.slots.capacity() as u64 * 16 <= memory, "{memory}");
            assert!(known.used <= known.slots.len());
            let found = (0..100_000).filter(|n| known.has(hash(*n))).count();
            assert_eq!(found, known.used, "{memory}");
            known.add(0);
            assert!(!known.has(0));
        }
    }
}
