"""Points: those of a LiDAR sweep into voxels and back, and attention among sites, beside spconv and torch."""

import numpy as np

from harness import Case, Work, close, peer

VOXEL, RANGE = (0.1, 0.1, 0.2), (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)
SHAPE = (20, 800, 704)


def sweep(count, seed=0):
    """Rings on the ground, and walls, denser near the sensor: (x, y, z, intensity)."""
    random = np.random.default_rng(seed)
    angle, distance = random.uniform(-0.8, 0.8, count), 5 + 60 * random.beta(1, 3, count)
    height = np.where(random.random(count) < 0.7, -1.7 + 0.02 * random.standard_normal(count), random.uniform(-1.7, 0.8, count))
    points = [distance * np.cos(angle), distance * np.sin(angle), height, random.random(count)]
    return np.stack(points, 1).astype(np.float32)


@peer("spconv", "torch", "suites._spconv", package="spconv")
def voxels(case):
    """`PointToVoxel`, and the mean that detectors compute from it."""
    import torch

    from . import _spconv  # noqa: F401
    from spconv.pytorch.utils import PointToVoxel

    points = torch.from_numpy(case.inputs["points"])
    voxelizer = PointToVoxel(list(VOXEL), list(RANGE), 4, 120_000, 40)

    def run():
        voxels, indices, counts = voxelizer(points)
        return indices, voxels.sum(1) / counts[:, None]

    def answer(result):
        indices, mean = (tensor.numpy() for tensor in result)
        order = np.lexsort(indices.T[::-1])
        return {"sites": indices[order].astype(np.int64), "mean": mean[order]}

    return Work(run, answer)


@peer("torch, gathered", "torch", package="torch")
def interpolated(case):
    """Eight weighted gathers from a dense table of rows, as `spdevoxelize` does on the GPU."""
    import torch

    features = torch.from_numpy(case.inputs["features"])
    sites = torch.from_numpy(case.inputs["indices"])[:, 1:]
    positions = torch.from_numpy(case.inputs["positions"])[:, 1:]
    shape = torch.tensor(SHAPE)
    strides = torch.tensor([SHAPE[1] * SHAPE[2], SHAPE[2], 1])
    table = torch.full((int(shape.prod()),), len(features))
    table[(sites * strides).sum(1)] = torch.arange(len(features))
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])

    def run():
        low = positions.floor()
        part = positions - low
        result = torch.zeros(len(positions), features.shape[1])
        for corner in np.ndindex(2, 2, 2):
            at = low.long() + torch.tensor(corner)
            weight = torch.where(torch.tensor(corner, dtype=torch.bool), part, 1 - part).prod(1)
            inside = ((at >= 0) & (at < shape)).all(1)
            rows = torch.where(inside, table[(at.clamp(min=0).minimum(shape - 1) * strides).sum(1)], len(features))
            result += padded[rows] * weight[:, None]
        return result

    return Work(run, lambda y: {"features": y.numpy()})


@peer("torch", "torch", package="torch")
def attention(case):
    """Attention within windows of 8³ cells: sites padded to the longest window, masked, in one call."""
    import torch
    import torch.nn.functional as F

    q, k, v = (torch.from_numpy(case.inputs[name]) for name in "qkv")
    _, window = np.unique(case.inputs["indices"][:, 1:] // 8, axis=0, return_inverse=True)
    order = np.argsort(window.reshape(-1), kind="stable")
    counts = np.bincount(window.reshape(-1))
    place = np.concatenate([np.arange(n) for n in counts])
    groups, rows = np.repeat(np.arange(len(counts)), counts), torch.from_numpy(order)
    groups, place = torch.from_numpy(groups), torch.from_numpy(place)
    mask = torch.zeros(len(counts), 1, 1, int(counts.max()), dtype=torch.bool)
    mask[groups, 0, 0, place] = True

    @torch.no_grad()
    def run():
        padded = [t.new_zeros(len(counts), int(counts.max()), *t.shape[1:]) for t in (q, k, v)]
        for into, t in zip(padded, (q, k, v)):
            into[groups, place] = t[rows]
        y = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in padded), attn_mask=mask).transpose(1, 2)
        result = torch.empty_like(v)
        result[rows] = y[groups, place]
        return result

    return Work(run, lambda y: {"features": y.numpy()})


def voxel_means(points):
    cells = np.floor((points[:, :3] - np.float32(RANGE[:3])) / np.float32(VOXEL)).astype(np.int64)[:, ::-1]
    inside = ((cells >= 0) & (cells < SHAPE)).all(1)
    return np.unique(cells[inside], axis=0)


def cases(quick):
    from .unet import shell

    count = 30_000 if quick else 120_000

    def devoxelized():
        random, points = np.random.default_rng(1), sweep(count)
        sites = voxel_means(points)
        positions = ((points[:, :3] - np.float32(RANGE[:3])) / np.float32(VOXEL))[:, ::-1] - np.float32(0.5)
        element = np.zeros((len(points), 1), np.float32)
        return {
            "indices": np.insert(sites, 0, 0, axis=1),
            "features": random.standard_normal((len(sites), 32), dtype=np.float32),
            "positions": np.ascontiguousarray(np.concatenate([element, positions], 1)),
        }

    def attended(side=64):
        random, sites = np.random.default_rng(2), shell(side)
        shape = (len(sites), 4, 16)
        return {"indices": sites} | {name: random.standard_normal(shape, dtype=np.float32) for name in "qkv"}

    yield Case("voxelize, mean", f"{count:,} points", "voxelize", lambda: {"points": sweep(count)}, {}, (voxels,), close(1e-5))
    yield Case("devoxelize, trilinear", f"{count:,} points × 32", "devoxelize", devoxelized, {}, (interpolated,), close(1e-4))
    yield Case("windowed attention, 8³", "shell in 64³, 4 heads of 16", "attention", attended, {"side": 64}, (attention,), close(1e-4))
