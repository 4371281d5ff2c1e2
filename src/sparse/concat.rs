//! Concatenates sparse tensors along the batch or along the channels.

use std::sync::Arc;

use candle_core::Tensor;

use super::grid::Grid;
use super::sites::Sites;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

impl SparseConvTensor {
    /// One batch with all the batch elements of `parts`, in order.
    ///
    /// # Errors
    /// No parts, or parts that differ in spatial shape, channels, dtype or device.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let batch = SparseConvTensor::cat_batch(&[x.clone(), x])?;
    /// assert_eq!((batch.batch_size(), batch.coords()[3]), (2, [1, 0, 0, 1]));
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias = "sparse_collate")]
    pub fn cat_batch(parts: &[Self]) -> Result<Self> {
        const OP: &str = "SparseConvTensor::cat_batch";
        let Some(first) = parts.first() else {
            return Err(Error::Argument {
                op: OP,
                name: "parts",
                got: "none".into(),
                expected: "at least one tensor".into(),
            });
        };
        let kind = |t: &Self| format!("{:?} grid, {} channels of {:?}", t.spatial_shape(), t.channels(), t.dtype());
        if let Some(other) = parts.iter().find(|part| kind(part) != kind(first)) {
            return Err(Error::Argument { op: OP, name: "parts", got: kind(other), expected: kind(first) });
        }
        let mut coords = Vec::with_capacity(parts.iter().map(Self::len).sum());
        let mut batch = 0;
        for part in parts {
            coords.extend(part.coords().iter().map(|&[b, z, y, x]| [b + batch as i32, z, y, x]));
            batch += part.batch_size();
        }
        let features = Tensor::cat(&parts.iter().map(|part| part.features()).collect::<Vec<_>>(), 0)?;
        let grid = Grid::new(OP, batch, first.spatial_shape())?.with_axes(first.ndim());
        Ok(Self::from_parts(features, Arc::new(Sites::new(OP, grid, coords)?)))
    }

    /// The channels of this tensor followed by those of another on the same sites, as in a skip connection.
    /// Differentiable.
    ///
    /// # Errors
    /// A tensor on other sites.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.cat_channels(&x.relu()?)?.features().to_vec2::<f32>()?, [[1.0, 1.0], [2.0, 2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn cat_channels(&self, other: &Self) -> Result<Self> {
        self.expect_same_sites("SparseConvTensor::cat_channels", "other", other)?;
        self.replace_feature(Tensor::cat(&[self.features(), other.features()], 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::testing::{features, message, tensor};

    #[test]
    fn batches_are_concatenated_in_order() {
        let (a, b) = (tensor(&[[1, 1, 2, 3]]), tensor(&[[0, 0, 0, 0], [1, 0, 0, 0]]));
        let both = SparseConvTensor::cat_batch(&[a.clone(), b]).unwrap();
        assert_eq!(both.batch_size(), 4);
        assert_eq!(both.coords(), [[1, 1, 2, 3], [2, 0, 0, 0], [3, 0, 0, 0]]);
        let wide = a.replace_feature(features(1, 3)).unwrap();
        assert!(message(SparseConvTensor::cat_batch(&[a, wide])).contains("3 channels"));
        assert!(SparseConvTensor::cat_batch(&[]).is_err());
    }
}
