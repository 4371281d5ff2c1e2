#!/usr/bin/env bash
# The tests that need an NVIDIA GPU. A machine without one can build them, and one without Rust can run them.
#
#   bash tests/gpu.sh build [FOLDER]   compiles the tests with the feature `cuda` and packs them in FOLDER (target-cuda/gpu)
#   bash tests/gpu.sh older [FOLDER]   adds tests whose kernels are PTX of compute capability 7.5, as a T4 runs them
#   bash tests/gpu.sh run [FOLDER]     runs what is in FOLDER, from a checkout of the same commit, and writes FOLDER/gpu.md
#   bash tests/gpu.sh                  all three
#
# Building needs nvcc; `eval "$(bash kernel/cuda_toolkit.sh FOLDER)"` brings one. Running needs the driver and CUDA's libraries, which are
# looked for among the system's and Python's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
what=${1:-all}
folder=${2:-$root/target-cuda/gpu}
# Those that run on any device, and those of the GPU alone.
tests=(sparse_parity sparse_properties unet train diffusion diffusion_parity backbones elements sets gpu)
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
    git rev-parse HEAD >"$to/commit"
    du -sh "$to"
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

# stated WORDS COMMAND…: a line of the table for what a command finds true.
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

# A process that is killed in the midst of its work leaves nothing on the card.
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
run) run ;;
all) build_into "$folder" "${tests[@]}" && older && run ;;
*) sed -n '2,11p' "$0"; exit 2 ;;
esac
