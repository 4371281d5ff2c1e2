//! The dense backend: the same layers as dense operations of candle, gradients included.
//!
//! Features are written into a dense grid. For each kernel offset, the whole output grid gathers its shifted input (a row of zeros stands
//! for everything outside), which is multiplied by that offset's weights; then the output sites are read. This is slow but simple, and
//! shares no code with the native backend. So it is the reference for that backend's tests.

use candle_core::{D, DType, Device, Tensor, Var};

use super::{Convolve, Engine, Flow};
use crate::sparse::geometry::{Geometry, OutputSites, SourceRule};
use crate::sparse::grid::Grid;
use crate::sparse::lookup::Lookup;
use crate::sparse::sites::Sites;
use crate::{Error, Result};

/// The dense backend.
pub(super) struct Dense;

impl Engine for Dense {
    fn output_sites(&self, source: &Sites, geometry: &Geometry, grid: Grid, _: &Device) -> Result<Sites> {
        let inputs = cells(source.grid())?;
        cells(grid)?;
        let mut occupied = vec![false; inputs];
        source.coords().iter().for_each(|&site| occupied[source.grid().pack(site) as usize] = true);
        let keys: Vec<u64> = match geometry.output_sites {
            OutputSites::Reachable => {
                let reads: Vec<_> =
                    geometry.offsets().map(|r| gather_cells(geometry.gather(), r, source.grid(), grid)).collect();
                let active = |&o: &u64| {
                    reads.iter().any(|reads| occupied.get(reads[o as usize] as usize).copied().unwrap_or(false))
                };
                (0..grid.cells()).filter(active).collect()
            }
            OutputSites::Strided => {
                let mut keys: Vec<u64> = (0..inputs as u64)
                    .filter(|&i| occupied[i as usize])
                    .map(|i| {
                        let [b, z, y, x] = source.grid().unpack(i);
                        let [sz, sy, sx] = geometry.stride.map(|s| s as i32);
                        [b, z / sz, y / sy, x / sx]
                    })
                    .filter(|&site| grid.contains(site))
                    .map(|site| grid.pack(site))
                    .collect();
                keys.sort_unstable();
                keys.dedup();
                keys
            }
        };
        let lookup = Lookup::distinct(&keys, grid.cells());
        Ok(Sites::from_sorted_keys(grid, &keys, lookup))
    }

    /// This backend keeps nothing with a map.
    fn build(&self, _: &Flow, _: &Device) -> Result<()> {
        Ok(())
    }

    fn convolve(&self, layer: &Convolve, features: &Tensor) -> Result<Tensor> {
        let &Convolve { flow, weight, bias, beside, output } = layer;
        let dtype = if features.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let mut features = features.to_dtype(dtype)?;
        if let Some(beside) = beside {
            features = Tensor::cat(&[features, beside.to_dtype(dtype)?], 1)?;
        }
        let features = &features;
        let (out_channels, in_channels) = (weight.dims()[0], features.dim(1)?);
        let grid = dense_rows(flow, features, 0.0)?;
        let weight = weight.to_dtype(dtype)?.reshape((out_channels, (), in_channels))?;
        let mut y = Tensor::zeros((flow.target().len(), out_channels), dtype, features.device())?;
        if flow.target().len() > 0 {
            let mut dense = Tensor::zeros((cells(flow.target().grid())?, out_channels), dtype, features.device())?;
            for (r, reads) in gathers(flow, features)?.iter().enumerate() {
                let weight = weight.narrow(1, r, 1)?.squeeze(1)?.t()?.contiguous()?; // (in, out)
                dense = (dense + grid.index_select(reads, 0)?.matmul(&weight)?)?;
            }
            y = dense.index_select(&target_cells(flow, features)?, 0)?;
        }
        if let Some(bias) = bias {
            y = y.broadcast_add(&bias.to_dtype(dtype)?)?;
        }
        Ok(y.to_dtype(output)?)
    }

    fn convolve_gradients(
        &self,
        layer: &Convolve,
        features: &Tensor,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]> {
        let mut x = features.detach().to_dtype(DType::F32)?;
        if let Some(beside) = layer.beside {
            x = Tensor::cat(&[x, beside.detach().to_dtype(DType::F32)?], 1)?;
        }
        let [x, weight] = [&x, &layer.weight.detach()].map(Var::from_tensor);
        let (x, weight) = (x?, weight?);
        let y = self.convolve(&Convolve { weight: &weight, bias: None, beside: None, ..*layer }, &x)?;
        let mut grads = (y * grad.detach())?.sum_all()?.backward()?;
        let mut of = |var: &Var| match grads.remove(var) {
            Some(grad) => Ok(grad.detach()),
            None => var.zeros_like(),
        };
        let x_grad = match onto {
            Some(onto) => (onto + of(&x)?)?,
            None => of(&x)?,
        };
        Ok([x_grad, of(&weight)?])
    }

