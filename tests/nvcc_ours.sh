#!/usr/bin/env bash
# Replaces nvcc when Rust is only checked (`cargo check --features cuda`). The real nvcc compiles WaveMesh's kernels for every architecture,
# with the least optimisation, in a third of the time. Candle's kernels, which take a quarter of an hour and are not ours to test, become
# empty files. WAVEMESH_NVCC is the real nvcc.
set -euo pipefail
if [ -d src/gpu/kernels ]; then
    exec "${WAVEMESH_NVCC:-nvcc}" "${@/#-O3/--Ofast-compile=max}"
fi
source=none out='' folder=. end=.o previous=''
for argument in "$@"; do
    case $previous in
    -o) out=$argument ;;
    --output-directory | -odir) folder=$argument ;;
    esac
    case $argument in
    --version) exec "${WAVEMESH_NVCC:-nvcc}" --version ;;
    --list-gpu-code) exec "${WAVEMESH_NVCC:-nvcc}" --list-gpu-code ;;
    --ptx | -ptx) end=.ptx ;;
    *.cu) source=$argument ;;
    esac
    previous=$argument
done
: >"${out:-$folder/$(basename "$source" .cu)$end}"
