"""Samplers and noising beside diffusers on torch, with a network that costs next to nothing."""

import numpy as np

from harness import Case, Limit, Work, close, peer


@peer("diffusers", "torch", "diffusers")
def diffusers(case):
    import torch
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    start = torch.from_numpy(case.inputs["x"])
    answer = lambda x: {"x": x.numpy()}
    common = {"beta_schedule": "linear", "timestep_spacing": case.params.get("spacing", "leading")}
    if case.op == "q_sample":
        scheduler = DDIMScheduler(beta_schedule="linear")
        noise, t = torch.from_numpy(case.inputs["noise"]), torch.tensor([case.params["t"]])
        return Work(lambda: scheduler.add_noise(start, noise, t), answer)
    if case.op == "ddim":
        scheduler = DDIMScheduler(clip_sample=False, **common)
    else:
        scheduler = DPMSolverMultistepScheduler(solver_order=case.params["order"], final_sigmas_type="zero", **common)

    @torch.no_grad()
    def sample():
        x = start
        scheduler.set_timesteps(case.params["steps"])
        for t in scheduler.timesteps:
            x = scheduler.step(x * (0.7 * float(t) / (float(t) + 1)), t, x).prev_sample
        return x

    return Work(sample, answer)


def cases(quick):
    def inputs(sites, channels, noise=False):
        random = np.random.default_rng(sites)
        return lambda: {name: random.standard_normal((sites, channels), dtype=np.float32) for name in ("x", "noise")[: 1 + noise]}

    steps = 20 if quick else 50
    for sites in (50_000,) if quick else (5_000, 50_000, 200_000):
        size = f"{sites:,} × 22"
        # A step reads x and the prediction and writes x; the network reads x and writes the prediction.
        least = Limit(bytes=steps * 5 * 4 * sites * 22)
        yield Case(
            f"DDIM, {steps} steps", size, "ddim", inputs(sites, 22), {"steps": steps, "spacing": "trailing"}, (diffusers,), limit=least,
            headline=sites == 50_000,
        )
        yield Case(
            f"DPM-Solver++ 2, {steps} steps", size, "dpm_solver_pp", inputs(sites, 22),
            {"steps": steps, "order": 2, "spacing": "linspace"}, (diffusers,), limit=least,
        )  # fmt: skip
        yield Case("q_sample", size, "q_sample", inputs(sites, 22, noise=True), {"t": 400}, (diffusers,), close(1e-5), Limit(bytes=12 * sites * 22))
