#!/usr/bin/env bash
# Runs a fuzz target with the pinned stable compiler.
# Usage: bash fuzz/run.sh TARGET [SECONDS]     (default 120; it needs a C++ compiler, for libFuzzer itself)
# New inputs stay in fuzz/found/TARGET, failing ones go to fuzz/artifacts/TARGET.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1:?usage: bash fuzz/run.sh TARGET [SECONDS]} seconds=${2:-120}
host=$(rustc -vV | sed -n 's/^host: //p')
build=${CARGO_TARGET_DIR:-$root/target}/fuzz
cd "$root/fuzz"

# What cargo-fuzz passes, but for the sanitizers, which only a nightly compiler has.
coverage=(level=4 inline-8bit-counters pc-table trace-compares)
flags="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1"
for option in "${coverage[@]}"; do flags+=" -Cllvm-args=-sanitizer-coverage-$option"; done

# The versions that the library is tested with.
[ -e Cargo.lock ] || cp ../Cargo.lock Cargo.lock
# With --target, the flags reach neither build scripts nor procedural macros.
RUSTFLAGS=$flags CARGO_TARGET_DIR=$build cargo build --release --target "$host" --bin "$target"
mkdir -p "found/$target" "artifacts/$target" "corpus/$target"
exec "$build/$host/release/$target" "found/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" \
  -max_total_time="$seconds" -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=10 -print_final_stats=1
