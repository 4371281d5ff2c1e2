//! Wavelet filters, PyWavelets' transforms, and sparse coefficients.
