//! [`sparse_quantize`]: turns coordinates into unique cells, as torchsparse and MinkowskiEngine do.

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// The unique cells of points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantized {
    /// The cells in ascending order, with the columns in the given order; coordinates may be negative.
    pub cells: Vec<Vec<i64>>,
    /// The index of the first point of each cell.
    pub index: Vec<u32>,
    /// The index of the cell of each point.
    pub inverse: Vec<u32>,
}

impl Quantized {
    /// Number of cells.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are no cells.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The cells as an `i64` tensor (cells, columns).
    ///
    /// # Errors
    /// An error of candle if it cannot allocate.
    ///
    /// ```
    /// use wavemesh::points::sparse_quantize;
    /// use wavemesh::prelude::*;
    /// let coords = Tensor::new(&[[0.1f32, 0.0], [1.7, -0.5], [0.2, 0.0]], &Device::Cpu)?;
    /// assert_eq!(sparse_quantize(&coords, 1.0)?.tensor()?.to_vec2::<i64>()?, [[0, 0], [1, -1]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn tensor(&self) -> Result<Tensor> {
        let columns = self.cells.first().map_or(0, Vec::len);
        Ok(Tensor::from_vec(self.cells.concat(), (self.len(), columns), &Device::Cpu)?)
    }
}

/// The unique `floor(coords / voxel_size)` of `coords` (points, D) of any number type, with the first point of each cell and the cell of
/// each point: `torchsparse.utils.quantize.sparse_quantize(coords, voxel_size, return_index=True, return_inverse=True)`. It computes in
/// f64, as numpy does. Coordinates may be negative.
///
/// # Errors
/// No columns, a voxel size that is not positive, or a coordinate that is not finite.
///
/// ```
/// use wavemesh::points::sparse_quantize;
/// use wavemesh::prelude::*;
/// let coords = Tensor::new(&[[0.1f32, 0.0, 0.0], [0.2, 0.0, 0.0], [1.7, 0.0, 0.0]], &Device::Cpu)?;
/// let found = sparse_quantize(&coords, 1.0)?;
/// assert_eq!(found.len(), 2); // of three points two lie in one cell
/// # Ok::<(), Error>(())
/// ```
pub fn sparse_quantize(coords: &Tensor, voxel_size: f64) -> Result<Quantized> {
    const OP: &str = "sparse_quantize";
    let &[points, columns] = coords.dims() else {
        let (got, expected) = (coords.dims().to_vec(), "(points, columns)".into());
        return Err(Error::Shape { op: OP, what: "coords", got, expected });
    };
    let argument = |name, got: String, expected: &str| Error::Argument { op: OP, name, got, expected: expected.into() };
    if columns == 0 {
        return Err(argument("coords", "no columns".into(), "one or more"));
    }
    if voxel_size <= 0.0 || !voxel_size.is_finite() {
        return Err(argument("voxel_size", voxel_size.to_string(), "a positive length"));
    }
    let flat: Vec<f64> = coords.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    if let Some(at) = flat.iter().position(|v| (v / voxel_size).abs() > 9e15 || !v.is_finite()) {
        return Err(argument(
            "coords",
            format!("{} in row {}", flat[at], at / columns),
            "finite numbers of fewer than 2^53 voxels",
        ));
    }
    let cells: Vec<i64> = flat.iter().map(|v| (v / voxel_size).floor() as i64).collect();
    let mut order: Vec<u32> = (0..points as u32).collect();
    let cell = |point: u32| &cells[point as usize * columns..][..columns];
    order.sort_unstable_by(|&a, &b| cell(a).cmp(cell(b)).then(a.cmp(&b)));
    let mut quantized = Quantized { cells: Vec::new(), index: Vec::new(), inverse: vec![0; points] };
    for run in order.chunk_by(|&a, &b| cell(a) == cell(b)) {
        run.iter().for_each(|&point| quantized.inverse[point as usize] = quantized.cells.len() as u32);
        quantized.cells.push(cell(run[0]).to_vec());
        quantized.index.push(run[0]);
    }
    Ok(quantized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_unique_and_negative_ones_floor() {
        let coords = Tensor::new(&[[0.4f32, 0.1], [-0.1, 0.1], [0.1, 0.3], [-0.6, 0.0]], &Device::Cpu).unwrap();
        let found = sparse_quantize(&coords, 0.5).unwrap();
        assert_eq!(found.cells, [vec![-2, 0], vec![-1, 0], vec![0, 0]]);
        assert_eq!((found.index, found.inverse), (vec![3, 1, 0], vec![2, 1, 2, 0]));
        assert!(sparse_quantize(&coords, 0.0).is_err());
        assert!(sparse_quantize(&Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap(), 1.0).is_err());
        assert!(sparse_quantize(&Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap(), 1.0).unwrap().is_empty());
    }
}
