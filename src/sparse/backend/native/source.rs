//! The rows that a convolution reads, in f32: the features themselves, or copies of the rows that a tile needs.

use std::borrow::Cow;

use candle_core::{CpuStorage, Layout};
use half::{bf16, f16};

use super::element::{Element, values};
use crate::Result;
use crate::sparse::order::Order;

/// The input rows of a convolution.
pub(super) trait Source: Sync {
    /// Whether rows are read in place; otherwise every request copies them.
    const IN_PLACE: bool;

    /// Channels of a row.
    fn channels(&self) -> usize;

    /// The rows with these `numbers`, and where each of them is among the returned rows.
    fn rows<'a>(&'a self, numbers: &'a [u32], scratch: &'a mut Rows) -> (&'a [f32], &'a [u32]);
}

/// Features (rows, channels) in the order of their numbers.
pub(super) struct Features<'a, T: Clone> {
    values: Cow<'a, [T]>,
    channels: usize,
}

impl<'a, T: Element> Features<'a, T> {
    /// Features whose rows have this order.
    pub fn new(values: &'a [T], channels: usize, order: &Order) -> Self {
        Self { values: order.by_number(values, channels), channels }
    }

    fn widen(&self, number: u32, row: &mut [f32]) {
        T::widen(&self.values[number as usize * self.channels..][..self.channels], row);
    }
}

impl<T: Element> Source for Features<'_, T> {
    const IN_PLACE: bool = T::IS_F32;

    fn channels(&self) -> usize {
        self.channels
    }

    fn rows<'a>(&'a self, numbers: &'a [u32], scratch: &'a mut Rows) -> (&'a [f32], &'a [u32]) {
        if T::IS_F32 {
            return (T::as_f32(&self.values), numbers);
        }
        scratch.copies(numbers, self.channels, |number, row| self.widen(number, row))
    }
}

/// Features whose type is checked for every row, which is cheap where rows are copied anyway.
pub(super) enum AnyFeatures<'a> {
    F32(Features<'a, f32>),
    F16(Features<'a, f16>),
    BF16(Features<'a, bf16>),
}

impl<'a> AnyFeatures<'a> {
    /// Features from a contiguous tensor (rows, channels) whose rows have this order.
    pub fn new(storage: &'a CpuStorage, layout: &Layout, order: &Order) -> Result<Self> {
        let channels = layout.dims()[1];
        Ok(match storage {
            CpuStorage::F16(_) => Self::F16(Features::new(values(storage, layout)?, channels, order)),
            CpuStorage::BF16(_) => Self::BF16(Features::new(values(storage, layout)?, channels, order)),
            _ => Self::F32(Features::new(values(storage, layout)?, channels, order)),
        })
    }

    fn channels(&self) -> usize {
        match self {
            Self::F32(features) => features.channels,
            Self::F16(features) => features.channels,
            Self::BF16(features) => features.channels,
        }
    }

    fn widen(&self, number: u32, row: &mut [f32]) {
        match self {
            Self::F32(features) => features.widen(number, row),
            Self::F16(features) => features.widen(number, row),
            Self::BF16(features) => features.widen(number, row),
        }
    }
}

/// Features of the same sites in two tensors: each row is that of the first tensor followed by that of the second.
pub(super) struct Joined<'a>(pub [AnyFeatures<'a>; 2]);

impl Source for Joined<'_> {
    const IN_PLACE: bool = false;

    fn channels(&self) -> usize {
        self.0.iter().map(AnyFeatures::channels).sum()
    }

    fn rows<'a>(&'a self, numbers: &'a [u32], scratch: &'a mut Rows) -> (&'a [f32], &'a [u32]) {
        let [first, second] = &self.0;
        scratch.copies(numbers, self.channels(), |number, row| {
            let (left, right) = row.split_at_mut(first.channels());
            first.widen(number, left);
            second.widen(number, right);
        })
    }
}

/// Memory for copied rows.
#[derive(Default)]
pub(super) struct Rows {
    values: Vec<f32>,
    numbers: Vec<u32>,
}

impl Rows {
    /// The rows that `copy` makes for `numbers`, in their order. This is compiled separately: inside a kernel for the widest vectors, rows
    /// with few channels would be converted one value at a time.
    #[inline(never)]
    fn copies(&mut self, numbers: &[u32], channels: usize, copy: impl Fn(u32, &mut [f32])) -> (&[f32], &[u32]) {
        self.values.resize(numbers.len() * channels, 0.0);
        for (row, &number) in self.values.chunks_exact_mut(channels).zip(numbers) {
            copy(number, row);
        }
        self.numbers.clear();
        self.numbers.extend(0..numbers.len() as u32);
        (&self.values, &self.numbers)
    }
}
