//! The transform along some of an array's axes, as PyWavelets' argument `axes`: for each index of the other axes, there is a separate
//! array.

use super::array::NdArray;
use super::combine::Real;
use crate::{Error, Result};

/// Checks that each axis exists and is named only once.
pub(super) fn check(op: &'static str, axes: &[usize], dims: usize) -> Result<()> {
    let twice = |(place, axis): (usize, &usize)| axes[..place].contains(axis);
    if axes.is_empty() || axes.iter().any(|&axis| axis >= dims) || axes.iter().enumerate().any(twice) {
        let expected = format!("one or more of the {dims} axes 0 to {}, each once", dims.saturating_sub(1));
        return Err(Error::Argument { op, name: "axes", got: format!("{axes:?}"), expected });
    }
    Ok(())
}

/// Whether these are all axes of an array, in order.
pub(super) fn are_all(axes: &[usize], dims: usize) -> bool {
    axes.iter().copied().eq(0..dims)
}

/// The other axes in order, then these.
fn order(axes: &[usize], dims: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..dims).filter(|axis| !axes.contains(axis)).collect();
    order.extend(axes);
    order
}

/// The array with its axes in another order: axis i of the result is axis `order[i]`.
fn permuted<T: Real>(array: &NdArray<T>, order: &[usize]) -> NdArray<T> {
    let dims = array.shape.len();
    let mut strides = vec![1; dims];
    for axis in (1..dims).rev() {
        strides[axis - 1] = strides[axis] * array.shape[axis];
    }
    let shape: Vec<usize> = order.iter().map(|&axis| array.shape[axis]).collect();
    let place = |index: usize| {
        let step = |(rest, place): (usize, usize), axis: usize| {
            (rest / shape[axis], place + rest % shape[axis] * strides[order[axis]])
        };
        (0..dims).rev().fold((index, 0), step).1
    };
    NdArray { data: (0..array.data.len()).map(|index| array.data[place(index)]).collect(), shape }
}

/// Applies `work` to the array of the given axes at every index of the other axes. It must return arrays with the same shapes each time;
/// these are put together in the original order of axes.
pub(super) fn apart<T: Real>(
    arrays: &[&NdArray<T>],
    axes: &[usize],
    work: impl Fn(&[&[T]], &[usize]) -> Result<Vec<NdArray<T>>>,
) -> Result<Vec<NdArray<T>>> {
    let Some(first) = arrays.first() else { return Ok(Vec::new()) };
    let dims = first.shape.len();
    let order = order(axes, dims);
    let moved: Vec<NdArray<T>> = arrays.iter().map(|array| permuted(array, &order)).collect();
    let (outer, inner) = moved[0].shape.split_at(dims - axes.len());
    let (count, len): (usize, usize) = (outer.iter().product(), inner.iter().product());
    let mut made: Vec<NdArray<T>> = Vec::new();
    for index in 0..count {
        let parts: Vec<&[T]> = moved.iter().map(|array| &array.data[index * len..(index + 1) * len]).collect();
        for (number, part) in work(&parts, inner)?.into_iter().enumerate() {
            if made.len() == number {
                made.push(NdArray { shape: [outer, &part.shape].concat(), data: Vec::new() });
            }
            made[number].data.extend(part.data);
        }
    }
    let mut back = vec![0; dims];
    order.iter().enumerate().for_each(|(place, &axis)| back[axis] = place);
    Ok(made.iter().map(|array| permuted(array, &back)).collect())
}
