"""The U-Net (16, 32, 64, no attention) on the shell |r − 0.4·R| < 0.9, beside the same network in torch: with spconv, and on the dense grid."""

import numpy as np

from harness import Case, Work, close, peer

CHANNELS = (16, 32, 64)
TIME = 128


def shell(size):
    """Sites (N, 4) of a hollow ball in a grid of `size`³: batch, z, y, x, ascending."""
    axis = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij", sparse=True)
    planes = [np.argwhere(np.abs(np.sqrt(z * z + y * y + x * x) - 0.4 * size) < 0.9) for z in axis]
    sites = np.concatenate([np.insert(plane, 0, z, axis=1) for z, plane in enumerate(planes)])
    return np.concatenate([np.zeros((len(sites), 1), sites.dtype), sites], axis=1).astype(np.int64)


def weights(random, channels=CHANNELS, inputs=1, outputs=1):
    """Every parameter of the network under WaveMesh's name; convolutions are [out, kz, ky, kx, in]."""
    state = {}

    def uniform(name, *shape, fan):
        state[name] = random.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(fan))

    def linear(name, inputs, outputs):
        uniform(f"{name}.weight", outputs, inputs, fan=inputs)
        uniform(f"{name}.bias", outputs, fan=inputs)

    def conv(name, inputs, outputs, kernel=3):
        uniform(f"{name}.weight", outputs, kernel, kernel, kernel, inputs, fan=inputs * kernel**3)

    def norm(name, channels):
        state[f"{name}.weight"] = np.ones(channels, np.float32)
        state[f"{name}.bias"] = np.zeros(channels, np.float32)
        state[f"{name}.running_mean"] = np.zeros(channels, np.float32)
        state[f"{name}.running_var"] = np.ones(channels, np.float32)

    def block(name, inputs, outputs):
        conv(f"{name}.conv1", inputs, outputs), norm(f"{name}.bn1", outputs)
        conv(f"{name}.conv2", outputs, outputs), norm(f"{name}.bn2", outputs)
        conv(f"{name}.shortcut.0", inputs, outputs, 1), norm(f"{name}.shortcut.1", outputs)

    linear("time_mlp.0", TIME, channels[0]), linear("time_mlp.2", channels[0], channels[0])
    conv("encoder.input_conv.0", inputs + channels[0], channels[0]), norm("encoder.input_conv.1", channels[0])
    for i, (a, b) in enumerate(zip(channels, channels[1:])):
        block(f"encoder.encoder_blocks.{i}", a, b)
    for i, (a, b) in enumerate(zip(channels[::-1], channels[-2::-1])):
        conv(f"decoder.upsample_blocks.{i}", a, b), block(f"decoder.decoder_blocks.{i}", 2 * b, b)
    conv("output_conv", channels[0], outputs, 1)
    uniform("output_conv.bias", outputs, fan=channels[0])
    return state


