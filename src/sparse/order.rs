//! The order of a tensor's rows, and the order in which layers compute.
//!
//! A convolution reads a row once for each of its neighbours in the grid, so neighbours should be close in memory. Rows in ascending or
//! Morton order of their sites are; shuffled rows, or rows in the order of a hash table, are not. For these, layers compute on copies in
//! ascending order of the sites, and put their results back.

use std::borrow::Cow;

use rayon::prelude::*;

/// The number of values copied together.
const CHUNK: usize = 1 << 14;

/// Rows that are further apart than this are not in the same cache.
const FAR: u32 = 1024;

/// The order of rows. A site has a rank (the number of sites before it) and a row in the tensor. Layers use a number for each site: its
/// rank if the rows are scattered, otherwise its row.
#[derive(Debug, Default)]
pub(crate) struct Order(Option<Permutation>);

#[derive(Debug)]
struct Permutation {
    /// The row of each rank.
    rows: Vec<u32>,
    /// The rank of each row, if the rows are scattered.
    ranks: Option<Vec<u32>>,
}

impl Order {
    /// The order of sites whose rows by rank are `rows`.
    pub fn new(rows: Vec<u32>) -> Self {
        let far = rows.par_windows(2).with_min_len(CHUNK).filter(|pair| pair[0].abs_diff(pair[1]) > FAR).count();
        let ranks = (2 * far > rows.len()).then(|| {
            let mut ranks = vec![0; rows.len()];
            rows.iter().zip(0..).for_each(|(&row, rank)| ranks[row as usize] = rank);
            ranks
        });
        Self(Some(Permutation { rows, ranks }))
    }

    /// The row of the site with this rank.
    #[inline]
    pub fn row_of_rank(&self, rank: u32) -> u32 {
        self.0.as_ref().map_or(rank, |permutation| permutation.rows[rank as usize])
    }

    /// The number of each rank; `None` if they are equal.
    pub fn numbers(&self) -> Option<&[u32]> {
        self.0.as_ref().filter(|permutation| permutation.ranks.is_none()).map(|permutation| &permutation.rows[..])
    }

    /// The row of each number; `None` if they are equal.
    pub fn rows(&self) -> Option<&[u32]> {
        self.0.as_ref().filter(|permutation| permutation.ranks.is_some()).map(|permutation| &permutation.rows[..])
    }

    /// Rows of `channels` values, put in the order of the numbers.
    pub fn by_number<'a, T: Copy + Default + Send + Sync>(&self, values: &'a [T], channels: usize) -> Cow<'a, [T]> {
        self.rows().map_or(values.into(), |rows| picked(values, channels, rows).into())
    }

    /// Rows in the order of the numbers, put back in the tensor's order.
    pub fn by_row<T: Copy + Default + Send + Sync>(&self, values: Vec<T>, channels: usize) -> Vec<T> {
        match &self.0 {
            Some(Permutation { ranks: Some(ranks), .. }) => picked(&values, channels, ranks),
            _ => values,
        }
    }

    /// Whether most neighbouring sites have rows that are far apart, so that numbers are not rows.
    pub fn is_scattered(&self) -> bool {
        self.rows().is_some()
    }

    #[cfg(test)]
    /// Whether rows are in ascending order of their sites.
    pub fn is_ascending(&self) -> bool {
        self.0.is_none()
    }
}

/// The rows with these numbers, one after another.
fn picked<T: Copy + Default + Send + Sync>(values: &[T], channels: usize, numbers: &[u32]) -> Vec<T> {
    let mut picked = vec![T::default(); numbers.len() * channels];
    let rows = CHUNK.div_ceil(channels);
    picked.par_chunks_mut(rows * channels).zip(numbers.par_chunks(rows)).for_each(|(picked, numbers)| {
        for (row, &number) in picked.chunks_exact_mut(channels).zip(numbers) {
            row.copy_from_slice(&values[number as usize * channels..][..channels]);
        }
    });
    picked
}
