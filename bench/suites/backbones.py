"""Ready backbones on a sweep and on a scanned shell: forward in evaluation, and a training pass, beside the same networks on spconv's pairs."""

import numpy as np

from harness import Case, Work, close, peer

from .points import RANGE, SHAPE, VOXEL, sweep
from .unet import shell

SPUNET = {"in_channels": 4, "num_classes": 20, "base_channels": 32, "channels": [32, 64, 128, 128, 96, 96], "layers": [2, 2, 2, 2, 2, 2]}
MINKUNET = {"in_channels": 4, "num_classes": 20, "init_dim": 32, "planes": [32, 64, 128, 256, 128, 128, 96, 96], "layers": [1] * 8}  # MinkUNet14A
VOXEL_RES = {"in_channels": 4, "channels": [16, 32, 64, 128], "out_channels": 128}


# ---- the networks, over the few operations that they are made of --------------------------------------------------------------------


def residual(on, x, name, inputs, outputs, key, norms, shortcut, bias=False):
    y = on.relu(on.norm(on.conv(x, f"{name}.conv1", inputs, outputs, 3, key, bias=bias), f"{name}.{norms[0]}"))
    y = on.norm(on.conv(y, f"{name}.conv2", outputs, outputs, 3, key, bias=bias), f"{name}.{norms[1]}")
    if inputs != outputs:
        x = on.norm(on.conv(x, f"{name}.{shortcut}.0", inputs, outputs, 1, None), f"{name}.{shortcut}.1")
    return on.relu(on.add(y, x))


def spunet(on, x, p):
    base, channels, layers = p["base_channels"], p["channels"], p["layers"]
    levels = len(channels) // 2
    normed = lambda y, name: on.relu(on.norm(y, f"{name}.1"))

    def blocks(x, name, inputs, outputs, count, key):
        for i in range(count):
            x = residual(on, x, f"{name}.block{i}", inputs if i == 0 else outputs, outputs, key, ("bn1", "bn2"), "proj")
        return x

    x = normed(on.conv(x, "conv_input.0", p["in_channels"], base, 5, "stem"), "conv_input")
    skips = []
    for s in range(levels):
        skips.append(x)
        x = normed(on.down(x, f"down.{s}.0", channels[s - 1] if s else base, channels[s], 2, 2, 0, f"spconv{s + 1}"), f"down.{s}")
        x = blocks(x, f"enc.{s}", channels[s], channels[s], layers[s], f"subm{s + 1}")
    for s in reversed(range(levels)):
        finer, (start, end) = channels[s - 1] if s else base, (channels[2 * levels - s - 2], channels[2 * levels - s - 1])
        x = normed(on.inverse(x, f"up.{s}.0", start, end, 2, f"spconv{s + 1}"), f"up.{s}")
        x = blocks(on.cat(x, skips[s]), f"dec.{s}", end + finer, end, layers[2 * levels - s - 1], f"subm{s}")
    return on.conv(x, "final", channels[-1], p["num_classes"], 1, None, bias=True)


def minkunet(on, x, p):
    init, planes = p["init_dim"], p["planes"]

    def blocks(x, number, inputs, outputs, level):
        for i in range(p["layers"][number - 1]):
            names = f"block{number}.{i}", inputs if i == 0 else outputs, outputs, f"s{level}"
            x = residual(on, x, *names, ("norm1", "norm2"), "downsample")
        return x

    x = on.relu(on.norm(on.conv(x, "conv0p1s1", p["in_channels"], init, 5, "stem"), "bn0"))
    skips, width = [], init
    for level in range(4):
        skips.append((x, width))
        x = on.relu(on.norm(on.down(x, f"conv{level + 1}p{1 << level}s2", width, width, 2, 2, 0, f"down{level}"), f"bn{level + 1}"))
        x, width = blocks(x, level + 1, width, planes[level], level + 1), planes[level]
    for step in range(4):
        level, (skip, finer) = 3 - step, skips.pop()
        x = on.relu(on.norm(on.inverse(x, f"convtr{4 + step}p{2 << level}s2", width, planes[4 + step], 2, f"down{level}"), f"bntr{4 + step}"))
        x, width = blocks(on.cat(x, skip), 5 + step, planes[4 + step] + finer, planes[4 + step], level), planes[4 + step]
    return on.conv(x, "final", width, p["num_classes"], 1, None, bias=True)


