"""Reading mesh files and measuring meshes, beside trimesh: corners merged, area, volume, closed or not."""

import io
import tempfile
from pathlib import Path

import numpy as np

from harness import Case, Work, close, peer

FORMATS = ("obj", "stl", "ply")


def torus(rings):
    """A closed mesh of 2·rings² triangles."""
    angle = np.arange(rings) * 2 * np.pi / rings
    u, v = (each.ravel() for each in np.meshgrid(angle, angle, indexing="ij"))
    vertices = np.stack([(0.6 + 0.25 * np.cos(v)) * np.cos(u), (0.6 + 0.25 * np.cos(v)) * np.sin(u), 0.25 * np.sin(v)], 1)
    i, j = (each.ravel() for each in np.meshgrid(np.arange(rings), np.arange(rings), indexing="ij"))
    corner = lambda di, dj: (i + di) % rings * rings + (j + dj) % rings
    a, b, c, d = corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)
    return vertices.astype(np.float32), np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def written(rings, kind):
    """The bytes of the torus as a file in the given format."""
    vertices, faces = torus(rings)
    out = io.BytesIO()
    if kind == "obj":
        np.savetxt(out, vertices, "v %.7g %.7g %.7g")
        np.savetxt(out, faces + 1, "f %d %d %d")
    elif kind == "stl":
        record = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        record["corners"] = vertices[faces]
        out.write(bytes(80) + np.uint32(len(faces)).tobytes() + record.tobytes())
    else:
        header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
        record = np.zeros(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
        record["count"], record["corners"] = 3, faces
        out.write(header.encode() + vertices.tobytes() + record.tobytes())
    return {"file": np.frombuffer(out.getvalue(), np.uint8)}


@peer("trimesh", "trimesh")
def trimesh(case):
    import trimesh as tm

    folder = tempfile.TemporaryDirectory(prefix="wavemesh-bench-mesh-")
    path = Path(folder.name) / f"mesh.{case.params['format']}"
    path.write_bytes(case.inputs["file"].tobytes())

    def load():
        mesh = tm.load_mesh(path)
        return mesh, mesh.area, mesh.volume, mesh.is_watertight

    def answer(result):
        mesh, area, volume, watertight = result
        assert folder  # the file exists as long as the case
        counts = np.array([len(mesh.vertices), len(mesh.faces), watertight], np.int64)
        return {"area": np.array([area]), "volume": np.array([volume]), "counts": counts}

    return Work(load, answer)


def cases(quick):
    for kind in FORMATS:
        rings = 128 if quick else 512
        size = len(written(rings, kind)["file"])
        yield Case(
            f"read and measure {kind.upper()}", f"{2 * rings**2:,} triangles, {size / 1e6:.1f} MB", "read",
            lambda kind=kind, rings=rings: written(rings, kind), {"format": kind}, (trimesh,), close(1e-4),
        )  # fmt: skip
