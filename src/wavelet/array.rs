//! [`NdArray`]: what the transforms take and give.

use super::combine::Real;

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

    /// The part from index zero on that has the given shape, each axis of which is at most as long.
    pub(crate) fn cropped(self, shape: &[usize]) -> Self {
        if self.shape == shape {
            return self;
        }
        let mut out = Self::zeros(shape);
        copy_rows(&self.data, &self.shape, &mut out.data, shape, shape);
        out
    }

    /// The same values with zeros behind them along each axis, up to the given shape.
    pub(super) fn extended(self, shape: &[usize]) -> Self {
        if self.shape == shape {
            return self;
        }
        let mut out = Self::zeros(shape);
        copy_rows(&self.data, &self.shape, &mut out.data, shape, &self.shape);
        out
    }
}

/// Copies the corner of the given extent from one array to another.
fn copy_rows<T: Copy>(src: &[T], src_shape: &[usize], dst: &mut [T], dst_shape: &[usize], extent: &[usize]) {
    let Some((&run, outer)) = extent.split_last() else { return };
    // The place of the row-th row of the extent in an array of the given shape.
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
