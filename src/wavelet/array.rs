//! [`NdArray`]: the input and output of the transforms.

use std::mem::MaybeUninit;

use super::combine::Real;
use crate::allocator;

/// A dense array in C order (the last axis is contiguous).
#[derive(Clone, Debug, PartialEq)]
pub struct NdArray<T> {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Product of `shape` values.
    pub data: Vec<T>,
}

impl<T: Real> NdArray<T> {
    pub(super) fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![T::default(); shape.iter().product()] }
    }

    /// `count` arrays with this shape. `write` gets them cut into parts, the first parts of all arrays first; parts that it does not write
    /// become zero. The arrays are cut every `cuts[0]` values, and each piece every `cuts[1]` (the last piece may be shorter).
    pub(super) fn in_parts(
        shape: &[usize],
        count: usize,
        cuts: [usize; 2],
        write: impl FnOnce(Vec<Vec<Fresh<'_, T>>>),
    ) -> Vec<Self> {
        let values = shape.iter().product();
        let mut arrays: Vec<Vec<T>> = (0..count).map(|_| allocator::room(values)).collect();
        let mut pieces: Vec<_> = arrays
            .iter_mut()
            .map(|data| {
                let slabs = data.spare_capacity_mut()[..values].chunks_mut(cuts[0]);
                slabs.flat_map(|slab| slab.chunks_mut(cuts[1]))
            })
            .collect();
        let part = || pieces.iter_mut().map(|pieces| Some(Fresh(Some(pieces.next()?)))).collect::<Option<Vec<_>>>();
        write(std::iter::from_fn(part).collect());
        let whole = |mut data: Vec<T>| {
            // SAFETY: the parts cover all values, and each was written by `Fresh::zeros` or when it was dropped.
            unsafe { data.set_len(values) };
            Self { shape: shape.to_vec(), data }
        };
        arrays.into_iter().map(whole).collect()
    }

    /// The corner with the given shape, from index zero on. No axis of it may be longer than that of the array.
    pub(crate) fn cropped(self, shape: &[usize]) -> Self {
        if self.shape == shape {
            return self;
        }
        let mut out = Self::zeros(shape);
        copy_rows(&self.data, &self.shape, &mut out.data, shape, shape);
        out
    }

    /// The same values, followed by zeros along each axis up to the given shape.
    pub(super) fn extended(self, shape: &[usize]) -> Self {
        if self.shape == shape {
            return self;
        }
        let mut out = Self::zeros(shape);
        copy_rows(&self.data, &self.shape, &mut out.data, shape, &self.shape);
        out
    }
}

/// A part of an array that nothing has written yet. It is cleared just before it is written, so that it is in cache then, or at the latest
/// when it is dropped.
pub(super) struct Fresh<'a, T: Real>(Option<&'a mut [MaybeUninit<T>]>);

impl<'a, T: Real> Fresh<'a, T> {
    /// The part, cleared.
    pub fn zeros(mut self) -> &'a mut [T] {
        self.0.take().map(cleared).unwrap_or_default()
    }
}

impl<T: Real> Drop for Fresh<'_, T> {
    fn drop(&mut self) {
        self.0.take().map(cleared);
    }
}

fn cleared<T: Real>(part: &mut [MaybeUninit<T>]) -> &mut [T] {
    part.fill(MaybeUninit::new(T::default()));
    // SAFETY: every value was just written.
    unsafe { part.assume_init_mut() }
}

/// Copies the corner of the given extent from one array to another.
fn copy_rows<T: Copy>(src: &[T], src_shape: &[usize], dst: &mut [T], dst_shape: &[usize], extent: &[usize]) {
    let Some((&run, outer)) = extent.split_last() else { return };
    // The index of row number `row` of the extent in an array of the given shape.
    let place = |row: usize, shape: &[usize]| {
        let (mut rest, mut place, mut stride) = (row, 0, shape[outer.len()]);
        for axis in (0..outer.len()).rev() {
            place += rest % outer[axis] * stride;
            rest /= outer[axis];
            stride *= shape[axis];
        }
        place
    };
    for row in 0..outer.iter().product() {
        let (from, to) = (place(row, src_shape), place(row, dst_shape));
        dst[to..to + run].copy_from_slice(&src[from..from + run]);
    }
}
