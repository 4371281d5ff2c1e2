#!/usr/bin/env bash
# Compiles every GPU kernel for every architecture and checks the Rust code of the features `cuda` and `nccl`. It needs no GPU, and prints
# how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
if ! command -v nvcc >/dev/null; then
    eval "$(bash kernel/cuda_toolkit.sh "$target/cuda" --compiler)"
    PATH=$CUDA_HOME/bin:$PATH
fi
SECONDS=0
WAVEMESH_NVCC=$(command -v nvcc) NVCC=$PWD/tests/nvcc_ours.sh CUDA_COMPUTE_CAP=80 CARGO_TARGET_DIR=$target \
    cargo clippy --release --locked --features nccl --lib --test gpu --test gpu_alone -- -D warnings
echo "GPU kernels for every architecture and the Rust around them: $SECONDS s"
