//! Hashes of rows that the target has, in bounded memory, so that those rows need not be sent again. Never the authority: what is not found here is
//! looked up by the publish.

use towpath_core::Size;

/// Tables of so many parts, each of which grows by itself: so there is never a second one of everything.
const SHARDS: usize = 64;
/// The smallest part.
const FIRST: usize = 16;

/// A set of hashes: tables with linear probing; a hash is its own place. 16 bytes a slot, at most nine tenths of them in use.
#[derive(Debug, Default)]
pub(crate) struct KnownKeys {
    /// By the first bits of the hash. 0 is an empty slot; the one hash that is 0 is not remembered.
    shards: Vec<Shard>,
    /// Slots of a shard.
    most: usize,
    /// Spreads the hashes over the slots.
    mix: u64,
}

/// How the hashes of the target are spread, and how those that are put to them later: in another order, because a table that is filled in the order of its
/// own slots while it grows is one long cluster. An index gives hashes in their own order, which is neither.
pub(crate) const OF_TARGET: u64 = 0x9e37_79b9_7f4a_7c15;
pub(crate) const OF_STAGING: u64 = 0xd6e8_feb8_6659_fd93;

#[derive(Debug, Default)]
struct Shard {
    slots: Vec<u128>,
    used: usize,
}

impl KnownKeys {
    /// An empty one that may grow to `memory`; `mix` is an odd number.
    pub(crate) fn new(memory: Size, mix: u64) -> Self {
        let most = usize::try_from(memory.0 / 16).unwrap_or(usize::MAX) / SHARDS;
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), most, mix }
    }

    /// How many hashes it may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.most.saturating_mul(SHARDS) / 10 * 9
    }

    /// How many it holds.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.used).sum()
    }

    /// Whether the hash is here.
    pub(crate) fn has(&self, hash: u128) -> bool {
        self.shards.get(shard(hash)).is_some_and(|shard| shard.has(hash, self.mix))
    }

    /// Remembers a hash, as long as there is room. False: it was here already, or is not now.
    pub(crate) fn add(&mut self, hash: u128) -> bool {
        let (most, mix) = (self.most, self.mix);
        hash != 0 && self.shards.get_mut(shard(hash)).is_some_and(|shard| shard.add(hash, most, mix))
    }

    /// All of them; afterwards it is empty, and holds no memory.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = u128> + '_ {
        self.shards.iter_mut().flat_map(|shard| std::mem::take(shard).slots).filter(|hash| *hash != 0)
    }
}

/// Which shard a hash belongs to.
fn shard(hash: u128) -> usize {
    (hash >> (128 - SHARDS.trailing_zeros())) as usize
}

impl Shard {
    fn has(&self, hash: u128, mix: u64) -> bool {
        !self.slots.is_empty() && self.slots.get(self.place(hash, mix)) == Some(&hash) && hash != 0
    }

    /// Where the hash is, or would be.
    fn place(&self, hash: u128, mix: u64) -> usize {
        // The product's upper bits depend on all of the lower half of the hash; then a multiplication instead of a division.
        let bits = (hash as u64).wrapping_mul(mix);
        let mut at = ((u128::from(bits) * self.slots.len() as u128) >> 64) as usize;
        loop {
            match self.slots.get(at) {
                Some(0) => return at,
                Some(other) if *other == hash => return at,
                Some(_) => at += 1,
                None => at = 0,
            }
        }
    }

    fn add(&mut self, hash: u128, most: usize, mix: u64) -> bool {
        if (self.used + 1) * 10 > self.slots.len() * 9 && !self.grow(most, mix) {
            return false;
        }
        let at = self.place(hash, mix);
        let Some(slot) = self.slots.get_mut(at).filter(|slot| **slot == 0) else { return false };
        *slot = hash;
        self.used += 1;
        true
    }

    /// By a quarter; what is there is put anew.
    fn grow(&mut self, most: usize, mix: u64) -> bool {
        let next = (self.slots.len() + (self.slots.len() / 4).max(FIRST)).min(most);
        if next <= self.slots.len() + self.slots.len() / 16 || next < 2 {
            return false;
        }
        let old = std::mem::replace(&mut self.slots, vec![0; next]);
        self.used = 0;
        for hash in old.into_iter().filter(|hash| *hash != 0) {
            self.add(hash, most, mix);
        }
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
        let mut known = KnownKeys::new(Size(1 << 20), OF_TARGET);
        assert!(!known.has(hash(1)));
        for n in 0..40_000 {
            known.add(hash(n));
            known.add(hash(n));
        }
        assert_eq!(known.len(), 40_000);
        assert!((0..40_000).all(|n| known.has(hash(n))));
        assert!(!(40_000..80_000).any(|n| known.has(hash(n))));
        assert!(!known.add(hash(7)) && known.add(hash(40_000)) && !known.add(0));
        let mut all: Vec<_> = known.drain().collect();
        all.sort_unstable();
        let mut expect: Vec<_> = (0..=40_000).map(hash).collect();
        expect.sort_unstable();
        assert_eq!(all, expect);
        assert_eq!((known.len(), known.has(hash(1))), (0, false));
    }

    /// How far hashes are from their places, all together.
    fn strayed(known: &KnownKeys) -> usize {
        let slots = known.shards.iter().flat_map(|shard| shard.slots.iter().enumerate().map(move |at| (shard, at)));
        let far = slots.filter(|(_, (_, hash))| **hash != 0).map(|(shard, (at, hash))| {
            let bits = u128::from((*hash as u64).wrapping_mul(known.mix));
            let home = ((bits * shard.slots.len() as u128) >> 64) as usize;
            (at + shard.slots.len() - home) % shard.slots.len()
        });
        far.sum()
    }

    #[test]
    fn hashes_stay_near_their_places_in_whatever_order_they_come() {
        let mut sorted: Vec<_> = (0..200_000).map(hash).collect();
        sorted.sort_unstable();
        let of = |hashes: &mut dyn Iterator<Item = u128>, mix| {
            let mut known = KnownKeys::new(Size(8 << 20), mix);
            // Where it is filled in the order of its slots, what strays most are those it has before it grows.
            let mut worst = 0;
            for (at, hash) in hashes.enumerate() {
                known.add(hash);
                if at % 10_000 == 0 {
                    worst = worst.max(strayed(&known) / (at + 1));
                }
            }
            (known, worst)
        };
        let (mut staged, worst) = of(&mut sorted.iter().copied(), OF_STAGING);
        assert!(worst < 10, "{worst}");
        let (_, worst) = of(&mut staged.drain(), OF_TARGET);
        assert!(worst < 10, "{worst}");
    }

    #[test]
    fn memory_is_bounded() {
        for memory in [0, 100, 1 << 16] {
            let mut known = KnownKeys::new(Size(memory), OF_TARGET);
            for n in 0..100_000 {
                known.add(hash(n));
            }
            let slots: usize = known.shards.iter().map(|shard| shard.slots.capacity()).sum();
            assert!(slots as u64 * 16 <= memory, "{memory}");
            assert!(known.len() <= slots);
            let found = (0..100_000).filter(|n| known.has(hash(*n))).count();
            assert_eq!(found, known.len(), "{memory}");
            assert!(!known.has(0));
        }
    }
}
