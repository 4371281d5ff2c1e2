"""The fast CUDA kernels beside spconv and FlexGEMM on one card: `bash bench/gpu.sh`.

Sites are shells |r - 0.4 R| < 0.9 in a grid of R^3. A time is the median on the card alone: the card sleeps while the host queues the work,
so that neither side pays for its host code. "As called" is the time that a user waits for each call, with all host code; peers are called
from Python, ours through the library (WAVEMESH_BENCH). The forward time includes neither packing the weights nor finding the maps;
forward + backward packs the weights for both directions. Answers are compared with float64 before timing.
"""

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import fast
import gpu_networks
from check import LIMITS, neighbours, reference, shell

ROOT = Path(__file__).resolve().parent.parent
START = time.time()
NAMES = {"f16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32, "f32": torch.float32, "exact": torch.float32}


def events(work, sleep):
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    if sleep:
        torch.cuda._sleep(sleep)
    a.record()
    work()
    b.record()
    waited = sleep and not a.query()
    b.synchronize()
    return a.elapsed_time(b), waited


def timed(work, sleep=0, budget=0.15, least=10, most=30):
    """Median in ms. With `sleep` (in cycles) it is the time on the card alone, or None if the host itself waits for the card."""
    for _ in range(4):
        work()
    torch.cuda.synchronize()
    times, begin, waited = [], time.time(), 0
    while len(times) < least or (len(times) < most and time.time() - begin < budget):
        ms, queued = events(work, sleep)
        times.append(ms)
        waited += bool(queued)
    if sleep and waited < len(times) * 0.9:
        return None
    return sorted(times)[len(times) // 2]


def both(work, sleep):
    return {"alone": timed(work, sleep), "called": timed(work)}


def error(y, ref):
    return ((y.double() - ref).norm() / ref.norm()).item()


class Ours:
    name = "WaveMesh"

    def prepare(self, kind, coords, side, x, w, g):
        if kind == "exact":
            return self.exact(coords, side, x, w, g)
        self.sites = getattr(self, "sites", None) if getattr(self, "coords", None) is coords else fast.Sites(coords, [side] * 3)
        self.coords = coords
        assert self.sites.state[1].item() == 0 and self.sites.fill[1].item() == 0
        cout, cin, kernel = w.shape[0], w.shape[4], tuple(w.shape[1:4])
        if kind == "tf32" and x.numel() >= 1 << 21:  # as src/sparse/backend/cuda/halo.rs decides
            kind = "halves"
        img, back = fast.pack(kind, w), fast.pack(kind, w, True)
        y, dx = torch.empty_like(g), torch.empty_like(x)
        forward = lambda: fast.convolve(kind, self.sites, x, img, cin, cout, kernel, y)

        def training():
            fast.pack(kind, w, img=img)
            forward()
            fast.pack(kind, w, True, img=back)
            fast.convolve(kind, self.sites, g, back, cout, cin, kernel, dx)
            fast.weight_gradient(kind, self.sites, x, g, kernel)

        return forward, training

    def exact(self, coords, side, x, w, g):
        """f32 without tensor cores, over a table of neighbours."""
        table = neighbours(coords, [side] * 3, w.shape[1:4]).int()
        order, columns, y = fast.gather_order(table), fast.gather_columns("exact", w.shape[0]), torch.empty_like(g)
        img = fast.pack_offsets("exact", w, range(len(table)), columns=columns)
        return (lambda: fast.gather("exact", x, img, table, w.shape[0], y, order)), None

    def map(self, coords, side, stride):
        """The kernels alone; strided maps are made by the library only."""
        if stride > 1:
            return None
        sites = fast.Sites(coords, [side] * 3)
        return lambda: (sites.index(), sites.map())


class Spconv:
    name = "spconv"

    def __init__(self):
        import spconv.constants as constants
        import spconv.pytorch as sp
        from spconv.core import ConvAlgo

        self.constants, self.sp, self.algo = constants, sp, ConvAlgo

    def prepare(self, kind, coords, side, x, w, g):
        self.constants.SPCONV_ALLOW_TF32 = kind == "tf32"
        cout, cin, kernel = w.shape[0], w.shape[4], list(w.shape[1:4])
        algo = self.algo.MaskImplicitGemm if w[0, ..., 0].numel() <= 32 else self.algo.Native
        layer = self.sp.SubMConv3d(cin, cout, kernel, bias=False, indice_key="k", algo=algo).cuda().to(x.dtype)
        layer.weight.data.copy_(w)
        feats = x.detach().clone().requires_grad_()
        tensor = self.sp.SparseConvTensor(feats, coords, [side] * 3, 1)
        tensor.indice_dict = layer(tensor).indice_dict

        def forward():
            with torch.no_grad():
                return layer.eval()(tensor).features

        def training():
            layer.weight.grad = feats.grad = None
            layer.train()(tensor).features.backward(g)

        return forward, training

    def map(self, coords, side, stride):
        options = {"bias": False, "algo": self.algo.MaskImplicitGemm}
        layer = self.sp.SubMConv3d(16, 16, 3, **options) if stride == 1 else self.sp.SparseConv3d(16, 16, 3, stride, 1, **options)
        layer = layer.cuda().half()
        feats = torch.randn(len(coords), 16, device="cuda").half()

        def work():
            with torch.no_grad():
                layer(self.sp.SparseConvTensor(feats, coords, [side] * 3, 1))

        return work


class FlexGemm:
    name = "FlexGEMM"

    def __init__(self):
        from flex_gemm.kernels.triton.spconv import config
        from flex_gemm.ops.spconv import Algorithm, set_algorithm, sparse_submanifold_conv3d

        set_algorithm(Algorithm.MASKED_IMPLICIT_GEMM_SPLITK)
        self.config, self.conv = config, sparse_submanifold_conv3d

    def prepare(self, kind, coords, side, x, w, g):
        self.config.allow_tf32 = kind == "tf32"
        shape = torch.Size([1, x.shape[1], side, side, side])
        feats, weight = (v.detach().clone().requires_grad_() for v in (x, w))
        bias = torch.zeros(w.shape[0], device="cuda", dtype=x.dtype, requires_grad=True)  # the peer's backward pass requires one
        _, cache = self.conv(feats, coords, shape, weight, bias)

        def forward():
            with torch.no_grad():
                return self.conv(feats, coords, shape, weight, bias, cache)[0]

        def training():
            weight.grad = feats.grad = None
            self.conv(feats, coords, shape, weight, bias, cache)[0].backward(g)

        return forward, training

    def map(self, coords, side, stride):
        if stride > 1:
            return None
        feats, weight, bias = torch.randn(len(coords), 8, device="cuda").half(), torch.randn(8, 3, 3, 3, 8, device="cuda").half(), torch.zeros(8, device="cuda").half()
        return lambda: self.conv(feats, coords, torch.Size([1, 8, side, side, side]), weight, bias)


def measure(side_of, rows, side, kind, cin, cout, kernel=(3, 3, 3), gradients=True):
    coords = shell(side)
    nbr = neighbours(coords, [side] * 3, kernel)
    generator = torch.Generator("cuda").manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, device="cuda", generator=generator)
    x, g = draw(len(coords), cin).to(NAMES[kind]), draw(len(coords), cout).to(NAMES[kind])
    w = (draw(cout, *kernel, cin) / (17 * cin) ** 0.5).to(NAMES[kind])
    ref = reference(x, w, nbr)
    pairs = (nbr >= 0).sum().item()
    for side_name, make in side_of.items():
        row = {"who": side_name, "op": "subm", "kernel": kernel, "side": side, "sites": len(coords), "pairs": pairs, "kind": kind, "in": cin, "out": cout}
        try:
            forward, training = make.prepare(kind, coords, side, x, w, g)
            row["error"] = error(forward(), ref)
            if not row["error"] < 10 * LIMITS[kind]:
                raise AssertionError(f"answers wrong by {row['error']:.1e}, more than this type's rounding")
            row["forward"] = both(forward, 2_000_000)
            if gradients:
                row["training"] = both(training, 12_000_000)
            if side_name == Ours.name:  # no times as called: users do not call the kernels from Python
                for what in ("forward", "training"):
                    row.get(what, {}).pop("called", None)
                if "WAVEMESH_BENCH" in os.environ and kind != "exact":
                    with tempfile.TemporaryDirectory() as folder:
                        library(row, Path(folder), kind, coords, side, x, w)
        except Exception as e:  # noqa: BLE001
            row["not_measured"] = str(e)[:200] if isinstance(e, AssertionError) else repr(e)[:200]
        rows.append(row)
        print(json.dumps(row), flush=True)


def map_of_library(coords, side, stride, made=40):
    """The library's kernel map of tensors that are made before, in ms."""
    side_of = gpu_networks.Ours()
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_file({"features": torch.zeros(len(coords), 1), "indices": coords.double().cpu()}, Path(folder) / "inputs")
            side_of.ask(do="prepare", suite="sparse", op="map", params={"side": side, "stride": stride, "made": made}, inputs=str(Path(folder) / "inputs"))
            times = [side_of.ask(do="sample", repeat=1, awake=False)["seconds"] for _ in range(made)][4:]
            return sorted(times)[len(times) // 2] * 1e3
    finally:
        side_of.close()


def library(row, folder, kind, coords, side, x, w):
    """The library's own layer, timed as a user calls it."""
    side_of = gpu_networks.Ours()
    try:
        inputs = {"features": x, "weight": w, "indices": coords.double()}
        save_file({name: tensor.contiguous().cpu() for name, tensor in inputs.items()}, folder / "inputs")
        for what, op in (("forward", "forward"), ("training", "forward_backward")):
            if what in row:
                side_of.ask(do="prepare", suite="sparse", op=op, params={"side": side, "tf32": kind == "tf32"}, inputs=str(folder / "inputs"))
                row[what]["called"] = gpu_networks.median(lambda: side_of.ask(do="sample", repeat=1, awake=False)["seconds"], 0.3)
    finally:
        side_of.close()


def limits():
    a, b = torch.empty(1 << 28, device="cuda"), torch.empty(1 << 28, device="cuda")
    found = {"copy": 8 * (1 << 28) / timed(lambda: b.copy_(a)) / 1e9}
    for name, dtype in (("f16", torch.float16), ("tf32", torch.float32), ("f32", torch.float32)):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        m = 4096 if name == "f32" else 8192
        x, y = (torch.randn(m, m, device="cuda", dtype=dtype) for _ in range(2))
        found[name] = 2 * m**3 / timed(lambda: x @ y) / 1e9
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def ms(value):
    return "–" if value is None else f"{value:.3f}"


def best(rows, what, how):
    """The fastest peer's time and name."""
    times = [(r[what][how], r["who"]) for r in rows if r["who"] != Ours.name and r.get(what, {}).get(how)]
    return min(times) if times else (None, "")


def table(rows, limit):
    times = ["ours alone", "peer alone", "ratio", "ours as called", "peer as called", "ratio"]
    header = ["sites", "type", "channels", "kernel", "of limit", *(f"forward: {times[0]}", *times[1:]), *(f"forward + backward: {times[0]}", *times[1:])]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join(["---"] * len(header)) + " |"]
    groups, maps, reasons = {}, {}, {}
    for r in rows:
        if r["op"] == "map":
            maps.setdefault((r["sites"], r["stride"]), {})[r["who"]] = r
        else:
            groups.setdefault((r["sites"], r["kind"], r["in"], r["out"], tuple(r["kernel"])), []).append(r)
        if "not_measured" in r:
            reasons[f"{r['who']}, {r.get('kind', 'map')}: {r['not_measured']}"] = None
    for (sites, kind, cin, cout, kernel), group in groups.items():
        ours = next(r for r in group if r["who"] == Ours.name)
        floor = 2 * ours["pairs"] * cin * cout / 1e9 / (limit["tf32"] / 3 if kind == "f32" else limit[{"bf16": "f16", "exact": "f32"}.get(kind, kind)])
        cells = [f"{sites:,}", kind, f"{cin} → {cout}", "×".join(map(str, kernel))]
        mine = ours.get("forward", {}).get("alone")
        cells.append(f"{floor / mine:.0%}" if mine else "–")
        for what in ("forward", "training"):
            for how in ("alone", "called"):
                mine, (theirs, who) = ours.get(what, {}).get(how), best(group, what, how)
                cells += [ms(mine), f"{ms(theirs)} {who}".strip(), f"{theirs / mine:.2f}×" if mine and theirs else "–"]
        lines.append("| " + " | ".join(cells) + " |")
    columns = ["sites", "map of 3×3×3", "ours alone", "ours as called", "spconv as called, with a forward of 16 channels", "FlexGEMM as called, with one of 8"]
    lines += ["", "| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for (sites, stride), by in maps.items():
        cell = lambda who, how: ms(by.get(who, {}).get("time", {}).get(how))
        title = "submanifold" if stride == 1 else f"stride {stride}, after a submanifold one"
        lines.append(f"| {sites:,} | {title} | {cell('WaveMesh', 'alone')} | {cell('WaveMesh', 'called')} | {cell('spconv', 'called')} | {cell('FlexGEMM', 'called')} |")
    if reasons:
        lines += ["", "Not measured: " + "; ".join(reasons) + "."]
    return "\n".join(lines)


def section(rows, limit, missing, command, networks):
    properties = torch.cuda.get_device_properties(0)
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.split()
    commit = os.environ.get("COMMIT") or subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    absent = "".join(f" {name}: not measured ({why})." for name, why in missing.items())
    return (
        f"## GPU\n\nSubmanifold convolution on shells, beside spconv and FlexGEMM on the same card in the same run. Times in ms: ours and \"peer alone\" on the card "
        f"alone, without host code; \"as called\" with it, which is what users wait for: ours from Rust, the peers' from Python, each call waited for; maps are of tensors that exist. Of limit: the time that the useful products "
        f"would need at the rate of torch's matrix product in that type, as a share of ours (f32: three TF32 products). FlexGEMM tunes each new shape for half a "
        f"minute and keeps what it finds: it has the cases that fitted.\n\n"
        f"`{command}`, {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, commit {commit}. {properties.name}, driver {driver[0] if driver else 'unknown'}, CUDA {torch.version.cuda}, torch {torch.__version__}. "
        f"Limits measured in the same run: copy {limit['copy']:.2f} TB/s, f16 {limit['f16']:.0f}, TF32 {limit['tf32']:.0f}, f32 {limit['f32']:.0f} TFLOP/s.{absent}\n\n{table(rows, limit)}\n"
        + (f"\nWhole networks, kernel maps known, from the host until the card has done it; memory is the most that a side's tensors use at once in a run, above what they used before. A recording is launched as a whole (`wavemesh::device::Recording`); its memory is its own, and not counted.\n\n{gpu_networks.table(networks)}\n" if networks else "")
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="put the section into bench/RESULTS.md")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--networks", action="store_true", help="nothing but whole networks")
    parser.add_argument("--convolutions", action="store_true", help="no networks")
    parser.add_argument("--kinds", nargs="+", default=["f16", "tf32", "f32", "bf16", "exact"], help="types of the convolutions")
    parser.add_argument("--channels", nargs="+", type=int, default=[32, 64, 128], help="channels of the large cases")
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 128], help="grids of the large cases")
    parser.add_argument("--seconds", type=float, default=360, help="no more cases of FlexGEMM after this")
    parser.add_argument("--out", type=Path, help="also write the section and every row into this folder")
    options = parser.parse_args()
    sides, missing = {}, {}
    for make in (Ours, Spconv, FlexGemm):
        try:
            sides[make.name] = make()
        except Exception as e:  # noqa: BLE001
            missing[make.name] = repr(e)[:120]
    limit, rows, networks = limits(), [], []
    print(json.dumps({"limits": limit, "missing": missing}), flush=True)

    def save():
        text = section(rows, limit, missing, "bash bench/gpu.sh" + (" --write" if options.write else ""), networks)
        if options.out:
            (options.out / "gpu.md").write_text(text)
            (options.out / "gpu.json").write_text(json.dumps({"convolutions": rows, "networks": networks}))
        return text

    if "WAVEMESH_BENCH" in os.environ and not options.convolutions:
        for row in gpu_networks.run(options.quick):
            networks.append(row)
            save()
    if options.networks:
        print(gpu_networks.table(networks))
        return
    for side in options.sides:
        coords = shell(side)
        for stride, (name, make) in itertools.product((1, 2), sides.items()):
            row = {"who": name, "op": "map", "side": side, "sites": len(coords), "stride": stride}
            try:
                work = make.map(coords, side, stride)
                row["time"] = both(work, 6_000_000) if work else {}
                if name == Ours.name:
                    row["time"]["called"] = map_of_library(coords, side, stride) if "WAVEMESH_BENCH" in os.environ else None
            except Exception as e:  # noqa: BLE001
                row["not_measured"] = repr(e)[:200]
            rows.append(row)
            print(json.dumps(row), flush=True)
    for kind in ["f16"] if options.quick else [kind for kind in options.kinds if kind != "exact"]:
        for side in options.sides:
            for channels in options.channels:
                late = time.time() - START > options.seconds
                chosen = {n: m for n, m in sides.items() if not late or n != FlexGemm.name}  # FlexGEMM tunes each shape for many seconds
                if kind == "bf16":  # spconv's kernels have no bf16
                    chosen.pop("spconv", None)
                measure(chosen, rows, side, kind, channels, channels)
                save()
    for side in options.sides if "exact" in options.kinds else ():  # exact f32: FlexGEMM's is exact too; spconv's is rounded like TF32
        for channels in options.channels:
            late = time.time() - START > options.seconds
            chosen = {n: m for n, m in sides.items() if n == Ours.name or (n == FlexGemm.name and not late)}
            measure(chosen, rows, side, "exact", channels, channels, gradients=False)
            save()
    if not options.quick and "f16" in options.kinds and len(options.sides) > 1:
        chosen = {n: m for n, m in sides.items() if n != FlexGemm.name}
        for side in (18, 40, 512, 1024):
            measure(chosen, rows, side, "f16", 64, 64)
            save()
        for cin, cout in ((16, 16), (64, 32), (128, 256), (256, 256)):
            measure(chosen, rows, 128, "f16", cin, cout)
            save()
        measure(chosen, rows, 128, "f16", 64, 64, (3, 1, 3))
    text = save()
    print(text)
    if options.write:
        from harness.report import write_gpu

        write_gpu(text)


if __name__ == "__main__":
    main()
