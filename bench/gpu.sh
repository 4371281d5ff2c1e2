#!/usr/bin/env bash
# Measures the fast CUDA kernels beside spconv and FlexGEMM on one card, in one run. Answers are compared with float64 before the timing.
#
#   bash bench/gpu.sh [--write] [--quick] [--seconds N]     on the machine with the card: needs nvcc, python3 with torch, numpy and psutil
#   bash bench/gpu.sh --pack FOLDER [FLEXGEMM_CHECKOUT]      on a machine with package registries: packs the peers
#
# Peers come from python3's own packages, and from GPU_PEERS, a folder that --pack made (site.tar.xz, flex.tgz). The table shows a missing
# peer as not measured. WAVEMESH_KERNELS names a folder of kernels that are compiled already. WAVEMESH_BENCH names the library's side, built
# by `cargo build --release -p wavemesh-bench --features cuda`: with it, the library's own calls and complete networks are measured too.
# FlexGEMM keeps its tuning for the card in tuned.json of GPU_PEERS.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "${1:-}" = --pack ]; then
  folder=$(mkdir -p "$2" && cd "$2" && pwd)
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any -d "$work/wheels" \
    spconv-cu126==2.3.8 cumm-cu126==0.7.11 pccm ccimport fire termcolor lark
  mkdir "$work/site"
  for wheel in "$work"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$work/site"; done
  tar c -C "$work/site" . | xz -6 -T0 > "$folder/site.tar.xz"
  if [ $# -gt 2 ]; then git -C "$3" archive HEAD flex_gemm setup.py pyproject.toml autotune_cache.json | gzip > "$folder/flex.tgz"; fi
  ls -l "$folder"
  exit
fi

if [ -n "${GPU_PEERS:-}" ]; then
  mkdir "$work/site"
  for archive in "$GPU_PEERS"/site.tar.xz "$GPU_PEERS"/flex.tgz; do
    if [ -e "$archive" ]; then tar xf "$archive" -C "$work/site"; fi
  done
  export FLEX_GEMM_AUTOTUNE_CACHE_PATH=$GPU_PEERS/tuned.json
  export CUMM_DISABLE_JIT=1 SPCONV_DISABLE_JIT=1  # spconv takes FlexGEMM's setup.py for its own, and would compile itself
  if [ -e "$work/site/setup.py" ]; then  # FlexGEMM has code to compile
    (cd "$work/site" && TORCH_CUDA_ARCH_LIST=9.0 python3 setup.py -q build_ext --inplace > "$work/flex.log" 2>&1) || tail -5 "$work/flex.log" >&2
  fi
  export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
fi
if [ -z "${WAVEMESH_KERNELS:-}" ]; then
  export WAVEMESH_KERNELS=$work/kernels
  mkdir "$WAVEMESH_KERNELS"
  for source in "$root"/src/sparse/backend/cuda/kernels/*.cu; do
    nvcc -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a -cubin -o "$WAVEMESH_KERNELS/$(basename "$source" .cu).cubin" "$source" &
  done
  wait
fi
export PYTHONPATH=$root/tests/gpu:$root/bench${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1
python3 "$root/bench/gpu.py" "$@"
