#!/usr/bin/env bash
# Each crate that the library depends on must have the same features in every build of the tests, so that it is compiled once: for the
# library of the cells and for the examples, with the feature `mpi` and without. Prints the names of crates that differ.
set -euo pipefail
cd "$(dirname "$0")/.."

# A line for each crate: name, version, features.
crates() {
  cargo tree --locked --prefix none --format '{p}|{f}' "$@" | sed 's/ (\*)//; s/ (proc-macro)//' | grep -v '^wavemesh' | sort -u
}

all=$(crates --workspace --features mpi --edges normal,build,dev)
for build in "-p wavemesh-dylib --edges normal,build" "-p wavemesh --edges normal,build,dev" "-p wavemesh --features mpi --edges normal,build,dev"; do
  # shellcheck disable=SC2086
  if others=$(comm -13 <(echo "$all") <(crates $build)) && [ -n "$others" ]; then
    printf 'these crates would be compiled again for cargo'"'"'s `%s`:\n%s\n' "$build" "$others" >&2
    echo "give them the missing features in kernel/dylib/Cargo.toml or [build-dependencies] of Cargo.toml" >&2
    exit 1
  fi
done