    fn max_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor> {
        if flow.target().len() == 0 {
            return Ok(Tensor::zeros((0, features.dim(1)?), features.dtype(), features.device())?);
        }
        let grid = dense_rows(flow, features, f64::NEG_INFINITY)?;
        let targets = target_cells(flow, features)?;
        let reads: Vec<Tensor> =
            gathers(flow, features)?.iter().map(|reads| Ok(reads.index_select(&targets, 0)?)).collect::<Result<_>>()?;
        let mut largest = grid.index_select(&reads[0], 0)?.detach();
        for reads in &reads[1..] {
            largest = largest.maximum(&grid.index_select(reads, 0)?.detach())?;
        }
        // The value is that of `largest`. Each term adds zero to it, and passes the gradient to one tied source.
        let mut y = largest.clone();
        for reads in &reads {
            let x = grid.index_select(reads, 0)?;
            let tied = x.detach().eq(&largest)?;
            let x = tied.where_cond(&x, &x.zeros_like()?)?;
            y = (y + (&x - x.detach())?)?;
        }
        Ok(y)
    }

    fn avg_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor> {
        let ones = Tensor::ones((features.dim(0)?, 1), features.dtype(), features.device())?;
        let grid = dense_rows(flow, &Tensor::cat(&[features, &ones], 1)?, 0.0)?;
        let mut y = Tensor::zeros((flow.target().len(), features.dim(1)? + 1), features.dtype(), features.device())?;
        if flow.target().len() > 0 {
            let targets = target_cells(flow, features)?;
            for reads in gathers(flow, features)? {
                y = (y + grid.index_select(&reads.index_select(&targets, 0)?, 0)?)?;
            }
        }
        let channels = features.dim(1)?;
        let count = y.narrow(D::Minus1, channels, 1)?.detach();
        Ok(y.narrow(D::Minus1, 0, channels)?.broadcast_div(&count)?)
    }
}

/// Features as dense rows (cells + 1, C): cells in ascending order, `empty` in cells without a site and in the last row.
fn dense_rows(flow: &Flow, features: &Tensor, empty: f64) -> Result<Tensor> {
    let sites = flow.source();
    let count = sites.len() as u32;
    let mut rows = vec![count; cells(sites.grid())? + 1];
    sites.coords().iter().zip(0..).for_each(|(&site, row)| rows[sites.grid().pack(site) as usize] = row);
    let nothing = Tensor::full(empty as f32, (1, features.dim(1)?), features.device())?.to_dtype(features.dtype())?;
    let rows = Tensor::new(rows, features.device())?;
    Ok(Tensor::cat(&[features, &nothing], 0)?.index_select(&rows, 0)?)
}

/// For each kernel offset, the row of `dense_rows` that each output cell reads.
fn gathers(flow: &Flow, like: &Tensor) -> Result<Vec<Tensor>> {
    let [source, target] = [flow.source().grid(), flow.target().grid()];
    cells(target)?;
    flow.map
        .geometry
        .offsets()
        .map(|r| Ok(Tensor::new(gather_cells(flow.rule(), r, source, target), like.device())?))
        .collect()
}

fn gather_cells(rule: SourceRule, r: [usize; 3], source: Grid, target: Grid) -> Vec<u32> {
    let outside = source.cells() as u32;
    let axis = |a: usize| -> Vec<Option<i32>> {
        let inside = |i: &i64| (0..source.shape[a] as i64).contains(i);
        (0..target.shape[a] as i64).map(|o| rule.source(a, o, r[a]).filter(inside).map(|i| i as i32)).collect()
    };
    let [zs, ys, xs] = [axis(0), axis(1), axis(2)];
    let mut reads = Vec::with_capacity(target.cells() as usize);
    for b in 0..target.batch as i32 {
        for &z in &zs {
            for &y in &ys {
                for &x in &xs {
                    reads.push(match (z, y, x) {
                        (Some(z), Some(y), Some(x)) => source.pack([b, z, y, x]) as u32,
                        _ => outside,
                    });
                }
            }
        }
    }
    reads
}

fn target_cells(flow: &Flow, like: &Tensor) -> Result<Tensor> {
    let sites = flow.target();
    let keys: Vec<u32> = sites.coords().iter().map(|&site| sites.grid().pack(site) as u32).collect();
    Ok(Tensor::new(keys, like.device())?)
}

/// The number of cells; an error if the grid is too large to be dense.
fn cells(grid: Grid) -> Result<usize> {
    const MOST: u64 = 1 << 28;
    if grid.cells() <= MOST {
        return Ok(grid.cells() as usize);
    }
    Err(Error::Backend {
        backend: "dense",
        needs: format!(
            "it needs a grid of at most {MOST} cells, and this one is {} × {:?}; use the native backend",
            grid.batch, grid.shape
        ),
    })
}
