//! Small sparse tensors for unit tests.

use candle_core::{Device, Tensor};

use super::tensor::SparseConvTensor;
use crate::Result;

pub fn features(n: usize, channels: usize) -> Tensor {
    Tensor::arange(0f32, (n * channels) as f32, &Device::Cpu).unwrap().reshape((n, channels)).unwrap()
}

pub fn indices(rows: &[[i64; 4]]) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), 4), &Device::Cpu).unwrap()
}

pub fn tensor(rows: &[[i64; 4]]) -> SparseConvTensor {
    SparseConvTensor::new(features(rows.len(), 2), indices(rows), [3, 4, 5], 2).unwrap()
}

pub fn message(result: Result<SparseConvTensor>) -> String {
    result.unwrap_err().to_string()
}
