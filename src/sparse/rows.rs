//! Selects rows of a sparse tensor by their site or their number.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::grid::{Grid, GridShape};
use super::input::{check_features, read_indices};
use super::sites::Sites;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

impl SparseConvTensor {
    /// Like [`new`](Self::new), but rows with the same site become one row with the sum of their features, as in `torch.Tensor.coalesce`.
    /// Sites come out in ascending (batch, z, y, x) order. Differentiable.
    ///
    /// # Errors
    /// The same errors as [`new`](Self::new), except for sites that occur twice.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0], [4.0]], &Device::Cpu)?;
    /// let indices = Tensor::new(&[[0i64, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]], &Device::Cpu)?;
    /// let x = SparseConvTensor::coalesce(&features, &indices, [1, 1, 2], 1)?;
    /// assert_eq!(x.features().to_vec2::<f32>()?, [[2.0], [5.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn coalesce(
        features: &Tensor,
        indices: &Tensor,
        spatial_shape: impl Into<GridShape>,
        batch_size: usize,
    ) -> Result<Self> {
        const OP: &str = "SparseConvTensor::coalesce";
        let grid = Grid::new(OP, batch_size, spatial_shape)?;
        let coords = read_indices(OP, indices, grid)?;
        check_features(OP, features, Some(coords.len()))?;
        let mut unique = coords.clone();
        unique.sort_unstable();
        unique.dedup();
        let sites = Sites::new(OP, grid, unique)?;
        let rows: Vec<u32> = coords.iter().filter_map(|&site| sites.find(site)).collect();
        let rows = Tensor::from_vec(rows, coords.len(), features.device())?;
        let zeros = Tensor::zeros((sites.len(), features.dim(1)?), features.dtype(), features.device())?;
        let features = if coords.is_empty() { zeros } else { zeros.index_add(&rows, &features.contiguous()?, 0)? };
        Ok(Self::from_parts(features, Arc::new(sites)))
    }

    /// Features (M, C) at the sites `indices` (M, 4) (or with as many columns as [`indices`](Self::indices) has). Empty sites give zeros.
    /// Differentiable.
    ///
    /// # Errors
    /// Indices of a wrong shape or dtype, or outside the grid.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let at = Tensor::new(&[[0i64, 0, 0, 1]], &Device::Cpu)?;
    /// assert_eq!(x.sample_at_indices(&at)?.to_vec2::<f32>()?, [[2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sample_at_indices(&self, indices: &Tensor) -> Result<Tensor> {
        const OP: &str = "SparseConvTensor::sample_at_indices";
        let grid = self.sites().grid();
        let sites = read_indices(OP, indices, grid)?;
        if let Some(row) = sites.iter().position(|&site| !grid.contains(site)) {
            return Err(Error::Argument {
                op: OP,
                name: "indices",
                got: format!("{:?} (batch, z, y, x) in row {row}", sites[row]),
                expected: format!("sites of {} grids of {:?}", grid.batch, grid.shape),
            });
        }
        let empty = self.len() as u32;
        let rows: Vec<u32> = sites.iter().map(|&site| self.sites().find(site).unwrap_or(empty)).collect();
        let rows = Tensor::from_vec(rows, sites.len(), self.device())?;
        let zero = Tensor::zeros((1, self.channels()), self.dtype(), self.device())?;
        Ok(Tensor::cat(&[self.features(), &zero], 0)?.index_select(&rows, 0)?)
    }

    /// The rows with the numbers `rows` (M,), `i64` or `u32`, in that order. The kernel maps of the old sites are dropped, since their rows
    /// no longer fit. Differentiable.
    ///
    /// # Errors
    /// A row that does not exist or occurs twice.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.select_by_index(&Tensor::new(&[1i64], &Device::Cpu)?)?.coords(), [[0, 0, 0, 1]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn select_by_index(&self, rows: &Tensor) -> Result<Self> {
        const OP: &str = "SparseConvTensor::select_by_index";
        let picked = match (rows.rank(), rows.dtype()) {
            (1, DType::I64 | DType::U32 | DType::I32) => rows.to_dtype(DType::I64)?.to_vec1::<i64>()?,
            (1, got) => return Err(Error::DType { op: OP, what: "rows", got, expected: "i64, i32 or u32" }),
            _ => {
                return Err(Error::Shape {
                    op: OP,
                    what: "rows",
                    got: rows.dims().to_vec(),
                    expected: "(rows,)".into(),
                });
            }
        };
        let pick = |&row: &i64| usize::try_from(row).ok().and_then(|row| self.coords().get(row).copied());
        if let Some(bad) = picked.iter().find(|row| pick(row).is_none()) {
            return Err(Error::Argument {
                op: OP,
                name: "rows",
                got: bad.to_string(),
                expected: format!("rows below {}, the number of sites", self.len()),
            });
        }
        let sites = Sites::new(OP, self.sites().grid(), picked.iter().filter_map(pick).collect())?;
        let features = self.features().index_select(&rows.to_dtype(DType::I64)?.contiguous()?, 0)?;
        Ok(self.moved(OP, features, &Arc::new(sites)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::sparse::testing::{features, indices, tensor};

    #[test]
    fn coalesce_sums_equal_sites_and_sends_gradients_to_each() {
        let f = candle_core::Var::from_tensor(&features(3, 2)).unwrap();
        let rows = indices(&[[0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]);
        let x = SparseConvTensor::coalesce(&f, &rows, [3, 4, 5], 1).unwrap();
        assert_eq!(x.coords(), [[0, 0, 0, 0], [0, 1, 0, 0]]);
        assert_eq!(x.features().to_vec2::<f32>().unwrap(), [[2.0, 3.0], [4.0, 6.0]]);
        let grads = x.features().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let grad = grads.get(&f).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(grad, [[8.0, 12.0], [4.0, 6.0], [8.0, 12.0]]);
    }

    #[test]
    fn sampling_is_zero_where_a_site_is_empty_and_an_error_off_the_grid() {
        let x = tensor(&[[0, 1, 2, 3], [1, 0, 0, 1]]);
        let got = x.sample_at_indices(&indices(&[[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3]])).unwrap();
        assert_eq!(got.to_vec2::<f32>().unwrap(), [[2.0, 3.0], [0.0, 0.0], [0.0, 1.0]]);
        assert!(x.sample_at_indices(&indices(&[[2, 0, 0, 0]])).is_err());
    }

    #[test]
    fn rows_are_selected_in_the_order_asked_for() {
        let x = tensor(&[[0, 1, 2, 3], [1, 0, 0, 1], [1, 2, 3, 4]]);
        let y = x.select_by_index(&Tensor::new(&[2i64, 0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(y.coords(), [[1, 2, 3, 4], [0, 1, 2, 3]]);
        assert_eq!(y.features().to_vec2::<f32>().unwrap(), [[4.0, 5.0], [0.0, 1.0]]);
        for bad in [[0i64, 3], [0, -1], [0, 0]] {
            assert!(x.select_by_index(&Tensor::new(&bad, &Device::Cpu).unwrap()).is_err());
        }
    }
}
