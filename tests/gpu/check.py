"""Checks every fast kernel against float64 on the card and bit for bit over repeated runs, and times it: `python3 check.py [--quick]
[--only WORD]`."""

import argparse
import sys

import torch

import fast

LIMITS = {"halves": 6e-4, "f16": 4e-4, "bf16": 3e-3, "tf32": 6e-4, "f32": 1e-5, "exact": 2e-6}  # exact: f32 sums of 8,000 products, added one by one, are off by 1e-6
failures = 0


def shell(side, thickness=0.9, batch=1):
    axis = torch.arange(side, device="cuda", dtype=torch.float32) + 0.5 - side / 2
    r = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    sites = torch.nonzero((r - 0.4 * side).abs() < thickness).int()
    return torch.cat([torch.cat([torch.full_like(sites[:, :1], b), sites], 1) for b in range(batch)])


def block(side):
    sites = torch.nonzero(torch.ones(side, side, side, device="cuda")).int()
    return torch.cat([torch.zeros_like(sites[:, :1]), sites], 1)


def cloud(side, share, seed=0, batch=1):
    generator = torch.Generator("cuda").manual_seed(seed)
    sites = torch.nonzero(torch.rand(batch, side, side, side, device="cuda", generator=generator) < share).int()
    return sites[torch.randperm(len(sites), device="cuda", generator=generator)]


