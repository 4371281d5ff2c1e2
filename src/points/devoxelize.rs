//! [`devoxelize`]: features of a sparse tensor at continuous positions.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::sparse::SparseConvTensor;
use crate::{Error, Result};

/// How features between sites are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interpolation {
    /// The features of the nearest site, or zero if it is empty. The default.
    #[default]
    Nearest,
    /// The trilinear blend of the eight sites around, where empty ones count as zero: MinkowskiEngine's `MinkowskiInterpolation`.
    Trilinear,
    /// The trilinear blend of the occupied ones among the eight sites around: torchsparse's `spdevoxelize`.
    TrilinearOccupied,
}

/// Features (M, C) of `tensor` at `positions` (M, 4) of floats: batch, z, y, x, in units of the grid; a site is at its whole coordinates.
/// Sites outside the grid count as empty, and a position that is not finite gets zeros. Differentiable in the features.
///
/// # Errors
/// Positions of another shape or type, or a batch number that is not a whole number or not in the tensor.
///
/// ```
/// use wavemesh::points::devoxelize;
/// use wavemesh::prelude::*;
/// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
/// let between = Tensor::new(&[[0f32, 0.0, 0.0, 0.25]], &Device::Cpu)?; // batch, z, y, x
/// assert_eq!(devoxelize(&x, &between, Interpolation::Nearest)?.to_vec2::<f32>()?, [[1.0]]);
/// assert_eq!(devoxelize(&x, &between, Interpolation::Trilinear)?.to_vec2::<f32>()?, [[0.75 * 1.0 + 0.25 * 2.0]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias("spdevoxelize", "MinkowskiInterpolation"))]
pub fn devoxelize(tensor: &SparseConvTensor, positions: &Tensor, interpolation: Interpolation) -> Result<Tensor> {
    const OP: &str = "devoxelize";
    if !positions.dtype().is_float() {
        return Err(Error::DType { op: OP, what: "positions", got: positions.dtype(), expected: "a float type" });
    }
    let &[count, 4] = positions.dims() else {
        let (got, expected) = (positions.dims().to_vec(), "(positions, 4): batch, z, y, x".into());
        return Err(Error::Shape { op: OP, what: "positions", got, expected });
    };
    let flat: Vec<f64> = positions.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    let positions = flat.as_chunks::<4>().0;
    let batches = tensor.batch_size() as f64;
    if let Some(row) = positions.iter().position(|&[b, ..]| b.fract() != 0.0 || !(0.0..batches).contains(&b)) {
        return Err(Error::Argument {
            op: OP,
            name: "positions",
            got: format!("batch number {} in row {row}", positions[row][0]),
            expected: format!("a whole number from 0 and below {batches}, the number of batch elements"),
        });
    }
    let empty = tensor.len() as u32;
    let zero = Tensor::zeros((1, tensor.channels()), tensor.dtype(), tensor.device())?;
    let padded = Tensor::cat(&[tensor.features(), &zero], 0)?;
    let pick = |rows: Vec<u32>| -> Result<Tensor> {
        Ok(padded.index_select(&Tensor::from_vec(rows, count, tensor.device())?, 0)?)
    };
    let find = |b: f64, at: [f64; 3]| {
        let fits = at.iter().all(|v| (0.0..f64::from(i32::MAX)).contains(v));
        fits.then(|| tensor.find([b as i32, at[0] as i32, at[1] as i32, at[2] as i32])).flatten().unwrap_or(empty)
    };
    if interpolation == Interpolation::Nearest {
        let nearest = |&[b, z, y, x]: &[f64; 4]| find(b, [z, y, x].map(|v| (v + 0.5).floor()));
        return pick(positions.par_iter().with_min_len(1 << 10).map(nearest).collect());
    }
    // The row and the weight of each of the eight corners.
    let corners = |&[b, z, y, x]: &[f64; 4]| -> [(u32, f64); 8] {
        let at = [z, y, x];
        let low = at.map(f64::floor);
        let mut corners: [(u32, f64); 8] = std::array::from_fn(|corner| {
            let upper: [f64; 3] = std::array::from_fn(|a| f64::from((corner >> (2 - a)) as u32 & 1));
            let share = |a: usize| if upper[a] == 1.0 { at[a] - low[a] } else { 1.0 - (at[a] - low[a]) };
            match share(0) * share(1) * share(2) {
                weight if weight > 0.0 => (find(b, std::array::from_fn(|a| low[a] + upper[a])), weight),
                _ => (empty, 0.0),
            }
        });
        if interpolation == Interpolation::TrilinearOccupied {
            let sum: f64 = corners.iter().filter(|corner| corner.0 != empty).map(|corner| corner.1).sum();
            if sum > 0.0 {
                corners.iter_mut().for_each(|corner| corner.1 /= sum);
            }
        }
        corners
    };
    let corners: Vec<[(u32, f64); 8]> = positions.par_iter().with_min_len(1 << 10).map(corners).collect();
    let wide = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let mut sum = Tensor::zeros((count, tensor.channels()), wide, tensor.device())?;
    for corner in 0..8 {
        let weights: Vec<f64> = corners.iter().map(|corners| corners[corner].1).collect();
        let weights = Tensor::from_vec(weights, (count, 1), tensor.device())?.to_dtype(wide)?;
        let rows = pick(corners.iter().map(|corners| corners[corner].0).collect())?;
        sum = (sum + rows.to_dtype(wide)?.broadcast_mul(&weights)?)?;
    }
    Ok(sum.to_dtype(tensor.dtype())?)
}
