"""Encoding a grid to sparse wavelet rows and decoding it, beside the same with PyWavelets and NumPy: bior4.4, periodization."""

import numpy as np

from harness import Case, Limit, Work, WrongAnswer, peer

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
        # Back to the grid.
        empty = [np.zeros_like(band) for band in bands]
        for band, array in enumerate(empty):
            own = rows[:, 3] == band
            array[tuple(rows[own, :3].T)] = values[own]
        names = sorted(coeffs[1])
        details = [dict(zip(names, empty[i : i + 7])) for i in range(1, len(empty), 7)]
        return pywt.waverecn([empty[0], *details], *arguments), len(values)

    return Work(codec, lambda result: {"grid": result[0]}, lambda result: {"kept": result[1]})


THRESHOLD = 1e-3


def same_but_for_ties(_inputs, ours, theirs):
    """Grids must agree within 1e-4 of the largest magnitude. If a coefficient is within rounding of the threshold, one side may keep it
    and the other not; this moves the samples around it by less than the threshold."""
    error = np.abs(ours["grid"].astype(np.float64) - theirs["grid"])
    moved = np.count_nonzero(error > 1e-4 * np.abs(theirs["grid"]).max())
    if moved > 1e-3 * error.size or error.max() > THRESHOLD:
        raise WrongAnswer(f"grid: {moved} of {error.size} samples differ, by up to {error.max():.2e}")


def cases(quick):
    for n in (64,) if quick else (64, 128):
        parameters = {"level": 3, "threshold": THRESHOLD}
        # The grid is read once and written once; the kept coefficients are a tenth of it or less.
        least = Limit(bytes=2 * 4 * n**3)
        yield Case(
            "encode and decode", f"{n}³", "codec", lambda n=n: {"grid": bumpy_torus(n)}, parameters, (pywavelets,), same_but_for_ties, least,
            headline=n == 64,
        )  # fmt: skip
