//! Conversions between sparse and dense tensors.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::grid::{Grid, GridShape};
use super::input::check_features;
use super::sites::Sites;
use super::tensor::SparseConvTensor;
use crate::{Error, Result, memory};

impl SparseConvTensor {
    /// The sites of a dense tensor (batch, z, y, x, C) at which any channel is not zero (NaN is not zero), in ascending order. Tensors
    /// (batch, y, x, C) and (batch, x, C) give 2-D and 1-D. Differentiable.
    ///
    /// # Errors
    /// A tensor with another number of axes, or a grid that is too large to number its sites.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let dense = Tensor::new(&[0f32, 5.0, 0.0, 7.0], &Device::Cpu)?.reshape((1, 1, 2, 2, 1))?; // (batch, z, y, x, C)
    /// let x = SparseConvTensor::from_dense(&dense)?;
    /// assert_eq!(x.coords(), [[0, 0, 0, 1], [0, 0, 1, 1]]);
    /// assert_eq!(x.features().to_vec2::<f32>()?, [[5.0], [7.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_dense(dense: &Tensor) -> Result<Self> {
        const OP: &str = "SparseConvTensor::from_dense";
        let (batch, shape, channels) = match *dense.dims() {
            [batch, d, h, w, channels] => (batch, GridShape::from([d, h, w]), channels),
            [batch, h, w, channels] => (batch, [h, w].into(), channels),
            [batch, w, channels] => (batch, [w].into(), channels),
            _ => {
                return Err(Error::Shape {
                    op: OP,
                    what: "dense",
                    got: dense.dims().to_vec(),
                    expected: "(batch, z, y, x, channels), or without z, or without z and y".into(),
                });
            }
        };
        let [d, h, w] = shape.shape;
        let rows = dense.reshape((batch * d * h * w, channels))?;
        check_features(OP, &rows, None)?;
        let grid = Grid::new(OP, batch, shape)?;
        if batch * d * h * w >= u32::MAX as usize {
            return Err(Error::Shape {
                op: OP,
                what: "dense",
                got: dense.dims().to_vec(),
                expected: format!("fewer than {} cells", u32::MAX),
            });
        }
        let occupied = rows.ne(&rows.zeros_like()?)?.to_dtype(DType::U8)?.to_device(&Device::Cpu)?;
        let occupied: Vec<u32> = occupied
            .to_vec2::<u8>()?
            .iter()
            .zip(0u32..)
            .filter_map(|(row, key)| row.iter().any(|&v| v != 0).then_some(key))
            .collect();
        let coords = occupied.iter().map(|&key| grid.unpack(key as u64)).collect();
        let sites = Sites::new(OP, grid, coords)?;
        let count = occupied.len();
        let features = rows.index_select(&Tensor::from_vec(occupied, count, dense.device())?, 0)?;
        Ok(Self::from_parts(features, Arc::new(sites)))
    }

    /// The dense tensor (batch, C, z, y, x), without z for 2-D and without z and y for 1-D. It is zero where there is no site.
    /// Differentiable.
    ///
    /// # Errors
    /// [`Error::Memory`] if the grid does not fit in memory.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.dense()?.dims(), [1, 1, 1, 1, 2]);
    /// assert_eq!(x.dense()?.flatten_all()?.to_vec1::<f32>()?, [1.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dense(&self) -> Result<Tensor> {
        let axes = self.ndim();
        let order: Vec<usize> = [0, axes + 1].into_iter().chain(1..=axes).collect();
        Ok(self.dense_channels_last()?.permute(order)?.contiguous()?)
    }

    /// The dense tensor (batch, z, y, x, C), without z for 2-D and without z and y for 1-D. It is zero where there is no site.
    /// Differentiable.
    ///
    /// # Errors
    /// [`Error::Memory`] if the grid does not fit in memory.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32, 10.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let dense = x.dense_channels_last()?; // (batch, z, y, x, C)
    /// assert_eq!(dense.reshape((2, 2))?.to_vec2::<f32>()?, [[0.0, 0.0], [1.0, 10.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dense_channels_last(&self) -> Result<Tensor> {
        let grid = self.sites().grid();
        let channels = self.channels();
        if grid.cells() >= u32::MAX as u64 {
            return Err(Error::Argument {
                op: "SparseConvTensor::dense",
                name: "spatial_shape",
                got: format!("{:?} with batch_size {}", grid.shape, grid.batch),
                expected: format!("fewer than {} cells", u32::MAX),
            });
        }
        let shape = [&[grid.batch], grid.dims(), &[channels]].concat();
        // Adding the rows makes a second copy, and so does putting channels first.
        memory::elements::<u8>("SparseConvTensor::dense", "a dense tensor", &shape, 0)?;
        memory::check(
            "SparseConvTensor::dense",
            || format!("a dense tensor of shape {shape:?}"),
            2 * shape.iter().product::<usize>() * self.dtype().size_in_bytes(),
        )?;
        let dense = Tensor::zeros((grid.cells() as usize, channels), self.dtype(), self.device())?;
        let dense = if self.is_empty() {
            dense
        } else {
            let keys: Vec<u32> = self.coords().iter().map(|&site| grid.pack(site) as u32).collect();
            dense.index_add(&Tensor::from_vec(keys, self.len(), self.device())?, self.features(), 0)?
        };
        Ok(dense.reshape(shape)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::IndexOp;

    use super::*;
    use crate::sparse::testing::tensor;

    #[test]
    fn dense_and_back_keeps_features_and_sites() {
        let x = tensor(&[[0, 1, 2, 3], [1, 0, 0, 1], [1, 2, 3, 4]]);
        // Row 0 holds a zero and a one: a site is kept when any channel is not zero.
        let back = SparseConvTensor::from_dense(&x.dense_channels_last().unwrap()).unwrap();
        assert!(back.same_sites(&x));
        assert_eq!(back.features().to_vec2::<f32>().unwrap(), x.features().to_vec2::<f32>().unwrap());
        let dense = x.dense().unwrap();
        assert_eq!(dense.dims(), [2, 2, 3, 4, 5]);
        assert_eq!(dense.i((1, 0, 2, 3, 4)).unwrap().to_scalar::<f32>().unwrap(), 4.0);
        assert_eq!(dense.sum_all().unwrap().to_scalar::<f32>().unwrap(), 15.0);
    }
}
