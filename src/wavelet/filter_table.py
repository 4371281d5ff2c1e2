"""Writes filter_table.rs: low-pass filters of the orthogonal and biorthogonal wavelets, from PyWavelets (MIT licence).

    pip install PyWavelets==1.9.0 && python filter_table.py > filter_table.rs && rustfmt filter_table.rs

The other filters follow: `filters.rs` says how, and this script checks that they do, exactly.
"""

import pywt

ORTHOGONAL = [f"db{n}" for n in range(1, 21)] + [f"sym{n}" for n in range(2, 21)] + [f"coif{n}" for n in range(1, 6)]
BIORTHOGONAL = pywt.wavelist("bior")


def check(name):
    w = pywt.Wavelet(name)
    sign = [(-1) ** k for k in range(w.dec_len)]
    assert w.dec_hi == [-s * c for s, c in zip(sign, w.rec_lo)], name
    assert w.rec_hi == [s * c for s, c in zip(sign, w.dec_lo)], name


def array(values):
    return "&[" + ", ".join(repr(float(v)) for v in values) + "]"


print("//! Low-pass filters, written by filter_table.py from PyWavelets 1.9.0 (MIT licence). Do not edit.")
print("#![allow(clippy::excessive_precision, clippy::approx_constant)]\n")
print("/// Decomposition low-pass filters of the orthogonal wavelets.")
print("pub(super) const ORTHOGONAL: &[(&str, &[f64])] = &[")
for name in ORTHOGONAL:
    w = pywt.Wavelet(name)
    check(name)
    assert w.rec_lo == w.dec_lo[::-1], name
    print(f'("{name}", {array(w.dec_lo)}),')
print("];\n")
print("/// Decomposition and reconstruction low-pass filters of the biorthogonal wavelets.")
print("pub(super) const BIORTHOGONAL: &[(&str, &[f64], &[f64])] = &[")
for name in BIORTHOGONAL:
    w, r = pywt.Wavelet(name), pywt.Wavelet(name.replace("bior", "rbio"))
    check(name), check(r.name)
    assert r.dec_lo == w.rec_lo[::-1] and r.rec_lo == w.dec_lo[::-1], name
    print(f'("{name}", {array(w.dec_lo)}, {array(w.rec_lo)}),')
print("];")
