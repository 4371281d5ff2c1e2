#!/usr/bin/env bash
# The tests that need an NVIDIA GPU. A machine without one can build them, and one without Rust can run them.
#
#   bash tests/gpu.sh build [FOLDER]   compiles the tests with the feature `cuda` and packs them in FOLDER (target-cuda/gpu)
#   bash tests/gpu.sh run [FOLDER]     runs what is in FOLDER, from a checkout of the same commit, and writes FOLDER/gpu.md
#   bash tests/gpu.sh                  both
#
# Building needs nvcc; `eval "$(bash kernel/cuda_toolkit.sh FOLDER)"` brings one. Running needs the driver and CUDA's libraries, which are
# looked for among the system's and Python's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
what=${1:-all}
folder=${2:-$root/target-cuda/gpu}
# Those that run on any device, and those of the GPU alone.
tests=(sparse_parity sparse_properties unet train diffusion diffusion_parity gpu)

build() {
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target-cuda}
    local chosen=()
    for name in "${tests[@]}"; do chosen+=(--test "$name"); done
    mkdir -p "$folder"
    cargo test --release --locked --features cuda --no-run --message-format json "${chosen[@]}" >"$folder/built.json"
    python3 - "$folder" <<'PYTHON'
import json, pathlib, subprocess, sys

folder = pathlib.Path(sys.argv[1])
for line in (folder / "built.json").read_text().splitlines():
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        subprocess.run(["strip", "-o", folder / message["target"]["name"], message["executable"]], check=True)
(folder / "built.json").unlink()
PYTHON
    git rev-parse HEAD >"$folder/commit"
    du -sh "$folder"
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

run() {
    LD_LIBRARY_PATH=$(libraries)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH WAVEMESH_DEVICE=cuda RUST_BACKTRACE=0
    local failed=0 name lines
    {
        printf '| test | passed | failed | seconds |\n| --- | --- | --- | --- |\n'
    } >"$folder/table"
    for name in "${tests[@]}"; do
        [ -x "$folder/$name" ] || { echo "there is no $folder/$name: build first" >&2; exit 1; }
        echo "== $name"
        if "$folder/$name" --test-threads 4 --nocapture >"$folder/$name.log" 2>&1; then :; else failed=1; fi
        grep -E '^(test result|failures:|    [a-z_:]+$)|panicked|error' "$folder/$name.log" | head -40 || true
        lines=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.* finished in \([0-9.]*\)s$/\1 | \2 | \3/p' "$folder/$name.log")
        printf '| `%s` | %s |\n' "$name" "${lines:-0 | the program ended early | }" >>"$folder/table"
    done
    {
        printf '%s, driver %s, commit %s, %s.\n\n' "$(nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader | head -1)" \
            "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)" "$(cut -c1-12 "$folder/commit")" "$(date -u +%Y-%m-%d)"
        cat "$folder/table"
    } >"$folder/gpu.md"
    cat "$folder/gpu.md"
    return $failed
}

case $what in
build) build ;;
run) run ;;
all) build && run ;;
*) sed -n '2,9p' "$0"; exit 2 ;;
esac
