#!/usr/bin/env bash
# The tests that need an NVIDIA GPU. A machine without one can build them, and a machine without Rust can run them.
#
#   bash tests/gpu.sh build [FOLDER]   compiles the tests with the feature `cuda` and packs them in FOLDER (target-cuda/gpu)
#   bash tests/gpu.sh older [FOLDER]   adds tests whose kernels are PTX of compute capability 7.5, as a T4 runs them
#   bash tests/gpu.sh cells [FOLDER]   adds what cells of a notebook need: the kernel, the library for GPUs, rustc, Jupyter's client
#   bash tests/gpu.sh older-cells [FOLDER]   adds the library as a T4 runs it: candle's kernels and WaveMesh's are PTX of 7.5
#   bash tests/gpu.sh run-cells [FOLDER]   runs cells and notebooks alone
#   bash tests/gpu.sh run [FOLDER]     runs what is in FOLDER, from a checkout of the same commit, and writes FOLDER/gpu.md
#   bash tests/gpu.sh                  all of these
#
# The machine that runs them has Python 3.12, or the one that WAVEMESH_GPU_PYTHON names, and a C compiler, which links cells. If it has Rust
# too, and `bash kernel/setup.sh` has run there, it needs no `cells`: WAVEMESH_KERNEL names the installed kernel.
# Building needs nvcc; `eval "$(bash kernel/cuda_toolkit.sh FOLDER)"` installs one. Running needs the driver and CUDA's libraries, which
# the script looks for in the system and in Python's packages.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
what=${1:-all}
folder=${2:-$root/target-cuda/gpu}
# The tests that run on any device, and those for the GPU alone.
tests=(sparse_parity sparse_properties unet train diffusion diffusion_parity backbones elements sets gpu gpu_alone)
older_tests=(sparse_parity sparse_properties gpu)

# build_into FOLDER TEST…
build_into() {
    local to=$1 chosen=() name
    shift
    for name in "$@"; do chosen+=(--test "$name"); done
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target-cuda}
    mkdir -p "$to"
    cargo test --release --locked --features cuda --no-run --message-format json "${chosen[@]}" >"$to/built.json"
    python3 - "$to" <<'PYTHON'
import json, pathlib, subprocess, sys

folder = pathlib.Path(sys.argv[1])
for line in (folder / "built.json").read_text().splitlines():
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        subprocess.run(["strip", "-o", folder / message["target"]["name"], message["executable"]], check=True)
(folder / "built.json").unlink()
PYTHON
    git rev-parse HEAD >"$to/commit" 2>/dev/null || echo unknown >"$to/commit"
    du -sh "$to"
}

# library KERNEL FOLDER: the compiled library for GPUs, without the parts that only debuggers read.
library() {
    local data made
    data=$(mktemp -d)
    made=$(XDG_DATA_HOME=$data "$1" library build --cuda --source "$root" | tail -1)
    mv "$made" "$2"
    rm -rf "$data"
    find "$2" -name '*.so' -exec strip --strip-unneeded {} +
}

# pack_older_cells FOLDER: the same library with PTX alone, in FOLDER/older-cells.tar.xz.
pack_older_cells() {
    local work
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target-cuda} CUDA_COMPUTE_CAP=75 WAVEMESH_CUDA_TARGETS=arch=compute_75,code=compute_75
    work=$(mktemp -d)
    library "$CARGO_TARGET_DIR/kernel/release/wavemesh-kernel" "$work/older"
    tar -C "$work" --owner=0 --group=0 -c older | xz -T0 -3 >"$1/older-cells.tar.xz"
    rm -rf "$work"
    du -sh "$1/older-cells.tar.xz"
}