def neighbours(coords, shape, kernel):
    """Reference map [offset][n] by a sorted search, independent of the kernels."""
    d, h, w = shape
    key = lambda c: ((c[:, 0].long() * (d + 8) + c[:, 1] + 4) * (h + 8) + c[:, 2] + 4) * (w + 8) + c[:, 3] + 4
    keys, order = key(coords).sort()
    rows = []
    for z in range(kernel[0]):
        for y in range(kernel[1]):
            for x in range(kernel[2]):
                step = torch.tensor([0, z - kernel[0] // 2, y - kernel[1] // 2, x - kernel[2] // 2], device="cuda", dtype=torch.int32)
                want = key(coords + step)
                at = torch.searchsorted(keys, want).clamp(max=len(keys) - 1)
                rows.append(torch.where(keys[at] == want, order[at], torch.full_like(at, -1)))
    return torch.stack(rows)


def reference(x, w, nbr):
    y = torch.zeros(nbr.shape[1], w.shape[0], dtype=torch.float64, device="cuda")
    w = w.double().reshape(w.shape[0], -1, w.shape[4])
    for o, source in enumerate(nbr):
        to = (source >= 0).nonzero()[:, 0]
        y[to] += x[source[to]].double() @ w[:, o].T
    return y


def reference_weights(x, g, nbr):
    rows = []
    for source in nbr:
        to = (source >= 0).nonzero()[:, 0]
        rows.append(g[to].double().T @ x[source[to]].double())
    return torch.stack(rows, 1)


def median(work, count=30):
    """Milliseconds on the card alone: it sleeps while the host queues the work."""
    for _ in range(4):
        work()
    times = []
    for _ in range(count):
        torch.cuda._sleep(600_000)
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        work()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times)[count // 2]


def report(name, out, ref, limit, work, pairs, flops):
    global failures
    error = ((out.double() - ref).norm() / ref.norm().clamp(min=1e-30)).item()
    first = out.clone()
    out.fill_(float("nan"))
    work()
    torch.cuda.synchronize()
    same = torch.equal(first, out)
    ms = median(work)
    good = error <= limit and same
    failures += not good
    print(f"{'ok  ' if good else 'FAIL'} {name:44} error {error:.1e} (limit {limit:.0e})  repeat {'same' if same else 'DIFFERS'}  {ms:.4f} ms  {flops * pairs / ms / 1e9:6.1f} TFLOP/s", flush=True)


def case(name, coords, shape, kinds, channels, kernel=(3, 3, 3), batch=1, least=None, gradients=True):
    global failures
    sites = fast.Sites(coords, shape, batch, least)
    torch.cuda.synchronize()
    status, n = sites.state[1].item(), sites.state[2].item()
    failed, items = sites.fill[1].item(), sites.items[0].item()
    nbr = neighbours(coords, shape, kernel)
    pairs = (nbr >= 0).sum().item()
    index_ms, map_ms = median(sites.index), median(sites.map)
    wrong = status != 0 or n != len(coords) or failed != 0
    failures += wrong
    print(f"{'FAIL' if wrong else 'ok  '} {name}: {len(coords)} sites, {pairs} pairs, {sites.tiles} tiles, {items} items, list {sites.fill[0].item() / sites.tiles:.0f} a tile, status {status}, counted {n}, index {index_ms:.4f} ms, tiles {map_ms:.4f} ms", flush=True)
    if wrong:
        return
    for kind in kinds:
        dtype, _ = fast.KINDS[kind]
        for cin, cout in channels:
            generator = torch.Generator("cuda").manual_seed(cin * 1000 + cout)
            x = torch.randn(len(coords), cin, device="cuda", generator=generator).to(dtype)
            g = torch.randn(len(coords), cout, device="cuda", generator=generator).to(dtype)
            w = (torch.randn(cout, *kernel, cin, device="cuda", generator=generator) / (17 * cin) ** 0.5).to(dtype)
            flops, label = 2 * cin * cout, f"{name} {kind} {cin}->{cout} "
            try:
                img = fast.pack(kind, w)
                y = torch.full((len(coords), cout), float("nan"), device="cuda", dtype=dtype)
                run = lambda: fast.convolve(kind, sites, x, img, cin, cout, kernel, y)
                run()
                report(label + "forward", y, reference(x, w, nbr), LIMITS[kind], run, pairs, flops)
                if gradients:
                    back = fast.pack(kind, w, True)
                    dx = torch.full((len(coords), cin), float("nan"), device="cuda", dtype=dtype)
                    run = lambda: fast.convolve(kind, sites, g, back, cout, cin, kernel, dx)
                    run()
                    flipped = w.flip(1, 2, 3).permute(4, 1, 2, 3, 0)
                    report(label + "input gradient", dx, reference(g, flipped, nbr), LIMITS[kind], run, pairs, flops)
                    dw = torch.full((cout, *kernel, cin), float("nan"), device="cuda")
                    sums = fast.empty(132 * 27 * cin * cout, dtype=torch.float32).fill_(float("nan"))
                    run = lambda: fast.weight_gradient(kind, sites, x, g, kernel, sums, dw)
                    run()
                    report(label + "weight gradient", dw.reshape(cout, -1, cin), reference_weights(x, g, nbr), {"f16": 1e-4, "bf16": 1e-4, "tf32": 6e-4, "halves": 6e-4, "f32": 1e-5}[kind], run, pairs, flops)
                    if kind == "f32":  # any scale: values down to 1e-30, and one channel far below the others
                        g.mul_(1e-30)
                        x[:, 0] *= 1e-6
                        run()
                        error = ((dw.reshape(cout, -1, cin).double() - (ref := reference_weights(x, g, nbr))).norm(dim=(0, 1)) / ref.norm(dim=(0, 1))).max().item()
                        failures += not error < 1e-5
                        print(f"{'ok  ' if error < 1e-5 else 'FAIL'} {label}weight gradient of small values: error of a channel {error:.1e}", flush=True)
            except Exception as e:  # noqa: BLE001
                failures += 1
                print(f"FAIL {label}: {e!r}", flush=True)
    if kinds and kernel == (3, 3, 3):
        kind, cin, cout = kinds[0], *channels[0]
        dtype, _ = fast.KINDS[kind]
        x, r = torch.randn(len(coords), cin, device="cuda").to(dtype), torch.randn(len(coords), cout, device="cuda").to(dtype)
        w, b = (torch.randn(cout, *kernel, cin, device="cuda") / (17 * cin) ** 0.5).to(dtype), torch.randn(cout, device="cuda").to(dtype)
        y = fast.convolve(kind, sites, x, fast.pack(kind, w), cin, cout, kernel, None, b, r, 2)
        ref = torch.nn.functional.silu(reference(x, w, nbr) + b.double() + r.double())
        error = ((y.double() - ref).norm() / ref.norm()).item()
        failures += not error < LIMITS[kind]
        print(f"{'ok  ' if error < LIMITS[kind] else 'FAIL'} {name} {kind} bias, residual, SiLU: error {error:.1e}", flush=True)


def strided(coords, kernel, stride, shape):
    """Reference of a strided convolution with padding k // 2: output sites, and tables by output and by input."""
    steps = [torch.tensor([0, z, y, x], device="cuda", dtype=torch.int32) for z in range(kernel[0]) for y in range(kernel[1]) for x in range(kernel[2])]
    pad = torch.tensor([0] + [k // 2 for k in kernel], device="cuda", dtype=torch.int32)
    out = [(s - 1) // stride + 1 for s in shape]
    reached = []
    for step in steps:
        scaled = coords + pad - step
        to = torch.cat([scaled[:, :1], torch.div(scaled[:, 1:], stride, rounding_mode="floor")], 1)
        inside = ((scaled[:, 1:] % stride == 0) & (to[:, 1:] >= 0) & (to[:, 1:] < torch.tensor(out, device="cuda"))).all(1)
        reached.append((to, inside))
    flat = lambda c: ((c[:, 0].long() * out[0] + c[:, 1]) * out[1] + c[:, 2]) * out[2] + c[:, 3]
    keys = torch.unique(torch.cat([flat(to[inside]) for to, inside in reached]))
    table = torch.full((len(steps), len(keys)), -1, device="cuda", dtype=torch.int32)
    back = torch.full((len(steps), len(coords)), -1, device="cuda", dtype=torch.int32)
    for o, (to, inside) in enumerate(reached):
        rows = inside.nonzero()[:, 0]
        at = torch.searchsorted(keys, flat(to[rows]))
        table[o, at], back[o, rows] = rows.int(), at.int()
    return table, back


def table_case(name, table, back, kinds, channels, kernel):
    global failures
    pairs, (volume, n), m = (table >= 0).sum().item(), table.shape, back.shape[1]
    print(f"     {name}: {m} -> {n} sites, {pairs} pairs, orders {median(lambda: fast.gather_order(table)):.4f} and {median(lambda: fast.gather_order(back)):.4f} ms")
    for kind in kinds:
        dtype, _ = fast.KINDS[kind]
        for cin, cout in channels:
            generator = torch.Generator("cuda").manual_seed(cin * 1000 + cout)
            x = torch.randn(m, cin, device="cuda", generator=generator).to(dtype)
            g = torch.randn(n, cout, device="cuda", generator=generator).to(dtype)
            w = (torch.randn(cout, *kernel, cin, device="cuda", generator=generator) / (17 * cin) ** 0.5).to(dtype)
            flops, label = 2 * cin * cout, f"{name} {kind} {cin}->{cout} "
            try:
                order, back_order = fast.gather_order(table), fast.gather_order(back)
                assert torch.equal(order.sort()[0], torch.arange(n, device="cuda", dtype=torch.int32))
                img = fast.pack_offsets(kind, w, range(volume), columns=fast.gather_columns(kind, cout))
                y = torch.full((n, cout), float("nan"), device="cuda", dtype=dtype)
                run = lambda: fast.gather(kind, x, img, table, cout, y, order)
                run()
                report(label + "gather", y, reference(x, w, table), LIMITS[kind], run, pairs, flops)
                back_img = fast.pack_offsets(kind, w, range(volume), True, columns=fast.gather_columns(kind, cin))
                dx = torch.full((m, cin), float("nan"), device="cuda", dtype=dtype)
                run = lambda: fast.gather(kind, g, back_img, back, cin, dx, back_order)
                run()
                report(label + "gather back", dx, reference(g, w.permute(4, 1, 2, 3, 0), back), LIMITS[kind], run, pairs, flops)
                if kind == "exact":  # plain/convolve.cu computes its gradients of weights
                    continue
                dw = torch.full((cout, volume, cin), float("nan"), device="cuda")
                run = lambda: fast.gather_weight_gradient(kind, x, g, table, dw=dw)
                run()
                report(label + "gather weights", dw, reference_weights(x, g, table), {"f16": 1e-4, "bf16": 1e-4, "tf32": 6e-4, "f32": 1e-5}[kind], run, pairs, flops)
            except Exception as e:  # noqa: BLE001
                failures += 1
                print(f"FAIL {label}: {e!r}", flush=True)


def table_cases(kinds):
    coords = shell(128)
    nbr = neighbours(coords, [128] * 3, (3, 3, 3)).int()
    table_case("subm 3^3, shell 128", nbr, nbr.flip(0).contiguous(), ["exact"], [(16, 16), (32, 32), (48, 96), (64, 64), (128, 128)], (3, 3, 3))
    coords = shell(64)
    nbr = neighbours(coords, [64] * 3, (5, 5, 5)).int()
    table_case("subm 5^3, shell 64", nbr, nbr.flip(0).contiguous(), kinds, [(32, 32), (64, 16)], (5, 5, 5))
    coords = shell(256)
    for kernel in ((3, 3, 3), (2, 2, 2)):
        table_case(f"stride 2 kernel {kernel[0]}, shell 256", *strided(coords, kernel, 2, [256] * 3), kinds, [(32, 64), (64, 128)], kernel)
    few = coords[:1].contiguous()
    table_case("stride 2, one site", *strided(few, (3, 3, 3), 2, [256] * 3), kinds, [(16, 96)], (3, 3, 3))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--kinds", nargs="+", default=["f16", "bf16", "tf32", "halves", "f32"])
    args = parser.parse_args()
    square = [(c, c) for c in (32, 64, 128)]
    halves = [k for k in args.kinds if "16" in k]
    cases = {
        "lone": lambda: case("one site", torch.tensor([[0, 5, 6, 7]], device="cuda", dtype=torch.int32), [16] * 3, args.kinds, [(16, 16), (64, 128)]),
        "few": lambda: case("300 of 16^3", cloud(16, 0.073), [16] * 3, args.kinds, [(16, 32), (96, 96), (128, 256)], least=4),
        "shell128": lambda: case("shell 128", shell(128), [128] * 3, args.kinds, square),
        "shell256": lambda: case("shell 256", shell(256), [256] * 3, args.kinds, square),
        "mixed": lambda: case("shell 64 x 3, any order", shell(64, batch=3)[torch.randperm(3 * len(shell(64)), device="cuda", generator=torch.Generator("cuda").manual_seed(1))], [64] * 3, args.kinds, [(16, 16), (16, 64), (32, 64), (64, 16), (64, 32), (48, 96), (128, 64), (192, 128), (256, 256)], batch=3),
        "block": lambda: case("block 40", block(40), [40] * 3, args.kinds, [(32, 32), (64, 64)]),
        "cloud": lambda: case("cloud 3 %", cloud(128, 0.033), [128] * 3, args.kinds, [(64, 64)]),
        "narrow": lambda: case("kernel (3, 1, 3)", shell(64), [64] * 3, args.kinds, [(32, 64)], kernel=(3, 1, 3)),
    }
    cases["table"] = lambda: table_cases([kind for kind in args.kinds if kind != "halves"] + ["exact"])  # halves: over tiles only
    for name, work in cases.items():
        if args.only in name:
            try:
                work()
            except Exception as e:  # noqa: BLE001
                failures += 1
                print(f"FAIL {name}: {e!r}", flush=True)
    print(f"{failures} failures")
    sys.exit(failures > 0)
