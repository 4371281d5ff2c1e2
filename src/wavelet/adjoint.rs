//! The gradient of a synthesis.

use super::array::NdArray;
use super::layout::WaveletLayout;
use super::mode::Mode;
use super::transform::analyze;

/// The transpose of [`waverecn`](super::waverecn) with cropping: turns a gradient of the grid into a gradient of each band, in the order of
/// ids.
pub(super) fn waverecn_adjoint(grad: &[f32], layout: &WaveletLayout) -> Vec<Vec<f32>> {
    // The transpose of a synthesis is the analysis with the dual wavelet; outside the signal there is nothing.
    let dual = layout.wavelet().dual();
    let mode = if layout.mode() == Mode::Periodization { Mode::Periodization } else { Mode::Zero };
    let mut fine_to_coarse: Vec<Vec<f32>> = Vec::new();
    let mut current = NdArray { shape: layout.frame().shape.to_vec(), data: grad.to_vec() };
    for level in 1..=layout.level() {
        let details = layout.level() - level;
        let band = layout.band_shape(1 + 7 * details as i32).unwrap_or_default();
        let longer = band.map(|m| mode.samples(m, dual.len()).unwrap_or_default());
        let mut bands = analyze(&current.extended(&longer).data, &longer, &dual, mode);
        let details = bands.split_off(1);
        fine_to_coarse.extend(details.into_iter().rev().map(|band| band.data));
        current = bands.swap_remove(0);
    }
    fine_to_coarse.push(current.data);
    fine_to_coarse.reverse();
    fine_to_coarse
}
