#!/usr/bin/env bash
# Runs the tests of the parts with `unsafe`, with checks of every address (AddressSanitizer) in the crates of this workspace.
# Usage: bash tests/sanitize.sh [arguments of cargo test]
# The loops that run depend on this machine's processor: /proc/cpuinfo says whether it has AVX-512.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. kernel/toolchain.sh
find_toolchain || { echo "Rust $pinned_rust is missing: run bash kernel/setup.sh first, it installs it." >&2; exit 1; }
tests=()
for test in wavelet_parity grids sparse_parity sparse_properties diffusion_parity elements parallel unet; do tests+=(--test "$test"); done
# A process with these checks cannot run with a limit on its address space, which one test sets.
RUSTC_WORKSPACE_WRAPPER=$root/tests/sanitized.sh cargo test --release --locked "${tests[@]}" "$@" -- \
  --skip what_memory_has_no_room_for