def dense_network(case, train, device="cpu"):
    """The network in torch on the dense grid: its parameters by name, and `forward(features, timesteps)`, whose rows are the sites
    (ascending). Cells that are not sites are zeroed after each convolution and left out of the statistics; a full grid needs neither."""
    import torch
    import torch.nn.functional as F

    size, channels = case.params["size"], case.params["channels"]
    w = {k[2:]: torch.from_numpy(v).to(device) for k, v in case.inputs.items() if k.startswith("w/")}
    w = {k: v.permute(0, 4, 1, 2, 3).contiguous() if v.ndim == 5 else v for k, v in w.items()}
    w = {k: v.permute(1, 0, 2, 3, 4).contiguous() if "upsample" in k else v for k, v in w.items()}
    parameters = {k: v.requires_grad_(train) for k, v in w.items() if "running" not in k}
    element, z, y, x = torch.from_numpy(case.inputs["indices"]).to(device).T
    batch = int(element.max()) + 1
    masks = [torch.zeros(batch, 1, size, size, size, device=device)]
    masks[0][element, 0, z, y, x] = 1
    for _ in channels[1:]:
        masks.append(F.max_pool3d(masks[-1], 2))
    rows = [mask.flatten().nonzero().squeeze(1) for mask in masks]
    full = [bool(mask.all()) for mask in masks]

    def to_rows(grid, level):
        return grid.transpose(0, 1).reshape(grid.shape[1], -1)[:, rows[level]].T

    def to_grid(values, level):
        shape = (values.shape[1], batch, *masks[level].shape[2:])
        if full[level]:
            return values.T.reshape(shape).transpose(0, 1)
        return torch.zeros(values.shape[1], masks[level].numel(), device=device).index_copy(1, rows[level], values.T).reshape(shape).transpose(0, 1)

    def norm(grid, name, level):
        statistics = (w[f"{name}.running_mean"].clone(), w[f"{name}.running_var"].clone(), w[f"{name}.weight"], w[f"{name}.bias"], train)
        if full[level]:
            return F.batch_norm(grid, *statistics)
        return to_grid(F.batch_norm(to_rows(grid, level), *statistics), level)

    def masked(grid, level):
        return grid if full[level] else grid * masks[level]

    def conv(grid, name, level, stride=1):
        weight = w[f"{name}.weight"]
        return masked(F.conv3d(grid, weight, stride=stride, padding=weight.shape[2] // 2), level)

    def block(grid, name, level, stride=1):
        h = F.relu(norm(conv(grid, f"{name}.conv1", level, stride), f"{name}.bn1", level))
        h = norm(conv(h, f"{name}.conv2", level), f"{name}.bn2", level)
        return F.relu(h + norm(conv(grid, f"{name}.shortcut.0", level, stride), f"{name}.shortcut.1", level))

    def forward(features, timesteps):
        half = TIME // 2
        angles = timesteps[:, None] * torch.exp(-torch.arange(half, device=device) * np.log(10000) / (half - 1))
        time = torch.cat([angles.sin(), angles.cos()], 1).float()
        time = F.silu(F.linear(time, w["time_mlp.0.weight"], w["time_mlp.0.bias"]))
        time = F.linear(time, w["time_mlp.2.weight"], w["time_mlp.2.bias"])
        grid = to_grid(torch.cat([features, time[element]], 1), 0)
        grid = F.relu(norm(conv(grid, "encoder.input_conv.0", 0), "encoder.input_conv.1", 0))
        skips = []
        for level in range(1, len(channels)):
            skips.append(grid)
            grid = block(grid, f"encoder.encoder_blocks.{level - 1}", level, 2)
        for i, level in enumerate(range(len(channels) - 2, -1, -1)):
            up = F.conv_transpose3d(grid, w[f"decoder.upsample_blocks.{i}.weight"], stride=2, padding=1, output_padding=1)
            grid = block(torch.cat([masked(up, level), skips.pop()], 1), f"decoder.decoder_blocks.{i}", level)
        return to_rows(F.conv3d(grid, w["output_conv.weight"], w["output_conv.bias"]), 0)

    return parameters, forward


@peer("torch, dense", "torch", package="torch")
def torch_dense(case):
    """Dense convolutions on the whole grid; cells that are not sites are zeroed after each."""
    import torch
    import torch.nn.functional as F

    train = case.op == "train_step"
    parameters, network = dense_network(case, train)
    features, target = torch.from_numpy(case.inputs["features"]), torch.from_numpy(case.inputs["target"])
    timesteps = torch.tensor([case.params["t"]])

    def forward():
        return network(features, timesteps)

    if not train:
        return Work(torch.no_grad()(forward), lambda out: {"out": out.numpy()})

    def step():
        loss = F.mse_loss(forward(), target)
        return torch.autograd.grad(loss, list(parameters.values()))

    at = list(parameters).index("encoder.input_conv.0.weight")
    return Work(step, lambda grads: {"grad": grads[at].permute(0, 2, 3, 4, 1).numpy()})


@peer("torch + spconv", "torch", "suites._spconv", package="spconv")
def torch_spconv(case):
    """The network with spconv's convolutions and torch's layers; every map is known before, as in ours.

    spconv has no rule `floor(site / 2)`. Its convolution gets the pairs of that rule, which are found here.
    """
    import torch
    import torch.nn.functional as F

    from ._spconv import ConvAlgo, ops

    w = {k[2:]: torch.from_numpy(v) for k, v in case.inputs.items() if k.startswith("w/")}
    features = torch.from_numpy(case.inputs["features"])
    levels = [case.inputs["indices"][:, 1:]]
    for _ in CHANNELS[1:]:
        levels.append(np.unique(levels[-1] // 2, axis=0))

    def pairs(fine, coarse, stride, kernel):
        """[in/out, offset, :] and counts: coarse site o reads fine site stride·o + r − kernel // 2."""
        side = int(fine.max()) + 2 * stride
        keys = np.ravel_multi_index(fine.T, [side] * 3)
        offsets = np.stack(np.meshgrid(*[np.arange(kernel) - kernel // 2] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        found, counts = np.full((2, len(offsets), max(len(fine), len(coarse))), -1, np.int32), []
        for r, offset in enumerate(offsets):
            cells = stride * coarse + offset
            out_rows = np.flatnonzero(((cells >= 0) & (cells < side)).all(axis=1))
            wanted = np.ravel_multi_index(cells[out_rows].T, [side] * 3)
            in_rows = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
            active = keys[in_rows] == wanted
            counts.append(int(active.sum()))
            found[0, r, : counts[-1]], found[1, r, : counts[-1]] = in_rows[active], out_rows[active]
        return torch.from_numpy(found), torch.tensor(counts, dtype=torch.int32)

    same = [pairs(level, level, 1, 3) for level in levels]
    down = [pairs(fine, coarse, 2, 3) for fine, coarse in zip(levels, levels[1:])]
    ends = [pairs(fine, coarse, 2, 1) for fine, coarse in zip(levels, levels[1:])]
    corners = [(found[1, 0, : counts[0]].long(), found[0, 0, : counts[0]].long()) for found, counts in ends]

    def conv(x, name, found, rows, inverse=False):
        # subm=False: all pairs are given; spconv must not assume any.
        return ops.indice_conv(x, w[f"{name}.weight"], *found, rows, inverse, False, ConvAlgo.Native)

    def norm(x, name):
        return F.batch_norm(
            x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"]
        )  # fmt: skip

    def pointwise(x, name):
        return x @ w[f"{name}.weight"].flatten(1).T

    def every_second(x, level):
        """The rows that a 1³ kernel of stride 2 reads; zero if there is no site."""
        out_rows, in_rows = corners[level - 1]
        return x.new_zeros(len(levels[level]), x.shape[1]).index_copy(0, out_rows, x[in_rows])

    def block(x, name, level, strided):
        rows = len(levels[level])
        h = conv(x, f"{name}.conv1", down[level - 1] if strided else same[level], rows)
        h = F.relu(norm(h, f"{name}.bn1"))
        h = norm(conv(h, f"{name}.conv2", same[level], rows), f"{name}.bn2")
        short = pointwise(every_second(x, level) if strided else x, f"{name}.shortcut.0")
        return F.relu(h + norm(short, f"{name}.shortcut.1"))

    @torch.no_grad()
    def forward():
        half = TIME // 2
        angles = case.params["t"] * torch.exp(-torch.arange(half) * np.log(10000) / (half - 1))
        time = torch.cat([angles.sin(), angles.cos()]).float()
        time = F.silu(F.linear(time, w["time_mlp.0.weight"], w["time_mlp.0.bias"]))
        time = F.linear(time, w["time_mlp.2.weight"], w["time_mlp.2.bias"])
        x = torch.cat([features, time.expand(len(features), -1)], 1)
        x = F.relu(norm(conv(x, "encoder.input_conv.0", same[0], len(x)), "encoder.input_conv.1"))
        skips = []
        for level in range(1, len(CHANNELS)):
            skips.append(x)
            x = block(x, f"encoder.encoder_blocks.{level - 1}", level, True)
        for i, level in enumerate(range(len(CHANNELS) - 2, -1, -1)):
            up = conv(x, f"decoder.upsample_blocks.{i}", down[level], len(levels[level]), inverse=True)
            x = block(torch.cat([up, skips.pop()], 1), f"decoder.decoder_blocks.{i}", level, False)
        return pointwise(x, "output_conv") + w["output_conv.bias"]

    return Work(forward, lambda out: {"out": out.numpy()})


def cases(quick):
    for size in (32,) if quick else (32, 64):

        def inputs(size=size):
            random = np.random.default_rng(size)
            sites = shell(size)
            arrays = {"indices": sites}
            for name in ("features", "target"):
                arrays[name] = random.standard_normal((len(sites), 1), dtype=np.float32)
            return arrays | {f"w/{k}": v for k, v in weights(random).items()}

        training = "training step: loss and gradients"
        for title, op, options in (
            ("forward pass (a DDIM step)", "forward", {}),
            (training, "train_step", {}),
            (f"{training}, bf16", "train_step", {"precision": "bf16"}),
            (f"{training}, checkpointed", "train_step", {"checkpointing": True}),
        ):
            yield Case(
                title, f"shell in {size}³", op, inputs, {"size": size, "t": 500, "channels": CHANNELS} | options,
                (torch_spconv, torch_dense) if op == "forward" else (torch_dense,),
                close(1e-2 if "precision" in options else 1e-3), headline=size == 64 and op == "forward",
            )  # fmt: skip
