//! Checks the features and indices that a caller gives.

use candle_core::{DType, Device, Tensor};

use super::grid::Grid;
use crate::{Error, Result};

/// Checks that features are a float matrix, with `rows` rows if that is given.
pub(super) fn check_features(op: &'static str, features: &Tensor, rows: Option<usize>) -> Result<()> {
    if !features.dtype().is_float() {
        let expected = "a float type (f32, f16, bf16 or f64)";
        return Err(Error::DType { op, what: "features", got: features.dtype(), expected });
    }
    match (features.dims(), rows) {
        (&[_, channels], None) if channels > 0 => Ok(()),
        (&[n, channels], Some(rows)) if n == rows && channels > 0 => Ok(()),
        (got, rows) => Err(Error::Shape {
            op,
            what: "features",
            got: got.to_vec(),
            expected: match rows {
                Some(rows) => format!("({rows}, channels): one row a site, at least one channel"),
                None => "(sites, channels), at least one channel".into(),
            },
        }),
    }
}

/// Reads (N, 1 + axes) integers as sites of a grid with these axes.
pub(super) fn read_indices(op: &'static str, indices: &Tensor, grid: Grid) -> Result<Vec<[i32; 4]>> {
    if !matches!(indices.dtype(), DType::I64 | DType::U32 | DType::I32) {
        return Err(Error::DType { op, what: "indices", got: indices.dtype(), expected: "i64, i32 or u32" });
    }
    let columns = 1 + grid.axes;
    if !matches!(indices.dims(), &[_, found] if found == columns) {
        return Err(Error::Shape {
            op,
            what: "indices",
            got: indices.dims().to_vec(),
            expected: format!("(sites, {columns}): {}", grid.columns()),
        });
    }
    // Sites are kept in the processor's memory, whatever the device of the features.
    let flat = indices.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
    let read = |(row, values): (usize, &[i64])| {
        if values.iter().any(|&v| i32::try_from(v).is_err()) {
            let got = format!("{values:?} ({}) in row {row}", grid.columns());
            return Err(Error::Argument { op, name: "indices", got, expected: "coordinates of a grid".into() });
        }
        let mut site = [0; 4];
        site[0] = values[0] as i32;
        site[4 - grid.axes..].iter_mut().zip(&values[1..]).for_each(|(site, &v)| *site = v as i32);
        Ok(site)
    };
    flat.chunks_exact(columns).enumerate().map(read).collect()
}
