"""Sparse convolution, kernel 3³, on the shells |r − 0.4·R| < 0.9: beside spconv's CPU wheel, and torch on the dense grid."""

import functools

import numpy as np

from harness import Case, Limit, Work, close, peer

from .memory import neighbours
from .unet import shell

@functools.lru_cache(maxsize=2)
def joined(side):
    """The pairs (output row, input row) of a submanifold convolution on the shell of this grid, offset by offset."""
    return list(neighbours(shell(side), [side] * 3))


def spconv_sites(case):
    """Sites in spconv's form: it reads their memory directly, so it must be contiguous."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(case.inputs["indices"], dtype=np.int32))


def spconv_search(case, sites):
    """spconv's own search: (output sites, pairs [in/out, offset, :], pairs of each offset)."""
    from ._spconv import ConvAlgo, ops

    stride = case.params["stride"]
    return ops.get_indice_pairs(
        sites, 1, [case.params["side"]] * 3, ConvAlgo.Native, [3] * 3, [stride] * 3, [1] * 3, [1] * 3, [0] * 3, stride == 1
    )  # fmt: skip


def spconv_pairs(case, found):
    """The number of pairs and the sum of their hashes, for each offset."""
    sites, pairs, counts = (tensor.numpy() for tensor in found)
    if case.params["stride"] == 1:  # spconv counts half of the offsets; the others mirror them, and the centre joins all sites
        counts = np.concatenate([counts[:13], [len(sites)], counts[12::-1]])
    side = (case.params["side"] - 1) // case.params["stride"] + 1
    cells = np.ravel_multi_index(sites[:, 1:].T.astype(np.int64), [side] * 3)
    hashes = lambda r, n: (cells[pairs[1, r, :n]] * 2654435761 + pairs[0, r, :n].astype(np.int64) * 40503) % (1 << 32)
    return np.array([[n, hashes(r, n).sum()] for r, n in enumerate(counts)], dtype=np.int64)


@peer("spconv", "torch", "suites._spconv", package="spconv")
def spconv(case):
    import torch

    from ._spconv import sp

    sites, side = spconv_sites(case), case.params["side"]
    if case.op == "map":
        return Work(lambda: spconv_search(case, sites), lambda found: {"pairs": spconv_pairs(case, found)})

    features = torch.from_numpy(case.inputs["features"])
    outputs, *_, inputs = case.inputs["weight"].shape
    layer = sp.SubMConv3d(inputs, outputs, 3, bias=False, indice_key="subm")
    layer.load_state_dict({"weight": torch.from_numpy(case.inputs["weight"])})
    layer.eval()

    @torch.no_grad()
    def first():
        """Pairs and features, and the tensor that keeps its pairs."""
        x = sp.SparseConvTensor(features, sites, [side] * 3, 1)
        return x, layer(x)

    if case.op == "first_forward":
        return Work(first, lambda result: {"features": result[1].features.numpy()})
    x, y = first()
    x.indice_dict = y.indice_dict
    return Work(torch.no_grad()(lambda: layer(x)), lambda y: {"features": y.features.numpy()})


@peer("torch, dense", "torch", package="torch")
def torch_dense(case):
    """conv3d on the whole grid; the grid is filled before, and the sites are read after."""
    import torch

    side, features = case.params["side"], torch.from_numpy(case.inputs["features"])
    weight = torch.from_numpy(case.inputs["weight"]).permute(0, 4, 1, 2, 3).contiguous()
    _, z, y, x = torch.from_numpy(case.inputs["indices"]).T
    grid = torch.zeros(1, features.shape[1], side, side, side)

    @torch.no_grad()
    def run():
        grid[0, :, z, y, x] = features.T
        return torch.nn.functional.conv3d(grid, weight, padding=1)[0, :, z, y, x].T

    return Work(run, lambda y: {"features": y.numpy()})


@peer("torch, gathered", "torch", package="torch")
def gathered(case):
    """spconv's CPU wheel has no gradients. So for each offset, this gathers, multiplies, and adds to the output's rows; torch
    differentiates it."""
    import torch

    x = torch.from_numpy(case.inputs["features"]).requires_grad_()
    weight = torch.from_numpy(case.inputs["weight"])
    weight = weight.reshape(len(weight), 27, -1).permute(1, 2, 0).contiguous().requires_grad_()
    grad = torch.ones(len(x), weight.shape[2])
    pairs = [[torch.from_numpy(rows) for rows in ends] for ends in joined(case.params["side"])]

    def run():
        y = x.new_zeros(len(x), weight.shape[2])
        for matrix, (out_rows, in_rows) in zip(weight, pairs):
            y = y.index_add(0, out_rows, x[in_rows] @ matrix)
        return y.detach(), *torch.autograd.grad(y, [x, weight], grad)

    def answer(result):
        y, x_grad, weight_grad = (tensor.numpy() for tensor in result)
        weight_grad = np.ascontiguousarray(weight_grad.transpose(2, 0, 1)).reshape(case.inputs["weight"].shape)
        return {"features": y, "x_grad": x_grad, "weight_grad": weight_grad}

    return Work(run, answer)


def inputs(side, channels, shuffled=False):
    random, indices = np.random.default_rng(side), shell(side)
    if shuffled:
        indices = random.permutation(indices)
    features = random.standard_normal((len(indices), channels), dtype=np.float32)
    weight = random.standard_normal((channels, 3, 3, 3, channels), dtype=np.float32) / np.float32(np.sqrt(16 * channels))
    return {"indices": indices, "features": features, "weight": weight}


def cases(quick):
    sides = (64,) if quick else (64, 128)

    def case(name, op, side, channels, peers, passes=0, stride=1, **more):
        size = f"{len(shell(side)):,} sites of {side}³"
        flops = passes * 2 * sum(len(rows) for rows, _ in joined(side)) * channels**2 if passes else 0
        return Case(
            name, f"{size}, {channels} channels" if passes else size, op, lambda: inputs(side, channels),
            {"side": side, "stride": stride}, peers, limit=Limit(flops=flops) if passes else None, **more,
        )  # fmt: skip

    for side in sides:
        for channels in (16, 64) if quick else (16, 32, 64, 128):
            peers = (spconv, torch_dense) if channels == 32 else (spconv,)
            yield case("SubMConv3d forward, map cached", "forward", side, channels, peers, 1, headline=side == 128 and channels == 64)
    for side in sides:
        for name, stride in (("submanifold", 1), ("stride 2", 2)):
            yield case(f"sites and kernel map, {name}", "map", side, 1, (spconv,), stride=stride)
    for side in sides[-1:]:
        for channels in (16,) if quick else (16, 32, 64, 128):
            yield case("SubMConv3d forward and backward", "forward_backward", side, channels, (gathered,), 3, check=close(1e-3))
    for channels in () if quick else (16, 32):
        yield Case(
            "SubMConv3d forward, map cached, rows shuffled", f"{len(shell(256)):,} sites of 256³, {channels} channels", "forward",
            lambda channels=channels: inputs(256, channels, shuffled=True), {"side": 256, "stride": 1}, (spconv,),
        )  # fmt: skip
    for side in () if quick else (17, 53, 166, 525):
        for name, op in (("map cached", "forward"), ("map built", "first_forward")):
            yield case(f"scaling: forward, {name}", op, side, 32, (spconv,), 1)
