//! [`scatter`]: reduces rows to groups, as `torch_scatter` does.

use candle_core::{DType, Tensor};

use crate::{Error, Result};

/// How several rows of one group become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduce {
    /// Their mean. The default.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// The largest value of each channel; the first row that has it receives the gradient.
    Max,
    /// The first row.
    First,
}

/// Reduces rows (rows, C) to (groups, C): row `i` goes to group `index[i]`, or to no group for `None`. A group without rows gets zeros.
/// Differentiable.
///
/// # Errors
/// Features that are not a float matrix with one row per index, or a group that does not exist.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::{Reduce, scatter};
/// let rows = Tensor::new(&[[1f32, 2.0], [3.0, -2.0], [9.0, 9.0]], &Device::Cpu)?;
/// let groups = [Some(0), Some(0), None]; // the last row belongs to none
/// assert_eq!(scatter(&rows, &groups, 2, Reduce::Mean)?.to_vec2::<f32>()?, [[2.0, 0.0], [0.0, 0.0]]);
/// assert_eq!(scatter(&rows, &groups, 2, Reduce::Max)?.to_vec2::<f32>()?, [[3.0, 2.0], [0.0, 0.0]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias("scatter_mean", "scatter_max"))]
pub fn scatter(features: &Tensor, index: &[Option<u32>], groups: usize, reduce: Reduce) -> Result<Tensor> {
    const OP: &str = "scatter";
    if !features.dtype().is_float() {
        return Err(Error::DType { op: OP, what: "features", got: features.dtype(), expected: "a float type" });
    }
    let &[rows, channels] = features.dims() else {
        let (got, expected) = (features.dims().to_vec(), "(rows, channels)".into());
        return Err(Error::Shape { op: OP, what: "features", got, expected });
    };
    if rows != index.len() {
        let (got, expected) = (vec![rows, channels], format!("({}, channels): a row for each index", index.len()));
        return Err(Error::Shape { op: OP, what: "features", got, expected });
    }
    if let Some(group) = index.iter().flatten().find(|&&group| group as usize >= groups) {
        let (got, expected) = (group.to_string(), format!("groups below {groups}, or None"));
        return Err(Error::Argument { op: OP, name: "index", got, expected });
    }
    let device = features.device();
    let zeros = Tensor::zeros((groups, channels), features.dtype(), device)?;
    let used: Vec<u32> = (0..).zip(index).filter_map(|(row, group)| group.map(|_| row)).collect();
    if used.is_empty() || groups == 0 {
        return Ok(zeros);
    }
    let features = features.contiguous()?;
    if let Reduce::Max = reduce {
        return largest(&features, index, groups);
    }
    let mut counts = vec![0u32; groups];
    let mut first = vec![rows as u32; groups];
    for (row, &group) in (0..).zip(index) {
        if let Some(group) = group {
            counts[group as usize] += 1;
            first[group as usize] = first[group as usize].min(row);
        }
    }
    if let Reduce::First = reduce {
        let zero = Tensor::zeros((1, channels), features.dtype(), device)?;
        return Ok(Tensor::cat(&[&features, &zero], 0)?.index_select(&Tensor::from_vec(first, groups, device)?, 0)?);
    }
    let wide = if features.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let wide_features = features.to_dtype(wide)?;
    let picked = if used.len() == rows {
        wide_features
    } else {
        let count = used.len();
        wide_features.index_select(&Tensor::from_vec(used, count, device)?, 0)?
    };
    let targets: Vec<u32> = index.iter().copied().flatten().collect();
    let count = targets.len();
    let sums = zeros.to_dtype(wide)?.index_add(&Tensor::from_vec(targets, count, device)?, &picked, 0)?;
    let reduced = match reduce {
        Reduce::Mean => {
            let counts: Vec<f64> = counts.into_iter().map(|count| f64::from(count.max(1))).collect();
            sums.broadcast_div(&Tensor::from_vec(counts, (groups, 1), device)?.to_dtype(wide)?)?
        }
        _ => sums,
    };
    Ok(reduced.to_dtype(features.dtype())?)
}

/// The largest value of each group and channel; NaN wins, as in PyTorch.
fn largest(features: &Tensor, index: &[Option<u32>], groups: usize) -> Result<Tensor> {
    let (rows, channels) = features.dims2()?;
    let values: Vec<f64> = features.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    let none = rows as u32;
    let mut winners = vec![none; groups * channels];
    for (row, group) in index.iter().enumerate() {
        let Some(group) = *group else { continue };
        for (c, winner) in winners[group as usize * channels..][..channels].iter_mut().enumerate() {
            let value = values[row * channels + c];
            let best = (*winner != none).then(|| values[*winner as usize * channels + c]);
            if best.is_none_or(|best| value > best || (value.is_nan() && !best.is_nan())) {
                *winner = row as u32;
            }
        }
    }
    let zero = Tensor::zeros((1, channels), features.dtype(), features.device())?;
    let winners = Tensor::from_vec(winners, (groups, channels), features.device())?;
    Ok(Tensor::cat(&[features, &zero], 0)?.gather(&winners, 0)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    const INDEX: [Option<u32>; 5] = [Some(1), Some(0), None, Some(1), Some(3)];

    fn features() -> Var {
        Var::new(&[[1f32, -2.0], [3.0, -4.0], [50.0, 60.0], [5.0, -8.0], [7.0, 9.0]], &Device::Cpu).unwrap()
    }

    #[test]
    fn every_reduction_gives_torch_scatter_s_values_and_gradients() {
        for (reduce, values, grad) in [
            (
                Reduce::Sum,
                [[3.0, -4.0], [6.0, -10.0], [0.0, 0.0], [7.0, 9.0]],
                [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]],
            ),
            (
                Reduce::Mean,
                [[3.0, -4.0], [3.0, -5.0], [0.0, 0.0], [7.0, 9.0]],
                [[0.5, 0.5], [1.0, 1.0], [0.0, 0.0], [0.5, 0.5], [1.0, 1.0]],
            ),
            (
                Reduce::Max,
                [[3.0, -4.0], [5.0, -2.0], [0.0, 0.0], [7.0, 9.0]],
                [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]],
            ),
            (
                Reduce::First,
                [[3.0, -4.0], [1.0, -2.0], [0.0, 0.0], [7.0, 9.0]],
                [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0]],
            ),
        ] {
            let x = features();
            let y = scatter(&x, &INDEX, 4, reduce).unwrap();
            assert_eq!(y.to_vec2::<f32>().unwrap(), values, "{reduce:?}");
            let grads = y.sum_all().unwrap().backward().unwrap();
            assert_eq!(grads.get(&x).unwrap().to_vec2::<f32>().unwrap(), grad, "{reduce:?}");
        }
    }

    #[test]
    fn bad_input_is_named() {
        let x = features();
        assert!(scatter(&x, &INDEX, 3, Reduce::Sum).unwrap_err().to_string().contains("groups below 3"));
        assert!(scatter(&x, &INDEX[..4], 4, Reduce::Sum).unwrap_err().to_string().contains("(4, channels)"));
        let none = scatter(&x, &[None; 5], 2, Reduce::Max).unwrap();
        assert_eq!(none.to_vec2::<f32>().unwrap(), [[0.0, 0.0]; 2]);
    }
}
