//! Finds the row of a site by a bitmap with popcount ranks.
//!
//! Packed sites are cut into words of 64 neighbouring cells. A word holds one bit for each cell and the number of sites before it, so the
//! rank of a site takes one load, one mask and one popcount; neighbours along x share the load. On small grids the words are an array. On
//! large, mostly empty grids only the occupied words are kept, behind an open-addressing table. Neither depends on the order in which
//! threads run.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::order::Order;

/// 64 cells: which of them are occupied, and how many sites come before all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Word {
    pub bits: u64,
    pub rank: u32,
}

impl Word {
    /// The rank of the cell `bit` of this word, if it is occupied.
    #[inline(always)]
    pub fn rank_of(self, bit: u32) -> Option<u32> {
        let here = 1u64 << bit;
        (self.bits & here != 0).then(|| self.rank + (self.bits & (here - 1)).count_ones())
    }
}

/// Where a word is stored.
#[derive(Debug)]
enum Index {
    /// Word `w` of the grid is `words[w]`.
    Array(Vec<Word>),
    /// Only occupied words, ascending; `slots` (a power of two) holds positions in `words`, linear probing.
    Table { slots: Vec<AtomicU32>, words: Vec<(u64, Word)> },
}

/// Row numbers by packed site.
#[derive(Debug)]
pub(crate) struct Lookup {
    index: Index,
    order: Order,
}

/// Two rows hold the same site.
#[derive(Debug)]
pub(crate) struct Duplicate {
    pub first: usize,
    pub second: usize,
}

const EMPTY: u32 = u32::MAX;
const CHUNK: usize = 1 << 14;

impl Lookup {
    /// Indexes `keys` (row → packed site) of a grid of `cells` cells.
    pub fn new(keys: &[u64], cells: u64) -> Result<Self, Duplicate> {
        let ascending = keys.par_windows(2).with_min_len(CHUNK).all(|pair| pair[0] < pair[1]);
        // The array of words may cost as much as the sites themselves: 4 words of 16 bytes each.
        if cells.div_ceil(64) <= (1 << 16) + 4 * keys.len() as u64 {
            Self::array(keys, cells, ascending)
        } else {
            Self::table(keys, ascending)
        }
    }

    /// Indexes keys that are known to be ascending and distinct.
    pub fn distinct(keys: &[u64], cells: u64) -> Self {
        Self::new(keys, cells).expect("distinct keys hold no site twice")
    }

    /// A lookup over the ascending sites of a bitmap, and the keys of those sites.
    pub fn from_bitmap(bits: Vec<u64>) -> (Self, Vec<u64>) {
        let words = ranked(bits);
        let count = words.last().map_or(0, |word| word.rank + word.bits.count_ones());
        let mut keys = Vec::with_capacity(count as usize);
        for (w, word) in words.iter().enumerate() {
            let mut bits = word.bits;
            while bits != 0 {
                keys.push(w as u64 * 64 + bits.trailing_zeros() as u64);
                bits &= bits - 1;
            }
        }
        (Self { index: Index::Array(words), order: Order::default() }, keys)
    }

