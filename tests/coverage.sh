#!/usr/bin/env bash
# Line coverage of the library by its Rust tests, without the documentation tests: a row for each room of src/.
# Usage: bash tests/coverage.sh [arguments of cargo test]
# Needs llvm-profdata and llvm-cov of rustc's LLVM version: rustup's component llvm-tools, or Debian's package llvm-22.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. kernel/toolchain.sh
find_toolchain || { echo "Rust $pinned_rust is missing: run bash kernel/setup.sh first, it installs it." >&2; exit 1; }
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

tool() {
  local place
  for place in "$(rustc --print target-libdir)/../bin/$1" "/usr/lib/llvm-$major/bin/$1" "$1-$major" "$1"; do
    if command -v "$place"; then return; fi
  done
  echo "$1 of LLVM $major is missing: rustup component add llvm-tools, or apt-get install llvm-$major" >&2
  exit 1
}
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

counted=$CARGO_TARGET_DIR/coverage
rm -rf "$counted"
mkdir -p "$counted"
export RUSTC_WORKSPACE_WRAPPER=$root/tests/instrument.sh LLVM_PROFILE_FILE=$counted/%4m.profraw
cargo test --release --locked --workspace --lib --bins --tests --message-format=json --no-run "$@" |
  python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("profile", {}).get("test") and message.get("executable"):
        print(message["executable"])' >"$counted/programs"
# Lines that a failing test has run count too.
cargo test --release --locked --workspace --lib --bins --tests --no-fail-fast "$@" >&2 || echo "some tests failed: the figures are without what they left out" >&2
"$profdata" merge -sparse "$counted"/*.profraw -o "$counted/all.profdata"
mapfile -t programs < <(sed 's/^/-object=/' "$counted/programs")
"$cov" export -summary-only -instr-profile="$counted/all.profdata" "${programs[@]}" | python3 tests/coverage.py
