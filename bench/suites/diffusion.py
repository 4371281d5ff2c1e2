"""Samplers and noising beside diffusers on torch with a network that costs next to nothing, then with the generator's coarse network on 8³, all sites."""

import numpy as np

from harness import Case, Limit, Work, close, peer

from .unet import dense_network, weights

CHANNELS = (32, 48, 80)
BANDS = 8


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


@peer("torch, dense", "torch", "diffusers", package="torch")
def torch_dense(case):
    """The same network with torch's dense convolutions, which are made for grids where every site is occupied."""
    import torch
    import torch.nn.functional as F
    from diffusers import DDIMScheduler

    train = case.op == "train_step"
    parameters, network = dense_network(case, train)
    x = torch.from_numpy(case.inputs["features"])
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True
    )
    if not train:

        @torch.no_grad()
        def sample():
            now = x
            scheduler.set_timesteps(case.params["steps"])
            for t in scheduler.timesteps:
                now = scheduler.step(network(now, t.reshape(1)), t, now).prev_sample
            return now

        return Work(sample, lambda x: {"x": x.numpy()})

    noise, timesteps = torch.from_numpy(case.inputs["noise"]), torch.from_numpy(case.inputs["timesteps"])
    element = torch.from_numpy(case.inputs["indices"])[:, 0]
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4, weight_decay=1e-4)
    signal = scheduler.alphas_cumprod[timesteps][element, None]
    grad = parameters["encoder.input_conv.0.weight"]

    def step():
        optimizer.zero_grad()
        noised, velocity = signal.sqrt() * x + (1 - signal).sqrt() * noise, signal.sqrt() * noise - (1 - signal).sqrt() * x
        loss = F.mse_loss(network(noised, timesteps), velocity)
        loss.backward()
        optimizer.step()
        return loss.detach(), grad.grad.clone()

    return Work(step, lambda found: {"loss": found[0].numpy().reshape(1), "grad": found[1].permute(0, 2, 3, 4, 1).numpy()})


def network_cases():
    """The network of stage 0 in training (16 shapes at once) and in sampling (one shape)."""

    def inputs(batch):
        random = np.random.default_rng(batch)
        sites = np.stack(np.meshgrid(np.arange(batch), *[np.arange(8)] * 3, indexing="ij"), -1).reshape(-1, 4)
        arrays = {"indices": sites.astype(np.int64), "timesteps": random.integers(0, 1000, batch)}
        for name in ("features", "noise"):
            arrays[name] = random.standard_normal((len(sites), BANDS), dtype=np.float32)
        return arrays | {f"w/{k}": v for k, v in weights(random, CHANNELS, BANDS, BANDS).items()}

    params = {"size": 8, "channels": CHANNELS}
    yield Case(
        "training step: noise, loss, gradients, AdamW", "16 shapes, 8³ × 8", "train_step", lambda: inputs(16), params, (torch_dense,), close(1e-3),
        headline=True,
    )  # fmt: skip
    yield Case(
        "DDIM, 10 steps, with the network", "1 shape, 8³ × 8", "network_ddim", lambda: inputs(1), params | {"steps": 10}, (torch_dense,), close(1e-3),
    )  # fmt: skip


def cases(quick):
    yield from network_cases()

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