# pack_cells FOLDER: everything that a kernel with the library for GPUs needs on a machine without Rust, in FOLDER/cells.tar.xz.
pack_cells() {
    local to=$1 work sysroot host library
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target-cuda}
    work=$(mktemp -d)
    mkdir -p "$to" "$work/rust/bin" "$work/rust/lib" "$work/site"
    (cd kernel && CARGO_TARGET_DIR=$CARGO_TARGET_DIR/kernel cargo build --release --locked)
    strip -o "$work/wavemesh-kernel" "$CARGO_TARGET_DIR/kernel/release/wavemesh-kernel"
    library "$work/wavemesh-kernel" "$work/library"
    sysroot=$(rustc --print sysroot)
    host=$(rustc -Vv | sed -n 's/^host: //p')
    cp "$sysroot/bin/rustc" "$work/rust/bin/"
    printf '#!/bin/sh\necho "cargo, which builds nothing here"\n' >"$work/rust/bin/cargo" # that there is one is asked
    chmod +x "$work/rust/bin/cargo"
    cp "$sysroot"/lib/*.so* "$work/rust/lib/"
    mkdir -p "$work/rust/lib/rustlib/$host"
    cp -r "$sysroot/lib/rustlib/$host/"{bin,lib} "$work/rust/lib/rustlib/$host/"
    python3 -m pip download --quiet --only-binary=:all: --python-version "${WAVEMESH_GPU_PYTHON:-3.12}" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest "$work/wheels" \
        jupyter_client pytest psutil nbclient
    for wheel in "$work"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$work/site"; done
    rm -r "$work/wheels"
    tar -C "$work" --owner=0 --group=0 -c . | xz -T0 -3 >"$to/cells.tar.xz"
    rm -rf "$work"
    du -sh "$to/cells.tar.xz"
}

# with_library LIBRARY: the packed `cells` as a user has them, with one of the compiled libraries; or the kernel that set-up has installed.
with_library() {
    local work=$folder/cells
    export WAVEMESH_TEST_GPU=1 PYTHONDONTWRITEBYTECODE=1
    unset WAVEMESH_DEVICE LD_LIBRARY_PATH # as a notebook is started: the library chooses, and the kernel finds
    if [ -n "${WAVEMESH_KERNEL:-}" ]; then return; fi
    [ -d "$work" ] || { mkdir "$work" && tar -C "$work" -xJf "$folder/cells.tar.xz"; }
    [ -d "$work/$1" ] || tar -C "$work" -xJf "$folder/older-cells.tar.xz"
    export PATH=$work/rust/bin:$PATH XDG_DATA_HOME=$work/data-$1 WAVEMESH_KERNEL=$work/wavemesh-kernel PYTHONPATH=$work/site
    "$WAVEMESH_KERNEL" library import "$work/$1" --source "$root"
}

# Cells on the GPU: runs the kernel's tests of them.
cells() { with_library "$1" && python3 -m pytest -q -p no:cacheprovider --durations=5 kernel/tests/test_gpu.py; }

# The tutorials that compute on the best device, with short trainings; each must report that the device is the GPU.
notebooks() {
    with_library library
    "$WAVEMESH_KERNEL" install --prefix "$folder/prefix"
    export JUPYTER_PATH=$folder/prefix/share/jupyter WAVEMESH_TRAIN_SECONDS=${WAVEMESH_TRAIN_SECONDS:-10}
    python3 tests/notebooks.py "$folder/notebooks" notebooks/0[0-4]*.ipynb notebooks/0[67]*.ipynb tests/gpu/card.ipynb
}

# notebook_lines: a line of the table for each notebook.
notebook_lines() {
    local log=$folder/notebooks.log state name seconds
    echo "== notebooks"
    (notebooks) >"$log" 2>&1 || failed=1
    grep -vE '^(ok|installed)' "$log" | head -60 || true
    while read -r state name seconds _; do
        case $state in
        ok) line "notebook \`$name\`$(grep -q 'cuda:0' "$folder/notebooks/$name" && echo ", on \`cuda:0\`")" "1 | 0 | $seconds" ;;
        FAILED) line "notebook \`$name\`" "0 | 1 | $seconds" ;;
        esac
    done <"$log"
}

# cells_line LIBRARY WORDS: the line of the table for cells, and what failed.
cells_line() {
    local log=$folder/cells-$1.log began=$SECONDS passed broken
    echo "== cells$2"
    (cells "$1") >"$log" 2>&1 || failed=1
    grep -E '^(FAILED|ERROR|E  )' "$log" | head -60 || true
    passed=$(grep -oE '[0-9]+ passed' "$log" | tail -1 | cut -d' ' -f1 || true)
    broken=$(grep -oE '[0-9]+ (failed|error)' "$log" | tail -1 | cut -d' ' -f1 || true) # nothing where all passed
    line "cells of notebooks (\`kernel/tests/test_gpu.py\`)$2" "${passed:-0} | ${broken:-0} | $((SECONDS - began))"
}

# all_cells: cells, the cells of an older card, and the tutorials, if they are packed.
all_cells() {
    if [ ! -e "$folder/cells.tar.xz" ] && [ ! -d "$folder/cells" ] && [ -z "${WAVEMESH_KERNEL:-}" ]; then return; fi
    cells_line library ""
    if [ -e "$folder/older-cells.tar.xz" ] || [ -d "$folder/cells/older" ]; then
        (export WAVEMESH_GPU_CAPABILITY=7.5; cells_line older ", PTX of 7.5"; exit "$failed") || failed=1
    fi
    notebook_lines
}

# Folders of CUDA's libraries, for the loader.
libraries() {
    local places
    places=$(python3 -c 'import site; print(*site.getsitepackages(), site.getusersitepackages())' 2>/dev/null || true)
    # shellcheck disable=SC2086
    find -L $places /usr/local/cuda*/lib64 /usr/lib64-nvidia /usr/local/nvidia/lib64 /usr/lib/x86_64-linux-gnu -maxdepth 4 \
        \( -name 'libcublas.so.13' -o -name 'libcurand.so.10' -o -name 'libnvrtc.so.13' -o -name 'libcudart.so.13' -o -name 'libcuda.so.1' \) \
        -printf '%h\n' 2>/dev/null | sort -u | paste -sd: || true # most of these places are missing
}

