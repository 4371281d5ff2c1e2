//! The elements of a batch: their rows, reductions over each element, and values that all its rows receive.

use candle_core::{DType, Tensor};

use super::scatter::{Reduce, scatter};
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

impl SparseConvTensor {
    /// The rows of each batch element, in order. An element without sites has none.
    pub fn element_rows(&self) -> Vec<Vec<u32>> {
        let mut rows = vec![Vec::new(); self.batch_size()];
        for (row, [b, ..]) in (0..).zip(self.coords()) {
            rows[*b as usize].push(row);
        }
        rows
    }

    /// The batch element of each row, as a `u32` tensor (sites,).
    ///
    /// # Errors
    /// An error of candle about the device of the features.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0], [5.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], [2; 3], 2)?;
    /// assert_eq!(x.element_index()?.to_vec1::<u32>()?, [0, 0, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn element_index(&self) -> Result<Tensor> {
        let elements: Vec<u32> = self.coords().iter().map(|&[b, ..]| b as u32).collect();
        Ok(Tensor::from_vec(elements, self.len(), self.device())?)
    }

    /// Reduces rows (sites, C) to one row for each batch element (batch, C). An element without sites gets zeros. Differentiable.
    ///
    /// # Errors
    /// `rows` that is not a float matrix with one row per site.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::points::Reduce;
    /// let features = Tensor::new(&[[1f32], [2.0], [5.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], [2; 3], 2)?;
    /// assert_eq!(x.reduce_elements(x.features(), Reduce::Sum)?.to_vec2::<f32>()?, [[3.0], [5.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn reduce_elements(&self, rows: &Tensor, reduce: Reduce) -> Result<Tensor> {
        let elements: Vec<Option<u32>> = self.coords().iter().map(|&[b, ..]| Some(b as u32)).collect();
        scatter(rows, &elements, self.batch_size(), reduce)
    }

    /// Gives each site the row of its batch element: from (batch, C) to (sites, C). MinkowskiEngine's `MinkowskiBroadcast`. Differentiable.
    ///
    /// # Errors
    /// `values` that do not have one row for each element.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0], [5.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], [2; 3], 2)?;
    /// let of_elements = Tensor::new(&[[10f32], [20.0]], &Device::Cpu)?;
    /// assert_eq!(x.broadcast_elements(&of_elements)?.to_vec2::<f32>()?, [[10.0], [10.0], [20.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias = "MinkowskiBroadcast")]
    pub fn broadcast_elements(&self, values: &Tensor) -> Result<Tensor> {
        if !matches!(values.dims(), &[batch, _] if batch == self.batch_size()) {
            return Err(Error::Shape {
                op: "broadcast_elements",
                what: "values",
                got: values.dims().to_vec(),
                expected: format!("({}, channels): a row for each batch element", self.batch_size()),
            });
        }
        Ok(values.contiguous()?.index_select(&self.element_index()?, 0)?)
    }
}

/// The type for sums: f64 for f64, otherwise f32.
pub(super) fn wide_of(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