def voxel_res(on, x, p):
    c = p["channels"]
    normed = lambda y, name: on.relu(on.norm(y, f"{name}.1"))
    x = normed(on.conv(x, "conv_input.0", p["in_channels"], c[0], 3, "subm1"), "conv_input")
    for level in range(4):
        name, first = f"conv{level + 1}", int(level > 0)
        if level:
            padding = (0, 1, 1) if level == 3 else 1
            x = normed(on.down(x, f"{name}.0.0", c[level - 1], c[level], 3, 2, padding, f"spconv{level + 1}"), f"{name}.0")
        for i in (first, first + 1):
            x = residual(on, x, f"{name}.{i}", c[level], c[level], f"res{level + 1}", ("bn1", "bn2"), "downsample", bias=True)
    return normed(on.down(x, "conv_out.0", c[3], p["out_channels"], (3, 1, 1), (2, 1, 1), 0, "spconv_down2"), "conv_out")


NETWORKS = {"spunet": spunet, "minkunet": minkunet, "voxel_res": voxel_res}


# ---- what they run on ----------------------------------------------------------------------------------------------------------------


def triple(value):
    return (value,) * 3 if np.isscalar(value) else tuple(value)


class Weights:
    """Makes the weights; a value is only its number of channels."""

    def __init__(self, seed=0):
        self.random, self.state = np.random.default_rng(seed), {}

    def conv(self, x, name, inputs, outputs, kernel, key, bias=False):
        fan = inputs * int(np.prod(triple(kernel)))
        self.state[f"{name}.weight"] = self.random.standard_normal((outputs, *triple(kernel), inputs), dtype=np.float32) * np.float32((2 / fan) ** 0.5)
        if bias:
            self.state[f"{name}.bias"] = np.zeros(outputs, np.float32)
        return outputs

    def down(self, x, name, inputs, outputs, kernel, stride, padding, key):
        return self.conv(x, name, inputs, outputs, kernel, key)

    def inverse(self, x, name, inputs, outputs, kernel, key):
        return self.conv(x, name, inputs, outputs, kernel, key)

    def norm(self, x, name):
        for leaf, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.state[f"{name}.{leaf}"] = np.full(x, value, np.float32)
        return x

    relu = staticmethod(lambda x: x)
    add = staticmethod(lambda x, y: x)
    cat = staticmethod(lambda x, y: x + y)


