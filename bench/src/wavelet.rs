//! Wavelet transforms, and the codec that is built on them.

use wavemesh::sdf::SdfGrid;
use wavemesh::wavelet::{
    Mode, NdArray, SparseWavelet, Threshold, Wavelet, WaveletCoeffs, WaveletConfig, wavedecn, waverecn,
};

use crate::work::{Answer, Case, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    let (grid, shape) = (case.values::<f32>("grid")?, case.tensor("grid")?.dims().to_vec());
    let (wavelet, level) = (Wavelet::from_name("bior4.4")?, case.param("level")?);
    match case.op.as_str() {
        "wavedecn" => Ok(Work::new(
            move || wavedecn(&grid, &shape, &wavelet, Mode::Periodization, level),
            |coeffs: &WaveletCoeffs<f32>| {
                let bands: Vec<f32> = coeffs.bands().flat_map(|band| band.data.iter().copied()).collect();
                Answer::default().values("bands", &bands, &[bands.len()])
            },
        )),
        "waverecn" => {
            let coeffs = wavedecn(&grid, &shape, &wavelet, Mode::Periodization, level)?;
            let answer = |grid: &NdArray<f32>| Answer::default().values("grid", &grid.data, &grid.shape);
            Ok(Work::new(move || waverecn(&coeffs), answer))
        }
        "codec" => {
            let &[nx, ny, nz] = &shape[..] else { return Err("the grid must have three axes".into()) };
            let sdf = SdfGrid::from_values(grid, [nx, ny, nz])?;
            let threshold = Threshold::Plain(case.param("threshold")?);
            // The peers encode plain values.
            let config = WaveletConfig::new().level(level).threshold(threshold).truncation(None);
            let run = move || {
                let coeffs = sdf.encode(&config)?;
                Ok::<_, wavemesh::Error>((coeffs.decode()?, coeffs))
            };
            Ok(Work::new(run, |(grid, coeffs): &(SdfGrid, SparseWavelet)| {
                Ok(Answer::default().values("grid", grid.values(), &grid.shape())?.fact("kept", coeffs.len()))
            }))
        }
        _ => Err(case.unknown_op()),
    }
}
