//! The limits of this machine: the GEMM peak and the memory bandwidth. The shares in the table refer to them.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::work::{Answer, Case, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    match case.op.as_str() {
        "gemm" => gemm(case),
        "triad" => triad(case),
        _ => Err(case.unknown_op()),
    }
}

/// The matrix product behind every dense layer, (n, n) · (n, n).
fn gemm(case: &Case) -> Result<Work> {
    let (a, b) = (case.tensor("a")?, case.tensor("b")?);
    Ok(Work::new(move || a.matmul(&b), |c: &Tensor| Answer::default().tensor("c", c)))
}

/// McCalpin's STREAM triad `a = b + s·c`, on every thread, written to memory that is already allocated.
fn triad(case: &Case) -> Result<Work> {
    const CHUNK: usize = 1 << 16;
    let (b, c): (Vec<f32>, Vec<f32>) = (case.values("b")?, case.values("c")?);
    let scale: f32 = case.param("scale")?;
    let mut a = c.clone();
    let run = move || {
        let chunks = a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).zip(c.par_chunks(CHUNK));
        chunks.for_each(|((a, b), c)| {
            for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                *a = b + scale * c;
            }
        });
        // A few values stand for all: the time of a copy of the whole array would count too.
        Ok::<_, crate::work::Error>(a.iter().copied().step_by(a.len() / 1000).collect::<Vec<f32>>())
    };
    Ok(Work::new(run, |sample: &Vec<f32>| Answer::default().values("sample", sample, &[sample.len()])))
}
