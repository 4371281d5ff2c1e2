#!/usr/bin/env bash
# Compiles the library for Linux on aarch64 (64-bit Arm) and runs its unit tests and the tests against peers' numbers in an emulator.
# Usage: bash tests/aarch64.sh [--check | arguments of cargo test]
#   --check   runs nothing: only type-checks the library, its tests and the kernel for aarch64
# Needs, on Debian or Ubuntu:
#   rustup target add aarch64-unknown-linux-gnu
#   apt-get install gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
# The emulator shows whether numbers are right. It shows nothing about speed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. kernel/toolchain.sh
find_toolchain || { echo "Rust $pinned_rust is missing: run bash kernel/setup.sh first, it installs it." >&2; exit 1; }
target=aarch64-unknown-linux-gnu
[ -d "$(rustc --print target-libdir --target "$target")" ] || { echo "The standard library for $target is missing: rustup target add $target" >&2; exit 1; }
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" >&2; exit 1; }
done
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"

if [ "${1:-}" = --check ]; then
  cargo check --locked --target "$target" --workspace --all-targets
  (cd kernel && cargo check --locked --target "$target" --all-targets)
  exit
fi

tests=(--lib)
for test in wavelet_parity sparse_parity diffusion_parity module_a grids elements sparse_properties golden unet; do tests+=(--test "$test"); done
# Little optimisation, because compiling takes far longer than the tests. One test starts its own program again, through a shell, which cannot start
# a program for another processor.
cargo test --release --locked --target "$target" --config profile.release.opt-level=1 --no-fail-fast "${tests[@]}" "$@" -- \
  --skip what_memory_has_no_room_for
