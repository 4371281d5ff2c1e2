"""Marching cubes beside scikit-image (one thread, method of Lewiner): areas and volumes within 0.1 %."""

import numpy as np

from harness import Case, Limit, Work, close, peer


def bumpy_torus(n):
    """A torus with waves on it, as a distance-like field on n³ samples of [-1, 1]³."""
    axis = np.linspace(-1, 1, n, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    waves = 0.05 * np.sin(9 * x) * np.sin(9 * y) * np.sin(9 * z)
    return (np.hypot(np.hypot(x, y) - np.float32(0.6), z) - np.float32(0.25) + waves).astype(np.float32)


@peer("scikit-image", "skimage", package="scikit-image")
def scikit_image(case):
    from skimage.measure import marching_cubes

    grid = case.inputs["grid"]
    spacing = (2 / (len(grid) - 1),) * 3

    def measures(result):
        # By default its surface faces downhill, towards smaller values.
        corners = (result[0] - 1)[result[1]].astype(np.float64)
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        volume = np.abs((corners[:, 0] * across).sum() / 6)
        return {"area": np.array([np.linalg.norm(across, axis=1).sum() / 2]), "volume": np.array([volume])}

    return Work(lambda: marching_cubes(grid, 0.0, spacing=spacing), measures, lambda result: {"triangles": len(result[1])})


def cases(quick):
    for n in (128,) if quick else (128, 256):
        yield Case(
            "marching cubes", f"{n}³", "marching_cubes", lambda n=n: {"grid": bumpy_torus(n)}, peers=(scikit_image,), check=close(1e-3),
            limit=Limit(bytes=4 * n**3),
        )  # fmt: skip
