#!/usr/bin/env python3
"""What each choice in stage 0 of the shipped generator is worth: short trainings of the same shapes, noise and steps that differ in one thing.

    cargo build --release --features cuda --example train
    python3 bench/ablation.py target/release/examples/train [--steps 500] [--shapes 600] [--folder runs/ablation]

Prints a table: seconds per step (the median, without the first tenth), the memory that the GPU holds, and the loss of the averaged network
on validation shapes. All losses use the same noise at the same timesteps, so that small differences count.
"""

import argparse
import copy
import csv
import json
import pathlib
import re
import subprocess

SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "notebooks/models/shapes64.json"
WIDE = ([64, 96, 96, 128], [1, 1, 2, 2])
DEEP = ([64, 72, 80, 96, 96], [1, 1, 1, 2, 2])
# name: network, whether the timestep modulates each block, TF32 or not, the type kept for the backward pass, the share of the steps
VARIANTS = {
    "f32": (WIDE, False, False, "f32", 0.3),
    "TF32 products": (WIDE, False, True, "f32", 1.0),
    "TF32, timestep in every block": (WIDE, True, True, "f32", 1.0),
    "TF32, timestep in every block, one block more": (DEEP, True, True, "f32", 1.0),
    "TF32, f16 features, scaled loss": (WIDE, True, True, "f16", 1.0),
    "TF32, bf16 features": (WIDE, True, True, "bf16", 1.0),
}


def configuration(base, variant, steps, shapes, folder):
    (channels, strides), modulation, tf32, precision, share = variant
    config = copy.deepcopy(base)
    config.update(shapes=shapes, folder=str(folder), minutes=[0.0], modulation=[modulation], tf32=tf32, precision=precision)
    config.update(views=0, label_dropout=0.1)  # no pictures, and the family nearly always
    config["channels"][0], config["strides"][0] = channels, strides
    training = config["training"][0]
    training.update(
        steps=max(1, round(share * steps)), ema_decay=0.98, warmup=100, final_learning_rate=0.05,
        validate_every=100, checkpoint_every=10**9, loss_scale={} if precision == "f16" else None,
    )
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", type=pathlib.Path)
    parser.add_argument("--config", type=pathlib.Path, default=SHIPPED)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--shapes", type=int, default=600)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/ablation"))
    options = parser.parse_args()
    base = json.loads(options.config.read_text())
    print(f"| {options.steps} steps of {base['training'][0]['batch_size']}, {options.shapes} shapes | ms/step | GPU memory | validation |")
    print("| --- | ---: | ---: | ---: |")
    for number, (name, variant) in enumerate(VARIANTS.items()):
        folder = options.folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.json"
        file.write_text(json.dumps(configuration(base, variant, options.steps, options.shapes, folder), indent=2))
        done = subprocess.run([options.train.resolve(), "--config", file, "--stage", "0"], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{name}: {done.stderr.strip() or done.stdout.strip()}")
        rows = list(csv.DictReader((folder / "stage-0/log.csv").open()))
        seconds = sorted(float(row["seconds"]) for row in rows[len(rows) // 10 :])
        memory = re.search(r"([\d.]+ GB) of GPU memory", done.stdout)
        validations = [float(row["validation"]) for row in rows if row["validation"]]
        loss = f"{validations[-1]:.4f}" if len(rows) == options.steps and validations else ""
        print(f"| {name} | {1e3 * seconds[len(seconds) // 2]:.1f} | {memory[1] if memory else ''} | {loss} |", flush=True)


if __name__ == "__main__":
    main()
