//! Any bytes, read as compressed wavelet coefficients: an error or coefficients that decode, never a panic.
#![no_main]

use wavemesh::wavelet::SparseWavelet;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(coefficients) = SparseWavelet::decompress(bytes) {
        // A large grid that fits in memory would only take time.
        if coefficients.layout().total() < 1 << 20 {
            let _ = coefficients.decode();
        }
    }
});
