#!/usr/bin/env bash
# Lays out a CUDA toolkit in a folder, from PyPI's wheels: nvcc, headers, and libraries to link against. No GPU and no driver is
# needed. `cargo build --features cuda` finds it through the variables that this script prints.
#
#   eval "$(bash kernel/cuda_toolkit.sh ~/.cache/wavemesh-cuda)"
#
# With --compiler after the folder it brings nvcc and headers alone, 0.3 GB for 1.2, which is enough to check what is not linked.
#
# Where a distribution's toolkit is installed (nvcc in PATH, libcuda with the driver), none of this is needed.
set -euo pipefail

folder=${1:?"usage: cuda_toolkit.sh FOLDER [--compiler]"}
version=13.0
toolkit=$folder/toolkit
compiler=("nvidia-cuda-nvcc==$version.*" "nvidia-cuda-crt==$version.*" "nvidia-nvvm==$version.*" "nvidia-cuda-cccl==$version.*" "nvidia-cuda-runtime==$version.*")
libraries=("nvidia-cuda-nvrtc==$version.*" "nvidia-cublas==$version.*" "nvidia-curand==10.4.0.*")
linked=(cublas cublasLt curand nvrtc cudart)
if [ "${2:-}" = --compiler ]; then
    libraries=()
    linked=(cudart)
fi

if [ ! -e "$toolkit/.complete" ]; then
    mkdir -p "$folder"
    python3 -m venv "$folder/venv"
    # The wheels' own needs are these same packages.
    "$folder/venv/bin/pip" install --quiet --no-deps --no-compile --disable-pip-version-check \
        "${compiler[@]}" "${libraries[@]}" >&2
    rm -rf "$toolkit"
    cp -rs "$(realpath "$folder"/venv/lib/python3*/site-packages/nvidia/cu13)" "$toolkit"
    # Linkers look for names without a version.
    for name in "${linked[@]}"; do
        ln -sf "$(basename "$toolkit"/lib/lib$name.so.*)" "$toolkit/lib/lib$name.so"
    done
    ln -sfn lib "$toolkit/lib64"
    # libcuda comes with the driver; to link, a library of the same names that does nothing.
    mkdir -p "$toolkit/lib/stubs"
    grep -oE '\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?(_ptsz|_ptds)?\b' "$toolkit/include/cuda.h" | sort -u |
        sed 's/.*/int &(void) { return 100; }/' >"$toolkit/stub.c"
    for name in $(grep -oE '\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?\b' "$toolkit/include/cuda.h" | sort -u); do
        printf 'int %s_ptsz(void) { return 100; }\nint %s_ptds(void) { return 100; }\n' "$name" "$name"
    done >>"$toolkit/stub.c"
    sort -u "$toolkit/stub.c" -o "$toolkit/stub.c"
    cc -shared -fPIC -O0 -w -Wl,-soname,libcuda.so.1 -o "$toolkit/lib/stubs/libcuda.so" "$toolkit/stub.c"
    touch "$toolkit/.complete"
fi

cat <<END
export CUDA_HOME='$toolkit'
export NVCC='$toolkit/bin/nvcc'
export LIBRARY_PATH='$toolkit/lib:$toolkit/lib/stubs'
END
