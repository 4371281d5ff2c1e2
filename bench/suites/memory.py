"""Whole jobs and the memory they take: mesh to coefficients and back, a training pass over sparse layers."""

import os

import numpy as np

from harness import Case, Limit, Work, close, peer

from .sdf import bunny, samples
from .unet import shell

LAYERS, CHANNELS = 4, 32


@peer("Open3D, PyWavelets, scikit-image", "open3d", "pywt", "skimage.measure", package="open3d-cpu")
def chain(case):
    """The round trip as one would write it in Python."""
    import open3d as o3d
    import pywt
    from skimage.measure import marching_cubes

    n, threads = case.params["resolution"], int(os.environ["OMP_NUM_THREADS"])
    vertices, faces = o3d.core.Tensor(case.inputs["vertices"]), o3d.core.Tensor(case.inputs["faces"].astype(np.uint32))

    def run():
        points = o3d.core.Tensor(samples(n).astype(np.float32))
        scene = o3d.t.geometry.RaycastingScene(nthreads=threads)
        scene.add_triangles(vertices, faces)
        grid = scene.compute_signed_distance(points, nthreads=threads).numpy().reshape(n, n, n)
        coeffs = pywt.wavedecn(grid, "bior4.4", "periodization", 3)
        bands = [coeffs[0], *(level[name] for level in coeffs[1:] for name in sorted(level))]
        rows = [np.argwhere(np.abs(band) > np.float32(0.01)) for band in bands]
        values = [band[tuple(places.T)] for band, places in zip(bands, rows)]
        kept = [np.zeros_like(band) for band in bands]
        for band, places, numbers in zip(kept, rows, values):
            band[tuple(places.T)] = numbers
        details = [dict(zip(sorted(coeffs[1]), kept[first : first + 7])) for first in range(1, len(kept), 7)]
        decoded = pywt.waverecn([kept[0], *details], "bior4.4", "periodization")
        return sum(map(len, values)), marching_cubes(decoded, 0.0, spacing=(2 / (n - 1),) * 3)

    def measures(result):
        corners = result[1][0].astype(np.float64)[result[1][1]]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        volume = abs(np.einsum("ij,ij->", corners[:, 0] - corners.mean(axis=(0, 1)), across)) / 6
        return {"area": np.array([np.linalg.norm(across, axis=1).sum() / 2]), "volume": np.array([volume])}

    return Work(run, measures, lambda result: {"coefficients": result[0]})


@peer("torch, gathered", "torch", package="torch")
def gathered(case):
    """The layers as one would write them in torch: each kernel offset gathers, multiplies, and adds to the output's rows."""
    import torch

    features, weights = torch.from_numpy(case.inputs["features"]), torch.from_numpy(case.inputs["weights"])
    weights = [weight.reshape(len(weight), 27, -1).permute(1, 2, 0).contiguous().requires_grad_() for weight in weights]
    pairs = [[torch.from_numpy(rows) for rows in ends] for ends in neighbours(case.inputs["indices"], case.params["shape"])]

    def run():
        x = features
        for weight in weights:
            weight.grad = None
            y = x.new_zeros(len(x), weight.shape[2])
            for matrix, (out_rows, in_rows) in zip(weight, pairs):
                y = y.index_add(0, out_rows, x[in_rows] @ matrix)
            x = torch.relu(y)
        x.square().mean().backward()
        return x.detach(), weights[0].grad

    def answer(result):
        grad = result[1].permute(2, 0, 1).reshape(case.inputs["weights"].shape[1:])
        return {"features": result[0].numpy(), "grad": grad.contiguous().numpy()}

    return Work(run, answer)


def neighbours(indices, shape):
    """For each of the 27 offsets of a submanifold convolution: the rows of outputs, and the rows of the inputs that they read."""
    keys = np.ravel_multi_index(indices[:, 1:].T, shape)
    for offset in np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3):
        moved = indices[:, 1:] + offset
        out_rows = np.flatnonzero(((moved >= 0) & (moved < shape)).all(axis=1))
        wanted = np.ravel_multi_index(moved[out_rows].T, shape)
        in_rows = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        active = keys[in_rows] == wanted
        yield out_rows[active], in_rows[active]


def layers(side):
    random, indices = np.random.default_rng(side), shell(side)
    features = random.standard_normal((len(indices), CHANNELS), dtype=np.float32)
    weights = random.standard_normal((LAYERS, CHANNELS, 3, 3, 3, CHANNELS), dtype=np.float32)
    return {"indices": indices, "features": features, "weights": weights / np.float32(np.sqrt(9 * CHANNELS))}


def cases(quick):
    for resolution in (64,) if quick else (64, 128, 256):
        yield Case(
            "bunny to coefficients and back to a mesh", f"{resolution}³", "round_trip", bunny, {"resolution": resolution}, (chain,),
            close(2e-3),
        )  # fmt: skip
    for side in (64,) if quick else (64, 222):
        indices, shape = shell(side), [side] * 3
        joined = sum(len(rows) for rows, _ in neighbours(indices, shape))
        yield Case(
            f"training pass, {LAYERS} × (SubMConv3d {CHANNELS} → {CHANNELS}, ReLU)", f"{len(indices):,} sites of {side}³",
            "training_pass", lambda side=side: layers(side), {"shape": shape}, (gathered,),
            limit=Limit(flops=3 * LAYERS * 2 * joined * CHANNELS**2),
        )  # fmt: skip
