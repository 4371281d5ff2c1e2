//! Packs many tensors into a few long vectors, so that a sum over a group takes a few large messages.

use candle_core::Tensor;

use crate::Result;

/// Numbers in a bucket: 25 MB of f32, PyTorch's default. A larger tensor gets its own bucket.
const MOST: usize = 25 * (1 << 20) / 4;

/// Sums `tensors` of f32 by a function that sums vectors.
pub(super) fn sum_in_buckets(
    tensors: &[Tensor],
    sum: impl FnOnce(Vec<Tensor>) -> Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    let buckets = split(tensors, MOST);
    let join = |bucket: &&[Tensor]| {
        let flat = bucket.iter().map(Tensor::flatten_all).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&flat, 0)?)
    };
    let vectors = sum(buckets.iter().map(join).collect::<Result<_>>()?)?;
    let mut summed = Vec::with_capacity(tensors.len());
    for (bucket, vector) in buckets.iter().zip(vectors) {
        let mut start = 0;
        for tensor in *bucket {
            let count = tensor.elem_count();
            summed.push(vector.narrow(0, start, count)?.reshape(tensor.shape())?);
            start += count;
        }
    }
    Ok(summed)
}

/// Puts neighbouring tensors together, up to `most` numbers.
fn split(tensors: &[Tensor], most: usize) -> Vec<&[Tensor]> {
    let mut buckets = Vec::new();
    let (mut start, mut count) = (0, 0);
    for (at, tensor) in tensors.iter().enumerate() {
        if at > start && count + tensor.elem_count() > most {
            buckets.push(&tensors[start..at]);
            (start, count) = (at, 0);
        }
        count += tensor.elem_count();
    }
    if start < tensors.len() {
        buckets.push(&tensors[start..]);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn tensors_come_out_of_buckets_as_they_went_in() {
        let tensors: Vec<Tensor> = [vec![2, 3], vec![4], vec![1, 1, 5], vec![], vec![0, 7]]
            .into_iter()
            .enumerate()
            .map(|(i, shape)| (Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap() * (i + 1) as f64).unwrap())
            .collect();
        assert_eq!(split(&tensors, 7).iter().map(|bucket| bucket.len()).collect::<Vec<_>>(), [1, 1, 3]);
        assert_eq!(split(&tensors, 100).len(), 1);
        let twice = |vectors: Vec<Tensor>| vectors.iter().map(|v| Ok((v * 2.0)?)).collect();
        for (before, after) in tensors.iter().zip(sum_in_buckets(&tensors, twice).unwrap()) {
            assert_eq!(before.dims(), after.dims());
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(before).iter().map(|v| v * 2.0).collect::<Vec<_>>(), flat(&after));
        }
        assert!(sum_in_buckets(&[], Ok).unwrap().is_empty());
    }
}
