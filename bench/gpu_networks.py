"""Whole networks on one card, beside torch with spconv's CUDA wheel, and torch's dense layers with diffusers: `bash bench/gpu.sh`.

Our side is the library (`wavemesh-bench`, built with the feature `cuda`; WAVEMESH_BENCH names it). A peer runs the same network from
Python, with the same weights and sites. Both know every kernel map before. A run is timed on the host until the card has finished; the
median counts. Answers are compared first. Memory is the most that a side's tensors use at once during a run, minus what they used before. By
then a first run has been made, so weights, kernel maps and the optimiser's state already exist; gradients do not.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

from harness.case import PeerCase
from suites import diffusion, unet

DEVICE = "cuda"


class Ours:
    """The library in a process of its own."""

    def __init__(self):
        environment = os.environ | {"WAVEMESH_DEVICE": "cuda"}
        self.process = subprocess.Popen([os.environ["WAVEMESH_BENCH"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        reply = json.loads(line) if line else {"error": f"ended with status {self.process.wait()}"}
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def median(sample, budget=1.5, least=10, most=100):
    times, begin = [], time.time()
    for _ in range(4):
        sample()
    while len(times) < least or (len(times) < most and time.time() - begin < budget):
        times.append(sample())
    return sorted(times)[len(times) // 2] * 1e3


def seconds(work):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


class Pairs:
    """A kernel map in the form that spconv's implicit GEMM reads; targets read source stride * target + r - shift."""

    def __init__(self, sources, targets, stride, kernel, shift):
        side = 4096
        key = lambda sites: ((sites[:, 0] * side + sites[:, 1]) * side + sites[:, 2]) * side + sites[:, 3]
        keys, order = key(sources.long()).sort()
        axis = torch.arange(kernel, device=DEVICE)
        offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) - shift
        self.n = [len(sources), len(targets)]
        forward = torch.full((len(offsets), len(targets)), -1, dtype=torch.int32, device=DEVICE)
        backward = torch.full((len(offsets), len(sources)), -1, dtype=torch.int32, device=DEVICE)
        for r, offset in enumerate(offsets):
            cells = targets.long().clone()
            cells[:, 1:] = stride * cells[:, 1:] + offset
            at = torch.searchsorted(keys, key(cells)).clamp(max=len(keys) - 1)
            there = ((cells[:, 1:] >= 0).all(1) & (keys[at] == key(cells))).nonzero().squeeze(1)
            rows = order[at[there]]
            forward[r, there], backward[r, rows] = rows.int(), there.int()
        self.pairs = [forward, backward]
        bits = lambda pairs: sum((pairs[r] >= 0).long() << r for r in range(len(pairs))).to(torch.int32)
        masks = [bits(pairs) for pairs in self.pairs]
        self.orders = [(mask.long() & 0xFFFFFFFF).argsort(stable=True).int() for mask in masks]
        # spconv reads masks in the order of its tiles; its own sort leaves them sorted.
        self.masks = [mask[order.long()].reshape(-1, 1) for mask, order in zip(masks, self.orders)]

    def convolve(self, x, weight, inverse=False, train=False):
        from spconv.pytorch.functional import implicit_gemm

        there, back = (1, 0) if inverse else (0, 1)
        whole = [np.array([0xFFFFFFFF], dtype=np.uint32)]
        return implicit_gemm(
            x, weight, self.pairs[there], self.pairs[back], [self.masks[there]], [self.masks[back]], [self.orders[there]], [self.orders[back]],
            self.n[0 if inverse else 1], whole, train, False,
        )  # fmt: skip


def on_card(case):
    state = {k[2:]: torch.from_numpy(v).to(DEVICE) for k, v in case.inputs.items() if k.startswith("w/")}
    return state, {k: torch.from_numpy(v).to(DEVICE) for k, v in case.inputs.items() if not k.startswith("w/")}