failed=0
line() { printf '| %s | %s |\n' "$1" "$2" >>"$folder/table"; }

# run_tests FOLDER WORDS TEST…: a line of the table for each.
run_tests() {
    local from=$1 words=$2 name counts
    shift 2
    for name in "$@"; do
        [ -x "$from/$name" ] || { echo "there is no $from/$name: build first" >&2; exit 1; }
        echo "== $name$words"
        if "$from/$name" --test-threads 4 --nocapture >"$from/$name.log" 2>&1; then :; else failed=1; fi
        grep -E '^(test result|failures:|    [a-z_0-9:]+$)|panicked|error' "$from/$name.log" | head -40 || true
        counts=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.* finished in \([0-9.]*\)s$/\1 | \2 | \3/p' "$from/$name.log")
        line "\`$name\`$words" "${counts:-0 | the program ended early | }"
    done
}

# stated WORDS COMMAND…: a line of the table for what a command confirms.
stated() {
    local words=$1 began=$SECONDS
    shift
    echo "== $words"
    if "$@" >"$folder/stated.log" 2>&1; then line "$words" "1 | 0 | $((SECONDS - began))"; else
        failed=1
        tail -5 "$folder/stated.log"
        line "$words" "0 | 1 | $((SECONDS - began))"
    fi
}

memory_used() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1; }

hidden_gpu_leaves_the_cpu() { CUDA_VISIBLE_DEVICES='' WAVEMESH_DEVICE=auto "$folder/diffusion_parity"; }

hidden_gpu_is_named() {
    local said
    said=$(CUDA_VISIBLE_DEVICES='' WAVEMESH_DEVICE=cuda "$folder/diffusion_parity" 2>&1) && return 1
    grep 'CUDA_VISIBLE_DEVICES' <<<"$said"
}

two_at_once() {
    "$folder/sparse_parity" &
    local other=$!
    "$folder/unet" && wait "$other"
}

# A process that is killed during its work leaves nothing on the card.
killed_process_frees_memory() {
    local before after=0 i
    before=$(memory_used)
    "$folder/train" &
    local it=$!
    for i in $(seq 100); do
        [ "$(memory_used)" -gt $((before + 300)) ] && break
        sleep 0.1
    done
    [ "$(memory_used)" -gt $((before + 300)) ] || return 1
    kill -9 "$it"
    wait "$it" || true
    for i in $(seq 100); do
        after=$(memory_used)
        [ "$after" -le $((before + 50)) ] && return 0
        sleep 0.1
    done
    echo "$before MiB before, $after MiB after"
    return 1
}

run() {
    LD_LIBRARY_PATH=$(libraries)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH WAVEMESH_DEVICE=cuda RUST_BACKTRACE=0
    printf '| test | passed | failed | seconds |\n| --- | --- | --- | --- |\n' >"$folder/table"
    run_tests "$folder" "" "${tests[@]}"
    if [ -d "$folder/older" ]; then
        (export WAVEMESH_GPU_CAPABILITY=7.5; run_tests "$folder/older" ", PTX of 7.5" "${older_tests[@]}"; exit "$failed") || failed=1
    fi
    all_cells
    stated "a GPU that is hidden leaves the CPU" hidden_gpu_leaves_the_cpu
    stated "an error says that a GPU is hidden" hidden_gpu_is_named
    stated "two processes on one GPU" two_at_once
    stated "a killed process leaves no memory on the GPU" killed_process_frees_memory
    {
        printf '%s, driver %s, commit %s, %s.\n\n' "$(nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader | head -1)" \
            "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)" "$(cut -c1-12 "$folder/commit")" "$(date -u +%Y-%m-%d)"
        cat "$folder/table"
    } >"$folder/gpu.md"
    cat "$folder/gpu.md"
    return $failed
}

older() { WAVEMESH_CUDA_TARGETS=arch=compute_75,code=compute_75 build_into "$folder/older" "${older_tests[@]}"; }

case $what in
build) build_into "$folder" "${tests[@]}" ;;
older) older ;;
cells) pack_cells "$folder" ;;
older-cells) pack_older_cells "$folder" ;;
run-cells) all_cells && cat "$folder/table" && exit "$failed" ;;
run) run ;;
all) build_into "$folder" "${tests[@]}" && older && pack_cells "$folder" && pack_older_cells "$folder" && run ;;
*) sed -n '2,16p' "$0"; exit 2 ;;
esac
