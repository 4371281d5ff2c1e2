"""Wavelet transforms beside PyWavelets (which uses one thread): bior4.4, three levels, periodization, f32."""

import numpy as np

from harness import Case, Limit, Work, close, peer

from .isosurface import bumpy_torus

ARGUMENTS = ("bior4.4", "periodization")


@peer("PyWavelets", "pywt")
def pywavelets(case):
    import pywt

    grid, level = case.inputs["grid"], case.params["level"]
    if case.op == "wavedecn":
        return Work(lambda: pywt.wavedecn(grid, *ARGUMENTS, level), answer=lambda coeffs: {"bands": flat(coeffs)})
    coeffs = pywt.wavedecn(grid, *ARGUMENTS, level)
    return Work(lambda: pywt.waverecn(coeffs, *ARGUMENTS), answer=lambda grid: {"grid": grid})


def flat(coeffs):
    """All bands in the order of their ids."""
    bands = [coeffs[0], *(band for level in coeffs[1:] for _, band in sorted(level.items()))]
    return np.concatenate([band.ravel() for band in bands])


def cases(quick):
    for n in (128,) if quick else (128, 256):
        for op in ("wavedecn", "waverecn"):
            # Each level reads its grid once and writes as much: 1 + 1/8 + 1/64 of the whole grid.
            least = Limit(bytes=2 * 4 * n**3 * (1 + 1 / 8 + 1 / 64))
            yield Case(op, f"{n}³", op, lambda n=n: {"grid": bumpy_torus(n)}, {"level": 3}, (pywavelets,), close(1e-5), least, headline=(op, n) == ("wavedecn", 256))
