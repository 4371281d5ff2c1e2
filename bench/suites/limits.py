"""What this machine can do at most: GEMM peak and memory bandwidth; measured in every run, for the shares of the others."""

import numpy as np

from harness import Case, Row, Work, close, peer

N = 2048
TRIAD = 1 << 25


@peer("NumPy", "numpy", package="numpy")
def numpy(case):
    if case.op == "gemm":
        a, b = case.inputs["a"], case.inputs["b"]
        return Work(lambda: a @ b, answer=lambda c: {"c": c})
    b, c, scale = case.inputs["b"], case.inputs["c"], np.float32(case.params["scale"])
    a = np.zeros_like(b)

    def triad():
        np.multiply(c, scale, out=a)
        np.add(a, b, out=a)
        return np.ascontiguousarray(a[:: len(a) // 1000])

    return Work(triad, answer=lambda sample: {"sample": sample})


def cases(quick):
    random = np.random.default_rng(0)
    matrices = lambda: {name: random.standard_normal((N, N), dtype=np.float32) for name in "ab"}
    vectors = lambda: {name: random.standard_normal(TRIAD, dtype=np.float32) for name in "bc"}
    yield Case("matrix product, f32", f"{N}²", "gemm", matrices, peers=(numpy,))
    yield Case("triad a = b + s·c, f32", f"{TRIAD >> 20} Mi", "triad", vectors, {"scale": 3.0}, (numpy,), close(1e-6))


def keep(rows: list[Row], settings) -> None:
    """The better result of the two sides is the limit."""
    best = [min([*row.ours, *row.theirs], default=float("nan")) for row in rows[:2]]
    settings.peak_flops, settings.bandwidth = 2 * N**3 / best[0], 12 * TRIAD / best[1]
    for row, text in zip(rows, (f"{settings.peak_flops / 1e9:.0f} GFLOP/s", f"{settings.bandwidth / 1e9:.1f} GB/s")):
        row.our_facts = row.our_facts | {"limit": text}
