//! Work on all cores, for functions that are compiled for many types.
//!
//! rayon's machinery is large, and the compiler makes it for each caller's closure. Here the closure is no type parameter, so it is made
//! once for each type of values. A single piece of work is done by its caller: to wake another thread takes longer than most of them.

use rayon::prelude::*;

/// `[work(0), work(1), …]`, with `count` results.
pub fn map<R: Send>(count: usize, work: &(dyn Fn(usize) -> R + Sync)) -> Vec<R> {
    if count <= 1 {
        return (0..count).map(work).collect();
    }
    (0..count).into_par_iter().map(work).collect()
}

/// Calls `work(number, chunk)` for each chunk of `size` values; the last one may be shorter.
pub fn chunks_mut<T: Send>(values: &mut [T], size: usize, work: &(dyn Fn(usize, &mut [T]) + Sync)) {
    if values.len() <= size {
        return values.chunks_mut(size).for_each(|chunk| work(0, chunk));
    }
    values.par_chunks_mut(size).enumerate().for_each(|(number, chunk)| work(number, chunk));
}

/// The same, with working memory that calls on one thread share.
pub fn chunks_mut_with<S: Default, T: Send>(
    values: &mut [T],
    size: usize,
    work: &(dyn Fn(&mut S, usize, &mut [T]) + Sync),
) {
    if values.len() <= size {
        return values.chunks_mut(size).for_each(|chunk| work(&mut S::default(), 0, chunk));
    }
    let chunks = values.par_chunks_mut(size).enumerate();
    chunks.for_each_init(S::default, |memory, (number, chunk)| work(memory, number, chunk));
}
