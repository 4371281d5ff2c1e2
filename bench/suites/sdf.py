"""Signed distance grids of the bunny beside libigl and Open3D.

libigl's fast winding number bends distances (it multiplies them by 1 - 2w with an approximate w), so against it values must agree
within 0.3 %; against Open3D within 0.01 %."""

from pathlib import Path

import numpy as np

from harness import Case, Work, close, peer

BUNNY = Path(__file__).parents[2] / "notebooks/meshes/bunny.obj"


def bunny():
    """Vertices centred and scaled as `SdfGrid::from_mesh` does, and triangles."""
    lines = [line.split() for line in BUNNY.read_text().splitlines()]
    vertices = np.array([[float(c) for c in line[1:4]] for line in lines if line and line[0] == "v"])
    faces = np.array([[int(c) - 1 for c in line[1:4]] for line in lines if line and line[0] == "f"], np.int64)
    low, high = vertices.min(0), vertices.max(0)
    return {"vertices": ((vertices - (low + high) / 2) * 2 / (1.1 * (high - low).max())).astype(np.float32), "faces": faces}


def samples(n):
    axis = np.linspace(-1, 1, n)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


@peer("libigl", "igl")
def libigl(case):
    import igl

    n = case.params["n"]
    points, vertices, faces = samples(n), case.inputs["vertices"].astype(np.float64), case.inputs["faces"]
    kind = igl.SIGNED_DISTANCE_TYPE_FAST_WINDING_NUMBER
    return Work(lambda: igl.signed_distance(points, vertices, faces, kind)[0], lambda d: {"distance": d.reshape(n, n, n)})


@peer("Open3D", "open3d", package="open3d-cpu")
def open3d(case):
    import open3d as o3d

    n = case.params["n"]
    points = o3d.core.Tensor(samples(n).astype(np.float32))
    vertices = o3d.core.Tensor(case.inputs["vertices"])
    faces = o3d.core.Tensor(case.inputs["faces"].astype(np.uint32))

    def distance():
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(vertices, faces)
        return scene.compute_signed_distance(points).numpy()

    return Work(distance, lambda d: {"distance": d.reshape(n, n, n)})


def cases(quick):
    for n in (64,) if quick else (64, 128):
        for other, check in ((open3d, close(1e-4)), (libigl, close(3e-3))):
            yield Case("distance of the bunny", f"{n}³", "distance", bunny, {"n": n}, (other,), check, headline=n == 128 and other is open3d)
