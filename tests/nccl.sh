#!/usr/bin/env bash
# Training over two GPUs of this machine with NCCL: it must give the weights of one GPU, also through the engine alone, and name a killed process.
# Usage: bash tests/nccl.sh [PROGRAM]     (default: target/release/examples/train)
#   cargo build --release --features nccl --example train     builds the program; it can be copied to a machine without Rust
# Needs two GPUs, torchrun, Python's numpy and safetensors, CUDA's libraries where the loader finds them (LD_LIBRARY_PATH), and NCCL
# (WAVEMESH_NCCL where it is not installed).
set -euo pipefail
program=$(realpath "${1:-target/release/examples/train}")
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
export WAVEMESH_GROUP_TIMEOUT=30

# config NAME STEPS: writes NAME.json, of two small networks that are trained into the folder NAME.
config() {
  python3 - "$work" "$@" <<'PYTHON'
import json, sys

work, name, steps = sys.argv[1:]
stage = lambda steps: {"steps": steps, "batch_size": 4, "warmup": 1, "validate_every": 4, "learning_rate": 0.05, "ema_decay": 0.5}
config = {
    "shapes": 10,
    "dataset": {"resolution": 16, "levels": 1, "cache": f"{work}/cache"},
    "representation": {"resolution": 16},
    "channels": [[8, 12], [4, 6]],
    "training": [stage(int(steps)), stage(3)],
    "folder": f"{work}/{name}",
}
json.dump(config, open(f"{work}/{name}.json", "w"))
PYTHON
}

# alike NAME BOUND: no weight of NAME differs by more than BOUND from that of one GPU.
alike() {
  python3 - "$work" "$@" <<'PYTHON'
import sys
import numpy as np
from safetensors.numpy import load_file

work, name, bound = sys.argv[1:]
for stage in (0, 1):
    one, other = (load_file(f"{work}/{of}/stage-{stage}.safetensors") for of in ("one", name))
    assert one.keys() == other.keys() and len(one) > 10
    apart = max(float(np.abs(one[key].astype("f8") - other[key].astype("f8")).max()) for key in one)
    print(f"{name}, stage {stage}: {len(one)} tensors, at most {apart:.1e} from those of one GPU")
    assert apart <= float(bound)
PYTHON
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
config one 6
WAVEMESH_DEVICE=cuda:0 "$program" --config "$work/one.json" >/dev/null
config engine 6
RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 WAVEMESH_ENGINE=nccl "$program" --config "$work/engine.json" >/dev/null
alike engine 0
config two 6
torchrun --no-python --nproc-per-node 2 "$program" --config "$work/two.json" >/dev/null
alike two 2e-4

config endless 1000000
export MASTER_ADDR=127.0.0.1 WORLD_SIZE=2 WAVEMESH_PORT=${WAVEMESH_PORT:-29777}
RANK=0 LOCAL_RANK=0 "$program" --config "$work/endless.json" >"$work/said" 2>&1 &
first=$!
RANK=1 LOCAL_RANK=1 "$program" --config "$work/endless.json" >/dev/null 2>&1 &
second=$!
until grep -q "stage 0 step" "$work/said"; do kill -0 "$first" && sleep 0.1; done
kill -KILL "$second"
if wait "$first"; then echo "rank 0 went on without rank 1" >&2; exit 1; fi
grep "rank 1" "$work/said"
echo "passed"
