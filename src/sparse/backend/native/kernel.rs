//! The SIMD kernels: small matrix products over rows that are selected by number.
//!
//! [`multiply`] adds `A·B` to rows of a tile, where the rows of A and of the tile are scattered. A block of some rows times two vectors of
//! columns stays in registers over the whole depth; each A value is broadcast, and each B vector is loaded once for all rows. A is not
//! copied. [`outer`] adds `Aᵀ·B` over pairs of rows in the same way.

// Register blocks are easiest to read as two-dimensional arrays with indices.
#![allow(clippy::needless_range_loop)]

use pulp::Simd;

/// Rows of a register block. With AVX2, 6 rows of 2 vectors, 2 vectors of B and one broadcast fill 15 of 16 registers; with AVX-512, 12
/// rows fill 27 of 32.
const fn block_rows<S: Simd>() -> usize {
    if S::F32_LANES == 16 { 12 } else { 6 }
}

/// The widths of the panels into which `width` columns, a multiple of `lanes`, are cut: two vectors each, the last perhaps one.
pub(super) fn panels(width: usize, lanes: usize) -> impl Iterator<Item = usize> {
    (0..width).step_by(2 * lanes).map(move |first| (2 * lanes).min(width - first))
}

/// A matrix (depth, width) as consecutive [`panels`], padded with zeros.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub values: &'a [f32],
    pub depth: usize,
    pub width: usize,
}

/// The largest of some row numbers. It looks at all of them: a search that may stop early cannot use vectors, and takes as long as a
/// product of 16 channels.
#[inline(always)]
fn largest<T: Copy + Ord + Default + Into<u64>>(numbers: &[T]) -> usize {
    numbers.iter().fold(T::default(), |largest, &number| largest.max(number)).into() as usize
}

/// Row `targets[p]` of `tile` (rows of `width` floats) += row `sources[p]` of `a` (rows of `b.depth` floats) · `b`, for all p.
/// Targets are distinct.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    (a, sources): (&[f32], &[u32]),
    b: Panels,
    (tile, targets): (&mut [f32], &[u8]),
) {
    let (depth, width, whole) = (b.depth, b.width, 2 * S::F32_LANES);
    assert!(sources.len() == targets.len() && width.is_multiple_of(S::F32_LANES) && b.values.len() == depth * width);
    assert!(sources.is_empty() || (largest(sources) + 1) * depth <= a.len());
    assert!(targets.is_empty() || (largest(targets) + 1) * width <= tile.len());
    let (panel_length, count) = (depth * whole, width.div_ceil(whole));
    // Take as many panels at a time as stay in half of the L1 cache while all rows pass over them.
    let block = (16 * 1024 / 4 / panel_length).max(1);
    for first in (0..count).step_by(block) {
        let panels = first..(first + block).min(count);
        let mut p = 0;
        while p < sources.len() {
            let rows = block_rows::<S>().min(sources.len() - p);
            for panel in panels.clone() {
                // SAFETY: the assertions above bound every row of `a` and `tile`; `panel` is one of `b`'s.
                unsafe {
                    let b_panel = b.values.as_ptr().add(panel * panel_length);
                    let a_row = |i: usize| a.as_ptr().add(sources[p + i] as usize * depth);
                    let tile_rows = tile.as_mut_ptr();
                    let c_row = |i: usize| tile_rows.add(targets[p + i] as usize * width + panel * whole);
                    macro_rules! block {
                        ($($rows:literal)*) => {
                            match (rows, (panel + 1) * whole > width) {
                                $(
                                    ($rows, true) => multiply_block::<S, $rows, 1>(
                                        simd, depth, std::array::from_fn(a_row), b_panel, std::array::from_fn(c_row)),
                                    ($rows, false) => multiply_block::<S, $rows, 2>(
                                        simd, depth, std::array::from_fn(a_row), b_panel, std::array::from_fn(c_row)),
                                )*
                                _ => unreachable!("blocks have 1 to 12 rows"),
                            }
                        };
                    }
                    block!(1 2 3 4 5 6 7 8 9 10 11 12);
                }
            }
            p += rows;
        }
    }
}