class OnPairs:
    """torch, on the pairs that spconv finds once for each key. A value is (rows, level); a level knows its sites."""

    def __init__(self, case, product):
        import torch

        self.torch, self.product, self.train = torch, product, case.op == "train"
        self.eps, self.w = case.params["eps"], {k[2:]: torch.from_numpy(v) for k, v in case.inputs.items() if k.startswith("w/")}
        self.parameters = {k: v.requires_grad_() for k, v in self.w.items() if "running" not in k} if self.train else {}
        sites = torch.from_numpy(np.ascontiguousarray(case.inputs["indices"], np.int32))
        self.levels, self.pairs, self.input = [(sites, list(case.params["shape"]))], {}, torch.from_numpy(case.inputs["features"])

    def find(self, key, level, kernel, stride, padding, submanifold):
        from ._spconv import ConvAlgo, ops

        if key not in self.pairs:
            sites, shape = self.levels[level]
            kernel, stride, padding = triple(kernel), triple(stride), triple(padding)
            found = ops.get_indice_pairs(sites, 1, shape, ConvAlgo.Native, kernel, stride, padding, (1,) * 3, (0,) * 3, submanifold)
            to = level
            if not submanifold:
                to = len(self.levels)
                self.levels.append((found[0], [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape, padding, kernel, stride)]))
            self.pairs[key] = (found[1], found[2], level, to)
        return self.pairs[key]

    def conv(self, x, name, inputs, outputs, kernel, key, bias=False):
        rows, level = x
        if kernel == 1:
            y = rows @ self.w[f"{name}.weight"].reshape(outputs, inputs).T
        else:
            kernel = triple(kernel)
            pairs, counts, *_ = self.find(key, level, kernel, 1, [k // 2 for k in kernel], True)
            y = self.product(rows, self.w[f"{name}.weight"], pairs, counts, len(rows), False, True)
        return (y + self.w[f"{name}.bias"] if bias else y), level

    def down(self, x, name, inputs, outputs, kernel, stride, padding, key):
        rows, level = x
        pairs, counts, _, to = self.find(key, level, kernel, stride, padding, False)
        return self.product(rows, self.w[f"{name}.weight"], pairs, counts, len(self.levels[to][0]), False, False), to

    def inverse(self, x, name, inputs, outputs, kernel, key):
        rows, _ = x
        pairs, counts, level, _ = self.pairs[key]
        return self.product(rows, self.w[f"{name}.weight"], pairs, counts, len(self.levels[level][0]), True, False), level

    def norm(self, x, name):
        rows, level = x
        statistics = [self.w[f"{name}.{leaf}"].clone() for leaf in ("running_mean", "running_var")]
        parameters = [self.w[f"{name}.{leaf}"] for leaf in ("weight", "bias")]
        return self.torch.nn.functional.batch_norm(rows, *statistics, *parameters, self.train, 0.1, self.eps), level

    def relu(self, x):
        return self.torch.relu(x[0]), x[1]

    def add(self, x, y):
        return x[0] + y[0], x[1]

    def cat(self, x, y):
        return self.torch.cat([x[0], y[0]], 1), x[1]

    def run(self, case):
        y, level = NETWORKS[case.params["network"]](self, (self.input, 0), case.params)
        return y, self.levels[level][0]


@peer("spconv", "torch", "suites._spconv", package="spconv")
def spconv(case):
    """spconv's convolutions between torch's layers; every map is known before, as in ours."""
    import torch

    from ._spconv import ConvAlgo, ops

    def product(rows, weight, pairs, counts, outputs, inverse, submanifold):
        return ops.indice_conv(rows, weight, pairs, counts, outputs, inverse, submanifold, ConvAlgo.Native)

    on = OnPairs(case, product)
    run = torch.no_grad()(lambda: on.run(case))
    run()

    def answer(result):
        y, sites = (tensor.numpy() for tensor in result)
        return {"out": y[np.lexsort(sites.T[::-1])]}

    return Work(run, answer)


@peer("torch, gathered", "torch", "suites._spconv", package="torch")
def gathered(case):
    """spconv's CPU wheel has no gradients. So for each offset, this gathers, multiplies, and adds to the output's rows; torch
    differentiates it."""
    import torch

    def product(rows, weight, pairs, counts, outputs, inverse, submanifold):
        matrices = weight.reshape(len(weight), -1, weight.shape[-1]).permute(1, 2, 0)
        reads, writes = (1, 0) if inverse else (0, 1)
        counts, y = counts.tolist(), rows.new_zeros(outputs, len(weight))
        middle = len(counts) // 2
        for r, matrix in enumerate(matrices):
            if submanifold and r == middle:
                y = y + rows @ matrix
                continue
            # spconv counts half of a submanifold layer's offsets; the others mirror them.
            mirrored = submanifold and r > middle
            at = len(counts) - 1 - r if mirrored else r
            found = pairs[:, at, : counts[at]].long()
            source, target = (found[writes], found[reads]) if mirrored else (found[reads], found[writes])
            y = y.index_add(0, target, rows[source] @ matrix)
        return y

    on = OnPairs(case, product)
    on.run(case)

    def step():
        y, _ = on.run(case)
        return torch.autograd.grad(y.square().mean(), list(on.parameters.values()))

    at = list(on.parameters).index(case.params["watched"])
    return Work(step, lambda grads: {"grad": grads[at].numpy()})


def cases(quick):
    rough = (sweep(30_000 if quick else 120_000)[:, :3] - np.float32(RANGE[:3])) / np.float32(VOXEL)
    cells = np.floor(rough).astype(np.int64)[:, ::-1]
    street = np.unique(cells[((cells >= 0) & (cells < SHAPE)).all(1)], axis=0)
    scan = shell(64 if quick else 128)[:, 1:]
    for title, network, sites, shape, parameters, eps, watched in (
        ("SpUNet", "spunet", scan, (max(scan.max(0)) // 16 * 16 + 16,) * 3, SPUNET, 1e-3, "conv_input.0.weight"),
        ("MinkUNet14A", "minkunet", scan, (max(scan.max(0)) // 16 * 16 + 16,) * 3, MINKUNET, 1e-5, "conv0p1s1.weight"),
        ("VoxelResBackBone8x", "voxel_res", street, (41, *SHAPE[1:]), VOXEL_RES, 1e-3, "conv_input.0.weight"),
    ):

        def inputs(network=network, sites=sites, parameters=parameters):
            weights, random = Weights(), np.random.default_rng(3)
            NETWORKS[network](weights, parameters["in_channels"], parameters)
            arrays = {"indices": np.insert(sites, 0, 0, axis=1), "features": random.standard_normal((len(sites), 4), dtype=np.float32)}
            return arrays | {f"w/{name}": value for name, value in weights.state.items()}

        params = parameters | {"network": network, "shape": [int(n) for n in shape], "eps": eps, "watched": watched}
        size = f"{len(sites):,} sites"
        for name, op, more, peers, check in (
            ("forward", "forward", {}, (spconv,), close(1e-3)),
            ("forward, f16", "forward", {"half": True}, (spconv,), close(3e-2)),
            ("training pass", "train", {}, (gathered,), close(1e-2)),
        ):
            yield Case(f"{title}: {name}", size, op, inputs, params | more, peers, check)
