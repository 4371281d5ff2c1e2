//! The elements of a batch: their rows, reductions over each element, and values that all its rows receive.

use candle_core::{DType, Tensor};

use super::scatter::{Reduce, scatter};
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

/// The name of what [`SparseConvTensor::element_index`] keeps with the sites.
enum ElementIndex {}

/// What [`SparseConvTensor::sites_of_each`] keeps with the sites.
struct SitesOfEach(Option<usize>);

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
        self.kept_tensor::<ElementIndex>(|| {
            let elements: Vec<u32> = self.coords().iter().map(|&[b, ..]| b as u32).collect();
            Ok(Tensor::from_vec(elements, self.len(), self.device())?)
        })
    }

    /// The number of sites of each batch element, if all have as many and the rows of each follow those of the element before it.
    pub(crate) fn sites_of_each(&self) -> Result<Option<usize>> {
        let build = || {
            let counts = self.batch_counts()?;
            let in_order = self.coords().is_sorted_by_key(|site| site[0]);
            Ok(SitesOfEach(counts.first().copied().filter(|first| in_order && counts.iter().all(|n| n == first))))
        };
        Ok(self.kept(build)?.0)
    }

    /// The sum of the last `width` columns of the rows (sites, C) of each batch element: (batch, width) f32. Not differentiable. Rows are
    /// added in a fixed order.
    pub(crate) fn sum_elements(&self, rows: &Tensor, width: usize) -> Result<Tensor> {
        /// Rows that are converted together.
        const ROWS: usize = 1024;
        let (batch, first) = (self.batch_size(), rows.dim(1)? - width);
        #[cfg(feature = "cuda")]
        if rows.device().is_cuda() {
            return crate::gpu::rows::element_sums(rows, &*self.placed()?, [batch, width]);
        }
        let mut sums = vec![0f64; batch * width];
        for (sites, start) in self.coords().chunks(ROWS).zip((0..).step_by(ROWS)) {
            let part = rows.narrow(0, start, sites.len())?.narrow(1, first, width)?.contiguous()?;
            let part: Vec<f32> = part.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            for (site, row) in sites.iter().zip(part.chunks_exact(width)) {
                let sums = &mut sums[site[0] as usize * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            }
        }
        Ok(Tensor::from_vec(sums, (batch, width), rows.device())?.to_dtype(DType::F32)?)
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
