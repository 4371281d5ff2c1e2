"""Encoding a grid to sparse wavelet rows and decoding it, beside the same with PyWavelets and NumPy: bior4.4, periodization."""

import numpy as np

from harness import Case, Work, close, peer

from .isosurface import bumpy_torus


@peer("PyWavelets", "pywt")
def pywavelets(case):
    import pywt

    grid, level, threshold = case.inputs["grid"], case.params["level"], case.params["threshold"]
    arguments = ("bior4.4", "periodization")

    def codec():
        coeffs = pywt.wavedecn(grid, *arguments, level)
        bands = [coeffs[0], *(details[name] for details in coeffs[1:] for name in sorted(details))]
        rows, values = [], []
        for band, array in enumerate(bands):
            place = np.argwhere(np.abs(array) > threshold)
            rows.append(np.hstack([place, np.full((len(place), 1), band)]).astype(np.int32))
            values.append(array[tuple(place.T)])
        rows, values = np.concatenate(rows), np.concatenate(values)
        # And back.
        empty = [np.zeros_like(band) for band in bands]
        for band, array in enumerate(empty):
            own = rows[:, 3] == band
            array[tuple(rows[own, :3].T)] = values[own]
        names = sorted(coeffs[1])
        details = [dict(zip(names, empty[i : i + 7])) for i in range(1, len(empty), 7)]
        return pywt.waverecn([empty[0], *details], *arguments), len(values)

    return Work(codec, lambda result: {"grid": result[0]}, lambda result: {"kept": result[1]})


def cases(quick):
    for n in (64,) if quick else (64, 128):
        parameters = {"level": 3, "threshold": 1e-3}
        yield Case("encode and decode", f"{n}³", "codec", lambda n=n: {"grid": bumpy_torus(n)}, parameters, (pywavelets,), close(1e-4), headline=n == 64)