/// Each `c` row (N vectors) += its `a` row (depth floats) · `b` (depth × N vectors).
#[inline(always)]
#[allow(clippy::needless_range_loop)] // rows and columns of a block, unrolled
unsafe fn multiply_block<S: Simd, const R: usize, const N: usize>(
    simd: S,
    depth: usize,
    a: [*const f32; R],
    b: *const f32,
    c: [*mut f32; R],
) {
    // SAFETY: the caller gives rows of `depth` floats in `a`, `depth · N` vectors in `b` and N vectors in `c`.
    unsafe {
        let mut sums = [[simd.splat_f32s(0.0); N]; R];
        for d in 0..depth {
            let columns: [S::f32s; N] = std::array::from_fn(|n| load::<S>(b.add((d * N + n) * S::F32_LANES)));
            for r in 0..R {
                let value = simd.splat_f32s(*a[r].add(d));
                for n in 0..N {
                    sums[r][n] = simd.mul_add_e_f32s(value, columns[n], sums[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                let place = c[r].add(n * S::F32_LANES);
                place.cast::<S::f32s>().write_unaligned(simd.add_f32s(load::<S>(place), sums[r][n]));
            }
        }
    }
}

/// `sums` (depth, width) += Σ_p row `sources[p]` of `a` (depth floats, `stride` apart) ⊗ row `targets[p]` of `tile` (width floats).
#[inline(always)]
pub(super) fn outer<S: Simd>(
    simd: S,
    (a, sources, stride): (&[f32], &[u32], usize),
    (tile, targets): (&[f32], &[u8]),
    [depth, width]: [usize; 2],
    sums: &mut [f32],
) {
    assert!(sources.len() == targets.len() && sums.len() == depth * width && width.is_multiple_of(S::F32_LANES));
    assert!(sources.is_empty() || largest(sources) * stride + depth <= a.len());
    assert!(targets.is_empty() || (largest(targets) + 1) * width <= tile.len());
    // Blocks have nearly equal height: a low last block would have too few sums to keep the multipliers busy.
    let height = depth.div_ceil(depth.div_ceil(block_rows::<S>()));
    for column in (0..width).step_by(2 * S::F32_LANES) {
        for d in (0..depth).step_by(height) {
            let rows = height.min(depth - d);
            // SAFETY: the assertions above bound every row of `a`, `tile` and `sums`.
            unsafe {
                let a = (a.as_ptr().add(d), sources, stride);
                let b = (tile.as_ptr().add(column), targets);
                let c = sums.as_mut_ptr().add(d * width + column);
                macro_rules! block {
                    ($($rows:literal)*) => {
                        match (rows, column + 2 * S::F32_LANES > width) {
                            $(
                                ($rows, true) => outer_block::<S, $rows, 1>(simd, a, b, c, width),
                                ($rows, false) => outer_block::<S, $rows, 2>(simd, a, b, c, width),
                            )*
                            _ => unreachable!("blocks have 1 to 12 rows"),
                        }
                    };
                }
                block!(1 2 3 4 5 6 7 8 9 10 11 12);
            }
        }
    }
}

/// `c` (R rows of N vectors, `width` floats apart) += Σ_p `a[sources[p]·stride ..][..R]` ⊗ `b[targets[p]·width ..][..N vectors]`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // rows and columns of a block, unrolled
unsafe fn outer_block<S: Simd, const R: usize, const N: usize>(
    simd: S,
    (a, sources, stride): (*const f32, &[u32], usize),
    (b, targets): (*const f32, &[u8]),
    c: *mut f32,
    width: usize,
) {
    // SAFETY: the caller bounds the rows that `sources` and `targets` name, and the block of `c`.
    unsafe {
        let mut sums = [[simd.splat_f32s(0.0); N]; R];
        for (&source, &target) in sources.iter().zip(targets) {
            let (a, b) = (a.add(source as usize * stride), b.add(target as usize * width));
            let columns: [S::f32s; N] = std::array::from_fn(|n| load::<S>(b.add(n * S::F32_LANES)));
            for r in 0..R {
                let value = simd.splat_f32s(*a.add(r));
                for n in 0..N {
                    sums[r][n] = simd.mul_add_e_f32s(value, columns[n], sums[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                let place = c.add(r * width + n * S::F32_LANES);
                place.cast::<S::f32s>().write_unaligned(simd.add_f32s(load::<S>(place), sums[r][n]));
            }
        }
    }
}

#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: the caller gives a whole vector's worth of floats; vectors are plain data.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}