def unet_of_spconv(case):
    """The U-Net with spconv's convolutions and torch's layers."""
    w, inputs = on_card(case)
    train = case.op == "train_step"
    parameters = {k: v.requires_grad_(train) for k, v in w.items() if "running" not in k}
    levels = [inputs["indices"].int()]
    for _ in unet.CHANNELS[1:]:
        coarse = levels[-1].clone()
        coarse[:, 1:] //= 2
        levels.append(coarse.unique(dim=0))
    same = [Pairs(level, level, 1, 3, 1) for level in levels]
    down = [Pairs(fine, coarse, 2, 3, 1) for fine, coarse in zip(levels, levels[1:])]
    corner = [Pairs(fine, coarse, 2, 1, 0).pairs[0][0].long() for fine, coarse in zip(levels, levels[1:])]
    corner = [((rows >= 0).nonzero().squeeze(1), rows[rows >= 0]) for rows in corner]
    t = torch.tensor([case.params["t"]], device=DEVICE, dtype=torch.float32)
    frequencies = torch.exp(-torch.arange(unet.TIME // 2, device=DEVICE) * np.log(10000) / (unet.TIME // 2 - 1))

    def norm(x, name):
        return F.batch_norm(x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"], train)

    def conv(x, name, pairs, inverse=False):
        return pairs.convolve(x, w[f"{name}.weight"], inverse, train)

    def pointwise(x, name):
        return x @ w[f"{name}.weight"].flatten(1).T

    def every_second(x, level):
        out_rows, in_rows = corner[level - 1]
        return x.new_zeros(len(levels[level]), x.shape[1]).index_copy(0, out_rows, x[in_rows])

    def block(x, name, level, strided):
        h = F.relu(norm(conv(x, f"{name}.conv1", down[level - 1] if strided else same[level]), f"{name}.bn1"))
        h = norm(conv(h, f"{name}.conv2", same[level]), f"{name}.bn2")
        short = pointwise(every_second(x, level) if strided else x, f"{name}.shortcut.0")
        return F.relu(h + norm(short, f"{name}.shortcut.1"))

    def forward():
        time_ = torch.cat([(t[:, None] * frequencies).sin(), (t[:, None] * frequencies).cos()], 1)
        time_ = F.silu(F.linear(time_, w["time_mlp.0.weight"], w["time_mlp.0.bias"]))
        time_ = F.linear(time_, w["time_mlp.2.weight"], w["time_mlp.2.bias"])
        x = torch.cat([inputs["features"], time_.expand(len(inputs["features"]), -1)], 1)
        x = F.relu(norm(conv(x, "encoder.input_conv.0", same[0]), "encoder.input_conv.1"))
        skips = []
        for level in range(1, len(levels)):
            skips.append(x)
            x = block(x, f"encoder.encoder_blocks.{level - 1}", level, True)
        for i, level in enumerate(range(len(levels) - 2, -1, -1)):
            up = conv(x, f"decoder.upsample_blocks.{i}", down[level], inverse=True)
            x = block(torch.cat([up, skips.pop()], 1), f"decoder.decoder_blocks.{i}", level, False)
        return pointwise(x, "output_conv") + w["output_conv.bias"]

    return training(forward, parameters, inputs, "encoder.input_conv.0.weight") if train else inference(forward)


def inference(forward):
    return torch.no_grad()(forward), lambda out: {"out": out.cpu().numpy()}


def training(forward, parameters, inputs, shown):
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4, weight_decay=1e-4, fused=True)

    def step():
        optimizer.zero_grad()
        F.mse_loss(forward(), inputs["target"]).backward()
        optimizer.step()
        return parameters[shown].grad

    return step, lambda grad: {"grad": grad.cpu().numpy()}, optimizer.zero_grad


SPUNET = {"channels": (32, 64, 128, 256, 256, 128, 96, 96), "layers": (2, 3, 4, 6, 2, 2, 2, 2), "base": 32, "in": 6, "classes": 20}


def spunet_weights(random):
    state, c, layers = {}, SPUNET["channels"], SPUNET["layers"]

    def conv(name, inputs, outputs, kernel):
        state[f"{name}.weight"] = (random.uniform(-1, 1, (outputs, kernel, kernel, kernel, inputs)) / np.sqrt(inputs * kernel**3 / 3)).astype(np.float32)

    def norm(name, channels):
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            state[f"{name}.{part}"] = np.full(channels, value, np.float32)

    def block(name, inputs, outputs):
        conv(f"{name}.conv1", inputs, outputs, 3), norm(f"{name}.bn1", outputs), conv(f"{name}.conv2", outputs, outputs, 3), norm(f"{name}.bn2", outputs)
        if inputs != outputs:
            conv(f"{name}.proj.0", inputs, outputs, 1), norm(f"{name}.proj.1", outputs)

    conv("conv_input.0", SPUNET["in"], SPUNET["base"], 5), norm("conv_input.1", SPUNET["base"])
    levels = len(c) // 2
    for s in range(levels):
        finer = SPUNET["base"] if s == 0 else c[s - 1]
        conv(f"down.{s}.0", finer, c[s], 2), norm(f"down.{s}.1", c[s])
        for i in range(layers[s]):
            block(f"enc.{s}.block{i}", c[s], c[s])
        source, target = c[2 * levels - s - 2], c[2 * levels - s - 1]
        conv(f"up.{s}.0", source, target, 2), norm(f"up.{s}.1", target)
        for i in range(layers[2 * levels - s - 1]):
            block(f"dec.{s}.block{i}", target + finer if i == 0 else target, target)
    conv("final", c[-1], SPUNET["classes"], 1)
    state["final.bias"] = np.zeros(SPUNET["classes"], np.float32)
    return state


def spunet_of_spconv(case):
    """Pointcept's SpUNet-v1m1 with spconv's own modules."""
    import spconv.pytorch as sp
    from torch import nn

    w, inputs = on_card(case)
    train = case.op == "train_step"
    c, layers, base = SPUNET["channels"], SPUNET["layers"], SPUNET["base"]
    norm = lambda channels: nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)

    class Block(sp.SparseModule):
        def __init__(self, inputs, outputs, key):
            super().__init__()
            self.conv1, self.bn1 = sp.SubMConv3d(inputs, outputs, 3, bias=False, indice_key=key), norm(outputs)
            self.conv2, self.bn2 = sp.SubMConv3d(outputs, outputs, 3, bias=False, indice_key=key), norm(outputs)
            self.proj = None if inputs == outputs else sp.SparseSequential(sp.SubMConv3d(inputs, outputs, 1, bias=False), norm(outputs))

        def forward(self, x):
            y = self.conv1(x)
            y = self.conv2(y.replace_feature(F.relu(self.bn1(y.features))))
            short = x if self.proj is None else self.proj(x)
            return y.replace_feature(F.relu(self.bn2(y.features) + short.features))

    class SpUNet(nn.Module):
        def __init__(self):
            super().__init__()
            relu, levels = nn.ReLU, len(c) // 2
            self.conv_input = sp.SparseSequential(sp.SubMConv3d(SPUNET["in"], base, 5, bias=False, indice_key="stem"), norm(base), relu())
            self.down, self.enc, self.up, self.dec = (nn.ModuleList() for _ in range(4))
            named = _Named
            for s in range(levels):
                finer = base if s == 0 else c[s - 1]
                self.down.append(sp.SparseSequential(sp.SparseConv3d(finer, c[s], 2, stride=2, bias=False, indice_key=f"spconv{s + 1}"), norm(c[s]), relu()))
                self.enc.append(named([Block(c[s], c[s], f"subm{s + 1}") for _ in range(layers[s])]))
                source, target = c[2 * levels - s - 2], c[2 * levels - s - 1]
                self.up.append(sp.SparseSequential(sp.SparseInverseConv3d(source, target, 2, bias=False, indice_key=f"spconv{s + 1}"), norm(target), relu()))
                self.dec.append(named([Block(target + finer if i == 0 else target, target, f"subm{s}") for i in range(layers[2 * levels - s - 1])]))
            self.final = sp.SubMConv3d(c[-1], SPUNET["classes"], 1, bias=True)

        def forward(self, x):
            x, skips = self.conv_input(x), []
            for down, blocks in zip(self.down, self.enc):
                skips.append(x)
                x = blocks(down(x))
            for up, blocks in zip(reversed(self.up), reversed(self.dec)):
                x = up(x)
                x = blocks(x.replace_feature(torch.cat([x.features, skips.pop().features], 1)))
            return self.final(x).features

    class _Named(sp.SparseModule):
        def __init__(self, blocks):
            super().__init__()
            for i, block in enumerate(blocks):
                self.add_module(f"block{i}", block)

        def forward(self, x):
            for block in self.children():
                x = block(x)
            return x

    # For a kernel of one offset, spconv multiplies by `weight.view(inputs, outputs)`, whatever the memory layout of the weight.
    turned = lambda weight: weight.flatten(1).T.reshape(weight.shape) if weight.ndim == 5 and weight[0, ..., 0].numel() == 1 else weight
    network = SpUNet().to(DEVICE).train(train)
    missing = network.load_state_dict({name: turned(weight) for name, weight in w.items()}, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in k for k in missing.missing_keys), missing
    tensor = sp.SparseConvTensor(inputs["features"], inputs["indices"].int(), case.params["shape"], 1)
    with torch.no_grad():
        network(tensor)  # finds the maps, which are kept under their keys
    forward = lambda: network(tensor)
    if not train:
        return inference(forward)
    return training(forward, dict(network.named_parameters()), inputs, "conv_input.0.weight")


def spunet_in_float64(case):
    """SpUNet's answer, computed in float64 from sums over its kernel maps; it decides which side is right."""
    w, inputs = on_card(case)
    c, layers, train = SPUNET["channels"], SPUNET["layers"], case.op == "train_step"
    w = {name: weight.double().requires_grad_(train and "running" not in name) for name, weight in w.items()}
    levels, shape = [inputs["indices"].int()], np.array(case.params["shape"])
    for _ in range(len(c) // 2):
        shape = shape // 2
        coarse = levels[-1].clone()
        coarse[:, 1:] //= 2
        inside = (coarse[:, 1:] < torch.tensor(shape, device=DEVICE)).all(1)
        levels.append(coarse[inside].unique(dim=0))
    stem, same = Pairs(levels[0], levels[0], 1, 5, 2), [Pairs(level, level, 1, 3, 1) for level in levels]
    down = [Pairs(fine, coarse, 2, 2, 0) for fine, coarse in zip(levels, levels[1:])]

    def conv(x, name, pairs, inverse=False):
        weight = w[f"{name}.weight"]
        y = x.new_zeros(pairs.n[0 if inverse else 1], weight.shape[0])
        for rows, taps in zip(pairs.pairs[1 if inverse else 0], weight.flatten(1, 3).unbind(1)):
            there = (rows >= 0).nonzero().squeeze(1)
            y = y.index_add(0, there, x[rows[there].long()] @ taps.T)
        return y

    def norm(x, name):
        statistics = (w[f"{name}.running_mean"].detach(), w[f"{name}.running_var"].detach(), w[f"{name}.weight"], w[f"{name}.bias"], train)
        return F.batch_norm(x, *statistics, eps=1e-3)

    def block(x, name, pairs):
        y = norm(conv(F.relu(norm(conv(x, f"{name}.conv1", pairs), f"{name}.bn1")), f"{name}.conv2", pairs), f"{name}.bn2")
        if f"{name}.proj.0.weight" in w:
            x = norm(x @ w[f"{name}.proj.0.weight"].flatten(1).T, f"{name}.proj.1")
        return F.relu(y + x)

    x, skips, count = F.relu(norm(conv(inputs["features"].double(), "conv_input.0", stem), "conv_input.1")), [], len(c) // 2
    for s in range(count):
        skips.append(x)
        x = F.relu(norm(conv(x, f"down.{s}.0", down[s]), f"down.{s}.1"))
        for i in range(layers[s]):
            x = block(x, f"enc.{s}.block{i}", same[s + 1])
    for s in reversed(range(count)):
        x = torch.cat([F.relu(norm(conv(x, f"up.{s}.0", down[s], True), f"up.{s}.1")), skips.pop()], 1)
        for i in range(layers[2 * count - s - 1]):
            x = block(x, f"dec.{s}.block{i}", same[s])
    out = x @ w["final.weight"].flatten(1).T + w["final.bias"]
    if not train:
        return {"out": out.detach().cpu().numpy()}
    F.mse_loss(out, inputs["target"].double()).backward()
    return {"grad": w["conv_input.0.weight"].grad.cpu().numpy()}


def generator_of_torch(case):
    """The generator's coarse network with torch's dense convolutions; diffusers does its schedule."""
    from diffusers import DDIMScheduler

    train = case.op == "train_step"
    parameters, network = unet.dense_network(case, train, DEVICE)
    inputs = on_card(case)[1]
    x = inputs["features"]
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    if not train:

        @torch.no_grad()
        def sample():
            now = x
            scheduler.set_timesteps(case.params["steps"], device=DEVICE)
            for t in scheduler.timesteps:
                now = scheduler.step(network(now, t.reshape(1)), t, now).prev_sample
            return now

        return sample, lambda x: {"x": x.cpu().numpy()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4, weight_decay=1e-4, fused=True)
    signal = scheduler.alphas_cumprod.to(DEVICE)[inputs["timesteps"]][inputs["indices"][:, 0], None]
    grad = parameters["encoder.input_conv.0.weight"]

    def step():
        optimizer.zero_grad()
        noised, velocity = signal.sqrt() * x + (1 - signal).sqrt() * inputs["noise"], signal.sqrt() * inputs["noise"] - (1 - signal).sqrt() * x
        loss = F.mse_loss(network(noised, inputs["timesteps"]), velocity)
        loss.backward()
        optimizer.step()
        return loss.detach(), grad.grad

    return step, lambda found: {"loss": found[0].cpu().numpy().reshape(1), "grad": found[1].permute(0, 2, 3, 4, 1).cpu().numpy()}, optimizer.zero_grad


def room(random, voxels):
    """About `voxels` voxels of an indoor scan: floor, walls, and boxes on the floor, one voxel thick, ascending."""
    side = int((voxels / 2.2) ** 0.5)
    height = side // 3
    grid = np.zeros((height, side, side), bool)
    grid[0], grid[:, 0], grid[:, :, 0] = True, True, True
    for _ in range(14):
        z, y, x = (int(random.integers(5, most)) for most in (height // 2, side // 4, side // 4))
        top, left = random.integers(0, side - y), random.integers(0, side - x)
        box = np.zeros_like(grid)
        box[:z, top : top + y, left : left + x] = True
        inner = np.zeros_like(grid)
        inner[: z - 1, top + 1 : top + y - 1, left + 1 : left + x - 1] = True
        grid[inner] = False
        grid |= box & ~inner
    sites = np.argwhere(grid)
    return np.insert(sites, 0, 0, axis=1).astype(np.int64), list(grid.shape)


def cases(quick):
    """Title, size, suite, the inputs of our side and of a peer, and the peer."""
    for size in (64,) if quick else (64, 128):
        random = np.random.default_rng(size)
        sites = unet.shell(size)
        arrays = {"indices": sites} | {name: random.standard_normal((len(sites), 1), dtype=np.float32) for name in ("features", "target")}
        arrays |= {f"w/{k}": v for k, v in unet.weights(random).items()}
        params = {"size": size, "t": 500, "channels": unet.CHANNELS, "adamw": True}
        for title, op in (("forward", "forward"), ("training step", "train_step")):
            yield f"U-Net (16, 32, 64), {title}", f"{len(sites):,} sites", "unet", PeerCase(op, params, arrays), ("torch + spconv", unet_of_spconv)
    random = np.random.default_rng(1)
    sites, shape = room(random, 100_000)
    arrays = {"indices": sites, "features": random.standard_normal((len(sites), 6), dtype=np.float32), "target": random.standard_normal((len(sites), 20), dtype=np.float32)}
    arrays |= {f"w/{k}": v for k, v in spunet_weights(random).items()}
    for title, op in (("forward", "forward"), ("training step", "train_step")):
        yield f"SpUNet, {title}", f"{len(sites):,} voxels of a room", "spunet", PeerCase(op, {"shape": shape}, arrays), ("torch + spconv", spunet_of_spconv)
    for case in diffusion.network_cases():
        yield f"generator: {case.name}", case.size, "diffusion", PeerCase(case.op, case.params, case.inputs()), ("torch + diffusers", generator_of_torch)


def difference(ours, theirs):
    """The largest difference, as a share of the largest value."""
    return max(float(np.abs(ours[k].astype(np.float64) - theirs[k]).max() / np.abs(theirs[k]).max()) for k in theirs)


def measure(title, size, suite, case, peer, tf32, folder):
    row = {"case": title, "size": size, "type": "TF32" if tf32 else "f32", "peer": peer[0]}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    answers = []
    save_file({name: np.ascontiguousarray(array) for name, array in case.inputs.items()}, folder / "inputs")
    for how, recorded in (("ours", False), ("recorded", True)):
        ours = Ours()
        try:
            params = case.params | {"tf32": tf32, "recorded": recorded}
            ours.ask(do="prepare", suite=suite, op=case.op, params=params, inputs=str(folder / "inputs"))
            ours.ask(do="answer", path=str(folder / "answer"))
            answer = load_file(folder / "answer")
            if recorded:
                row["recorded differs by"] = difference(answer, answers[0])
            else:
                answers.append(answer)
            row[how] = median(lambda: ours.ask(do="sample", repeat=1, awake=False)["seconds"])
            ours.ask(do="warm")
            ours.ask(do="answer", path=str(folder / "again"))
            row[f"{how}: memory"] = ours.ask(do="memory")["above"]
        except Exception as e:  # noqa: BLE001
            row[f"{how}: error"] = f"{how}: {e}"[:300]
        finally:
            ours.close()
    try:
        import spconv.constants as constants

        constants.SPCONV_ALLOW_TF32 = tf32
    except ImportError:
        pass
    try:
        work, answer, *forget = peer[1](case)
        # cuDNN's gradients of a dense convolution are off by 3e-3 in f32. So torch's own gradients are compared, but cuDNN is timed.
        with torch.backends.cudnn.flags(enabled=False):
            answers.append(answer(work()))
        work()
        for gradients in forget:
            gradients()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        row["peer memory"] = torch.cuda.max_memory_allocated() - before
        row["theirs"] = median(lambda: seconds(work))
    except Exception as e:  # noqa: BLE001
        row["peer error"] = repr(e)[:300]
    if len(answers) == 2:
        row["difference"] = difference(*answers)
        row["near"] = row["difference"] < (2e-2 if tf32 or peer[0].endswith("spconv") else 1e-3)
    if suite == "spunet" and len(answers) == 2:
        # The peer's answer differs from ours with each of its algorithms. float64 decides which side is right.
        right = spunet_in_float64(case)
        row["off"], row["peer off"] = (difference(answer, right) for answer in answers)
        row["near"] = row["off"] < (2e-2 if tf32 else 1e-3)
    return row


def differ(row):
    """The difference between the two answers, or from float64's answer if that was computed."""
    if "off" in row:
        return f"ours {row['off']:.0e}, peer's {row['peer off']:.0e} from float64"
    return f"{row['difference']:.0e}" if "difference" in row else "–"


def table(rows):
    columns = ["network", "size", "type", "ours, ms", "ratio", "recorded, ms", "ratio", "peer, ms", "memory, MB", "peer's memory", "answers differ by"]
    lines, notes = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"], []
    for r in rows:
        number = lambda key, scale=1.0, form="{:.3f}": form.format(r[key] / scale) if key in r else "–"
        ratio = lambda ours: f"{r['theirs'] / r[ours]:.2f}×" if ours in r and "theirs" in r and r.get("near") else "–"
        megabytes = lambda key: number(key, 1e6, "{:.0f}")
        cells = [r["case"], r["size"], r["type"], number("ours"), ratio("ours"), number("recorded"), ratio("recorded"), f"{number('theirs')} {r['peer']}"]
        cells += [megabytes("ours: memory"), megabytes("peer memory"), differ(r)]
        lines.append("| " + " | ".join(cells) + " |")
        notes += [f"{r['case']}, {r['size']}: {r[key]}" for key in ("ours: error", "recorded: error", "peer error") if key in r]
    return "\n".join(lines + (["", "Not measured: " + "; ".join(dict.fromkeys(notes)) + "."] if notes else []))


def run(quick):
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(quick):
            for tf32 in (False,) if quick else (False, True):
                row = measure(*case, tf32, Path(folder))
                print(json.dumps(row), flush=True)
                yield row