    fn array(keys: &[u64], cells: u64, ascending: bool) -> Result<Self, Duplicate> {
        if ascending {
            // A single thread is faster than several that must agree on who writes.
            let mut bits = vec![0; cells.div_ceil(64) as usize];
            keys.iter().for_each(|key| bits[(key / 64) as usize] |= 1 << (key % 64));
            return Ok(Self { index: Index::Array(ranked(bits)), order: Order::default() });
        }
        let bits: Vec<AtomicU64> = (0..cells.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let clash = keys.par_iter().with_min_len(CHUNK).any(|key| {
            let here = 1u64 << (key % 64);
            bits[(key / 64) as usize].fetch_or(here, Relaxed) & here != 0
        });
        if clash {
            return Err(first_duplicate(keys));
        }
        let words = ranked(bits.into_iter().map(AtomicU64::into_inner).collect());
        let mut lookup = Self { index: Index::Array(words), order: Order::default() };
        let rows: Vec<AtomicU32> = keys.iter().map(|_| AtomicU32::new(0)).collect();
        keys.par_iter().with_min_len(CHUNK).enumerate().for_each(|(row, &key)| {
            if let Some(rank) = lookup.word(key / 64).rank_of((key % 64) as u32) {
                rows[rank as usize].store(row as u32, Relaxed);
            }
        });
        lookup.order = Order::new(rows.into_iter().map(AtomicU32::into_inner).collect());
        Ok(lookup)
    }

    fn table(keys: &[u64], ascending: bool) -> Result<Self, Duplicate> {
        let order = if ascending {
            Order::default()
        } else {
            let mut order: Vec<u32> = (0..keys.len() as u32).collect();
            order.par_sort_unstable_by_key(|&row| keys[row as usize]);
            if order.par_windows(2).any(|pair| keys[pair[0] as usize] == keys[pair[1] as usize]) {
                return Err(first_duplicate(keys));
            }
            Order::new(order)
        };
        let mut words: Vec<(u64, Word)> = Vec::new();
        for rank in 0..keys.len() {
            let key = keys[order.row_of_rank(rank as u32) as usize];
            let bit = 1u64 << (key % 64);
            match words.last_mut() {
                Some((w, word)) if *w == key / 64 => word.bits |= bit,
                _ => words.push((key / 64, Word { bits: bit, rank: rank as u32 })),
            }
        }
        let slots: Vec<AtomicU32> = (0..(2 * words.len()).next_power_of_two()).map(|_| AtomicU32::new(EMPTY)).collect();
        words.par_iter().with_min_len(CHUNK).enumerate().for_each(|(position, (w, _))| {
            let mut slot = first_slot(*w, slots.len());
            while slots[slot].compare_exchange(EMPTY, position as u32, Relaxed, Relaxed).is_err() {
                slot = (slot + 1) & (slots.len() - 1);
            }
        });
        Ok(Self { index: Index::Table { slots, words }, order })
    }

    /// Word `w` of the grid (cells 64·w to 64·w + 63).
    #[inline(always)]
    pub fn word(&self, w: u64) -> Word {
        match &self.index {
            Index::Array(words) => words.get(w as usize).copied().unwrap_or_default(),
            Index::Table { slots, words } => {
                let mut slot = first_slot(w, slots.len());
                loop {
                    match slots[slot].load(Relaxed) {
                        EMPTY => return Word::default(),
                        position if words[position as usize].0 == w => return words[position as usize].1,
                        _ => slot = (slot + 1) & (slots.len() - 1),
                    }
                }
            }
        }
    }

    /// The order of the rows.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The row of a packed site, if it is occupied.
    #[inline]
    pub fn find(&self, key: u64) -> Option<u32> {
        self.word(key / 64).rank_of((key % 64) as u32).map(|rank| self.order.row_of_rank(rank))
    }

    #[cfg(test)]
    /// How sites are found, as text for users: `bitmap` or `hash table`.
    pub fn kind(&self) -> &'static str {
        match self.index {
            Index::Array(_) => "bitmap",
            Index::Table { .. } => "hash table",
        }
    }
}

fn ranked(bits: Vec<u64>) -> Vec<Word> {
    let mut rank = 0;
    let next = |bits: u64| {
        let word = Word { bits, rank };
        rank += bits.count_ones();
        word
    };
    bits.into_iter().map(next).collect()
}

/// Fibonacci hashing: the high bits of a product with 2^64/φ.
#[inline(always)]
fn first_slot(w: u64, slots: usize) -> usize {
    (w.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & (slots - 1)
}

/// The first row whose site an earlier row has too. Call it only if there is one.
fn first_duplicate(keys: &[u64]) -> Duplicate {
    let mut seen = std::collections::HashMap::new();
    for (second, key) in keys.iter().enumerate() {
        if let Some(first) = seen.insert(key, second) {
            return Duplicate { first, second };
        }
    }
    unreachable!("called for keys with a duplicate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

    #[test]
    fn every_site_is_found_at_its_row_and_nothing_else() {
        let mut rng = StdRng::seed_from_u64(1);
        for (cells, count) in [(1u64, 1), (100, 60), (1 << 20, 5000), (1 << 50, 5000)] {
            let mut keys: Vec<u64> = (0..count).map(|_| rng.random_range(0..cells)).collect();
            keys.sort_unstable();
            keys.dedup();
            for shuffled in [false, true] {
                if shuffled {
                    keys.shuffle(&mut rng);
                }
                let lookup = Lookup::new(&keys, cells).unwrap();
                assert_eq!(lookup.order().is_ascending(), keys.is_sorted());
                assert!(keys.iter().enumerate().all(|(row, &key)| lookup.find(key) == Some(row as u32)));
                let rows: std::collections::HashSet<_> = keys.iter().collect();
                let absent = (0..2000).map(|_| rng.random_range(0..cells)).filter(|key| !rows.contains(key));
                assert!(absent.into_iter().all(|key| lookup.find(key).is_none()));
            }
        }
        assert_eq!(Lookup::new(&[5], 64).unwrap().kind(), "bitmap");
        assert_eq!(Lookup::new(&[5], 1 << 40).unwrap().kind(), "hash table");
    }

    #[test]
    fn duplicates_are_named_by_their_rows() {
        for cells in [64, 1 << 50] {
            let clash = Lookup::new(&[9, 3, 7, 3], cells).unwrap_err();
            assert_eq!((clash.first, clash.second), (1, 3));
        }
    }

    #[test]
    fn a_bitmap_lists_its_sites_in_ascending_order() {
        let (lookup, keys) = Lookup::from_bitmap(vec![0b1010, 0, 1 << 63]);
        assert_eq!(keys, [1, 3, 191]);
        assert_eq!(lookup.find(191), Some(2));
    }
}
