"""The peers' rows of docs/compression.md: a mesh in Draco's format at several precisions, and its OBJ file compressed by zstd.

    pip install DracoPy==2.2.0 zstandard==0.25.0 trimesh==5.2.0 rtree scipy numpy && python bench/compression.py notebooks/meshes/bunny.obj

Chamfer distances (mean there plus mean back, 20,000 points each) are in units of the cube that WaveMesh scales a mesh into: its
largest extent is 2 / 1.1. A WaveMesh file holds a distance field, of which the surface is a level set; Draco's file holds triangles.
"""

import sys

import DracoPy
import numpy as np
import trimesh
import zstandard


def distance(points, mesh):
    _, found, _ = trimesh.proximity.closest_point(mesh, points)
    return found.mean()


def chamfer(a, b):
    draw = lambda mesh, seed: trimesh.sample.sample_surface(mesh, 20_000, seed=seed)[0]  # noqa: E731
    return distance(draw(a, 0), b) + distance(draw(b, 1), a)


def main(path):
    mesh = trimesh.load(path, process=False)
    scale = 2 / 1.1 / mesh.extents.max()
    mesh.apply_scale(scale)
    content = open(path, "rb").read()
    print("| file | bytes | Chamfer to the mesh |")
    print("| --- | ---: | ---: |")
    print(f"| OBJ | {len(content)} | 0 |")
    print(f"| OBJ, zstd level 19 | {len(zstandard.ZstdCompressor(level=19).compress(content))} | 0 |")
    for bits in (8, 9, 10, 11, 14):
        encoded = DracoPy.encode(
            mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32), quantization_bits=bits, compression_level=10
        )
        back = DracoPy.decode(encoded)
        decoded = trimesh.Trimesh(back.points, back.faces, process=False)
        print(f"| Draco, {bits} bits a coordinate | {len(encoded)} | {chamfer(decoded, mesh):.4f} |")


if __name__ == "__main__":
    main(sys.argv[1])
