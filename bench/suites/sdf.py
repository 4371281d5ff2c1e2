"""Distance grids of the bunny and of meshes with gaps, outliers, slivers, a million triangles and no inside, beside libigl and Open3D.

libigl's fast winding number bends distances (it multiplies them by 1 - 2w with an approximate w), so against it values must agree
within 0.3 %; against Open3D within 0.01 %."""

from pathlib import Path

import numpy as np

from harness import Case, Work, close, peer

from .mesh import torus

BUNNY = Path(__file__).parents[2] / "notebooks/meshes/bunny.obj"


def framed(vertices, faces):
    """Vertices centred and scaled as `SdfGrid::from_mesh` does, and triangles."""
    low, high = vertices.min(0), vertices.max(0)
    return {"vertices": ((vertices - (low + high) / 2) * 2 / (1.1 * (high - low).max())).astype(np.float32), "faces": faces}


def bunny():
    lines = [line.split() for line in BUNNY.read_text().splitlines()]
    vertices = np.array([[float(c) for c in line[1:4]] for line in lines if line and line[0] == "v"])
    faces = np.array([[int(c) - 1 for c in line[1:4]] for line in lines if line and line[0] == "f"], np.int64)
    return framed(vertices, faces)


def joined(*parts):
    """Several meshes side by side in one mesh."""
    first = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    return np.concatenate([v for v, _ in parts]), np.concatenate([faces + start for (_, faces), start in zip(parts, first)])


def ball(rings, radius, x=0.0):
    """A closed tube bent into a ring: 2·rings² triangles inside a ball of that radius."""
    vertices, faces = torus(rings)
    return vertices.astype(np.float64) * radius / 0.85 + [x, 0, 0], faces


def gap():
    """Two rings far apart; most of the box around them is empty."""
    return framed(*joined(ball(70, 0.05), ball(70, 0.05, 1.0)))


def outlier():
    """A ring, and a speck a hundred times the ring's size away."""
    return framed(*joined(ball(100, 0.5), ball(4, 0.001, 50.0)))


def slivers():
    """A rod with 10,000 sides: its triangles are 6,000 times as long as wide."""
    n = 10_000
    angle = 2 * np.pi * np.arange(n) / n
    rim = np.stack([0.5 * np.cos(angle), 0.5 * np.sin(angle)], 1)
    vertices = np.concatenate([np.c_[rim, np.full(n, -1.0)], np.c_[rim, np.full(n, 1.0)], [[0, 0, -1.0], [0, 0, 1.0]]])
    i, j = np.arange(n), (np.arange(n) + 1) % n
    low, high = np.full(n, 2 * n), np.full(n, 2 * n + 1)
    sides = [np.stack(each, 1) for each in ((i, j, j + n), (i, j + n, i + n), (j, i, low), (i + n, j + n, high))]
    return framed(vertices, np.concatenate(sides))


def million():
    return framed(*ball(707, 1.0))


def scan():
    """A rough sheet seen from one side; a fiftieth of its triangles are missing."""
    n = 400
    axis = np.linspace(-1, 1, n)
    x, y = (each.ravel() for each in np.meshgrid(axis, axis, indexing="ij"))
    rng = np.random.default_rng(0)
    z = 0.3 * np.sin(5 * x) * np.cos(4 * y) + 0.003 * rng.standard_normal(n * n)
    i, j = (each.ravel() for each in np.meshgrid(np.arange(n - 1), np.arange(n - 1), indexing="ij"))
    a, b, c, d = i * n + j, (i + 1) * n + j, (i + 1) * n + j + 1, i * n + j + 1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return framed(np.stack([x, y, z], 1), faces[rng.random(len(faces)) > 0.02])


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
        return (scene.compute_distance if case.params.get("unsigned") else scene.compute_signed_distance)(points).numpy()

    return Work(distance, lambda d: {"distance": d.reshape(n, n, n)})


def cases(quick):
    for n in (64,) if quick else (64, 128):
        for other, check in ((open3d, close(1e-4)), (libigl, close(3e-3))):
            yield Case("distance of the bunny", f"{n}³", "distance", bunny, {"n": n}, (other,), check, headline=n == 128 and other is open3d)
    odd = {"two rings and a gap": gap, "a ring and an outlier": outlier, "a rod of slivers": slivers, "a million triangles": million}
    for name, mesh in {"two rings and a gap": gap}.items() if quick else odd.items():
        yield Case(f"distance of {name}", "64³", "distance", mesh, {"n": 64}, (open3d,), close(1e-4))
    if not quick:
        yield Case("distance of an open scan", "64³", "distance", scan, {"n": 64, "unsigned": True}, (open3d,), close(1e-4))
