"""How training scales: the example `train` with 1, 2, 4, … processes, and what more of them would give.

    cargo build --release --features mpi --example train
    python3 bench/scale.py --engine mpi --counts 1,2 --steps 30                     processors, one thread each
    cargo build --release --features nccl --example train
    python3 bench/scale.py --engine nccl --counts 1,2 --steps 200 --stages 0,1      GPUs of this machine

Each stage of the generator (`--config`) is trained for `--steps` steps: with one batch shared among the processes (strong scaling), and with a batch
each (weak scaling). A step is the median of those after the first ten. "in the group" is the share of the time that rank 0 spends in sums
over the group, waiting for the others included. `--model` adds what 8 GPUs of a machine and 64 of eight machines would give: the step of one,
and 2 (n − 1)/n times the gradient's bytes at `--inside` or `--outside` GB/s, and `--latency` µs for each operation and doubling of n. With `--given` nothing
is measured: the model starts from a step that was (milliseconds, samples, parameters).
"""

import argparse
import json
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 10
# Sums over the group in a step in which each process has its own norms: of the loss, of the gradients, and of whether all continue.
OPERATIONS = 3


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["mpi", "nccl"], default="mpi")
    parser.add_argument("--counts", default="1,2")
    parser.add_argument("--stages", default="0")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--shapes", type=int, default=200, help="shapes to train on")
    parser.add_argument("--batch", type=int, help="samples a step, instead of the configuration's")
    parser.add_argument("--config", type=Path, default=ROOT / "notebooks/models/shapes64.json")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/examples/train")
    parser.add_argument("--model", action="store_true")
    parser.add_argument("--given", help="MS,SAMPLES,PARAMETERS of one process's step")
    parser.add_argument("--inside", type=float, default=100.0, help="GB/s between GPUs of a machine")
    parser.add_argument("--outside", type=float, default=25.0, help="GB/s of each GPU to other machines")
    parser.add_argument("--latency", type=float, default=15.0, help="µs of an operation for each doubling")
    parser.add_argument("--json", type=Path, help="where every figure goes")
    return parser.parse_args()


def start(options, count, config, stage):
    """Trains one stage in `count` processes; returns what rank 0 reports."""
    command = [str(options.program), "--config", str(config), "--stage", str(stage)]
    if options.engine == "mpi":
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "WAVEMESH_DEVICE": "cpu"}
        if count > 1:
            command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(count), *command]
        return run(command, environment)
    if count == 1:
        return run(command, {**os.environ, "WAVEMESH_DEVICE": "cuda"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
        for rank in range(count)
    ]
    common = {**os.environ, "WAVEMESH_PORT": str(port), "WAVEMESH_DEVICE": "cuda"}
    others = [subprocess.Popen(command, env={**common, **place}, stdout=subprocess.DEVNULL) for place in places[1:]]
    said = run(command, {**common, **places[0]})
    if any(other.wait() for other in others):
        sys.exit("a process failed")
    return said


def run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def measure(options, work, count, stage, batch, synchronised):
    folder = Path(tempfile.mkdtemp(dir=work))
    config = json.loads(options.config.read_text())
    training = config["training"][min(stage, len(config["training"]) - 1)]
    training |= {"steps": options.steps + WARM_UP, "batch_size": batch, "validate_every": 0, "checkpoint_every": 0}
    training["sync_batch_norm"] = synchronised
    config |= {"shapes": options.shapes, "minutes": [0.0], "training": [training], "folder": str(folder), "views": 0}
    config["dataset"]["cache"] = str(work / "cache")
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    said = start(options, count, path, stage)
    rows = (folder / f"stage-{stage}" / "log.csv").read_text().splitlines()
    column = rows[0].split(",").index("seconds")
    seconds = statistics.median(float(row.split(",")[column]) for row in rows[1 + WARM_UP :])
    found = {"count": count, "stage": stage, "batch": batch, "synchronised": synchronised, "seconds": seconds}
    found["parameters"] = int(re.search(r"(\d+) parameters", said).group(1))
    group = re.search(r"([\d.]+) s of ([\d.]+) s in (\d+) operations of the group", said)
    if group:
        found["share"] = float(group.group(1)) / float(group.group(2))
        found["operations"] = int(group.group(3)) / (options.steps + WARM_UP)
    print(json.dumps(found), file=sys.stderr)
    return found


def model(options, stage, one, operations):
    """A step of `one` process's batch in groups of 8 and 64 processes, each with a batch of its own."""
    size = 4 * one["parameters"]
    for count, bandwidth, where in [(8, options.inside, "one machine"), (64, options.outside, "eight machines")]:
        sent = 2 * (count - 1) / count * size / (bandwidth * 1e9)
        waits = operations * math.log2(count) * options.latency * 1e-6
        step = one["seconds"] + sent + waits
        rate = count * one["batch"] / step
        print(
            f"| {stage} | {count}, {where} | {count * one['batch']} | {1e3 * step:.1f} | {rate:.0f} "
            f"| {count * one['seconds'] / step:.1f} × | {100 * one['seconds'] / step:.0f} % | {100 * (sent + waits) / step:.0f} % |"
        )


def modelled_table(options, cases):
    print(f"Model: {options.inside:g} GB/s inside, {options.outside:g} GB/s outside, {options.latency:g} µs; norms over each process's own samples.\n")
    print("| stage | GPUs | samples a step | ms a step | samples/s | speed-up | efficiency | in the group |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for stage, one, operations in cases:
        model(options, stage, one, operations)


def main():
    options = arguments()
    if options.given:
        milliseconds, samples, parameters = map(float, options.given.split(","))
        one = {"seconds": milliseconds / 1e3, "batch": int(samples), "parameters": int(parameters)}
        modelled_table(options, [(options.stages, one, OPERATIONS)])
        return
    counts = [int(count) for count in options.counts.split(",")]
    everything = []
    print("| stage | processes | scaling | norms over | samples a step | ms a step | samples/s | speed-up | efficiency | in the group |")
    print("| ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as work:
        modelled = []
        for stage in map(int, options.stages.split(",")):
            config = json.loads(options.config.read_text())
            batch = options.batch or config["training"][min(stage, len(config["training"]) - 1)]["batch_size"]
            one = measure(options, Path(work), 1, stage, batch, True)
            everything.append(one)
            row(stage, one, "", one)
            for count in (count for count in counts if count > 1):
                for scaling, size in [("strong", batch), ("weak", batch * count)]:
                    for synchronised in (True, False):
                        found = measure(options, Path(work), count, stage, size, synchronised)
                        everything.append(found)
                        row(stage, found, scaling, one)
            modelled.append((stage, one, next((f["operations"] for f in everything[::-1] if "operations" in f), OPERATIONS)))
    if options.model:
        print()
        modelled_table(options, modelled)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))


def row(stage, found, scaling, one):
    rate, base = found["batch"] / found["seconds"], one["batch"] / one["seconds"]
    norms = "" if found["count"] == 1 else "all" if found["synchronised"] else "own"
    share = f"{100 * found['share']:.0f} %" if "share" in found else ""
    print(
        f"| {stage} | {found['count']} | {scaling} | {norms} | {found['batch']} | {1e3 * found['seconds']:.1f} | {rate:.1f} "
        f"| {rate / base:.2f} × | {100 * rate / base / found['count']:.0f} % | {share} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
