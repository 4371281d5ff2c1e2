//! f64 features, for gradient checks: computes the same pairs with candle's operations. This is slow, and keeps everything that each offset
//! reads.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::sparse::backend::{Convolve, Flow};

/// The rows that each kernel offset joins.
struct Offset {
    /// The number of the offset.
    r: usize,
    sources: Vec<u32>,
    targets: Vec<u32>,
}

impl Offset {
    fn of(flow: &Flow) -> impl Iterator<Item = Self> {
        (0..flow.map.geometry.volume()).filter_map(|r| {
            let (inputs, outputs): (Vec<u32>, Vec<u32>) =
                flow.map.pairs(r).into_iter().map(|(input, output)| (input as u32, output as u32)).unzip();
            let [sources, targets] = if flow.reversed { [outputs, inputs] } else { [inputs, outputs] };
            (!sources.is_empty()).then_some(Self { r, sources, targets })
        })
    }

    /// The features of the offset's sources.
    fn read(&self, features: &Tensor) -> Result<Tensor> {
        let index = Tensor::new(self.sources.as_slice(), features.device())?;
        Ok(features.index_select(&index, 0)?)
    }

    /// Adds each pair's row to the row of its target.
    fn add(&self, to: &Tensor, rows: &Tensor) -> Result<Tensor> {
        let index = Tensor::new(self.targets.as_slice(), to.device())?;
        Ok(to.index_add(&index, rows, 0)?)
    }
}

fn zeros(flow: &Flow, channels: usize, like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::zeros((flow.target().len(), channels), DType::F64, like.device())?)
}

pub(super) fn convolve(layer: &Convolve, features: &Tensor) -> Result<Tensor> {
    let &Convolve { flow, weight, bias, .. } = layer;
    let (outputs, _, _, _, inputs) = weight.dims5()?;
    let weight = weight.reshape((outputs, (), inputs))?;
    let mut y = zeros(flow, outputs, features)?;
    for offset in Offset::of(flow) {
        let weight = weight.narrow(1, offset.r, 1)?.squeeze(1)?.t()?.contiguous()?; // (in, out)
        y = offset.add(&y, &offset.read(features)?.matmul(&weight)?)?;
    }
    Ok(bias.map_or_else(|| Ok(y.clone()), |bias| y.broadcast_add(bias))?)
}

pub(super) fn max_pool(flow: &Flow, features: &Tensor) -> Result<Tensor> {
    let channels = features.dim(1)?;
    let values: Vec<f64> = features.flatten_all()?.to_vec1()?;
    let mut largest = vec![f64::NEG_INFINITY; flow.target().len() * channels];
    for offset in Offset::of(flow) {
        for (&source, &target) in offset.sources.iter().zip(&offset.targets) {
            let from = &values[source as usize * channels..][..channels];
            for (most, &value) in largest[target as usize * channels..][..channels].iter_mut().zip(from) {
                if value > *most || value.is_nan() {
                    *most = value;
                }
            }
        }
    }
    let largest = Tensor::from_vec(largest, (flow.target().len(), channels), features.device())?;
    // Every tied source adds zero, and receives the gradient.
    let mut y = largest.clone();
    for offset in Offset::of(flow) {
        let x = offset.read(features)?;
        let targets = Tensor::new(offset.targets.as_slice(), features.device())?;
        let tied = x.detach().eq(&largest.index_select(&targets, 0)?)?.to_dtype(DType::F64)?;
        y = offset.add(&y, &((&x - x.detach())? * tied)?)?;
    }
    Ok(y)
}

pub(super) fn avg_pool(flow: &Flow, features: &Tensor) -> Result<Tensor> {
    let mut sums = zeros(flow, features.dim(1)?, features)?;
    let mut counts = vec![0f64; flow.target().len()];
    for offset in Offset::of(flow) {
        offset.targets.iter().for_each(|&target| counts[target as usize] += 1.0);
        sums = offset.add(&sums, &offset.read(features)?)?;
    }
    let rows = counts.len();
    let counts = counts.into_iter().map(|count| count.max(1.0)).collect();
    Ok(sums.broadcast_div(&Tensor::from_vec::<_, f64>(counts, (rows, 1), features.device())?)?)
}
