//! The constructor of `SparseConvTensor`, with any shapes and any coordinates. A tensor that it accepts must be consistent.
//!
//! `bash fuzz/run.sh sparse_tensor`

#![no_main]

use candle_core::{Device, Tensor};
use libfuzzer_sys::{arbitrary, fuzz_target};
use wavemesh::sparse::SparseConvTensor;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    shape: [u32; 3],
    /// Makes most shapes small, so that sites are inside the grid.
    small: bool,
    batch: u16,
    rows: Vec<[i64; 4]>,
    near: Vec<[u8; 4]>,
    feature_rows: Option<u8>,
    channels: u8,
}

fuzz_target!(|input: Input| {
    let shape = input.shape.map(|n| if input.small { n as usize % 64 } else { n as usize });
    let batch = input.batch as usize;
    let mut rows = input.near.iter().map(|row| row.map(i64::from)).collect::<Vec<_>>();
    rows.extend(&input.rows);
    let count = input.feature_rows.map_or(rows.len(), usize::from);
    let device = Device::Cpu;
    let features = Tensor::zeros((count, input.channels as usize), candle_core::DType::F32, &device).unwrap();
    let indices = Tensor::from_vec(rows.concat(), (rows.len(), 4), &device).unwrap();
    let Ok(x) = SparseConvTensor::new(features, indices, shape, batch) else { return };
    assert_eq!(x.len(), rows.len());
    let inside = |&[b, z, y, x]: &[i32; 4]| {
        let below = |v: i32, n: usize| v >= 0 && (v as usize) < n;
        below(b, batch) && below(z, shape[0]) && below(y, shape[1]) && below(x, shape[2])
    };
    assert!(x.coords().iter().all(inside));
    let mut distinct = x.coords().to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), x.len());
    assert_eq!(x.sample_at_indices(&x.indices().unwrap()).unwrap().dims(), x.features().dims());
});
