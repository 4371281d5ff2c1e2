#!/usr/bin/env bash
# Installs the kernel from the tarball, without pip: the program, the compiled library, and Jupyter's kernelspec `rust`.
# Usage: bash install.sh [--uninstall]
# Needs the Rust that bundle.json names; with another one the library is compiled anew, which takes ten minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${XDG_DATA_HOME:-$HOME/.local/share}/wavemesh
program=$data/bin/wavemesh-kernel
wanted=$(sed -n 's/.*rustc \([0-9.]*\) .*/\1/p' "$here/bundle.json" | head -1)

if [ "${1:-}" = --uninstall ]; then
  [ ! -x "$program" ] || "$program" uninstall
  version=$("$here/wavemesh-kernel" --version | cut -d' ' -f2)
  rm -rf "$program" "$data/$version-"* "$data/source-$version"
  rmdir "$data/bin" "$data" 2>/dev/null || true
  echo "Removed what this script installed."
  exit
fi

command -v cc >/dev/null || { echo "install: there is no C linker (cc): sudo apt-get install build-essential" >&2; exit 1; }
PATH=$PATH:$HOME/.cargo/bin
command -v rustc >/dev/null || {
  echo "install: there is no Rust: get $wanted from https://rustup.rs, then run this again" >&2
  exit 1
}
version=$("$here/wavemesh-kernel" --version | cut -d' ' -f2)
mkdir -p "$data/bin"
rm -rf "$data/source-$version"
cp -r "$here/source" "$data/source-$version"
cp "$here/wavemesh-kernel" "$data/bin/.new"
mv "$data/bin/.new" "$program"

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
tar -C "$unpacked" -xJf "$here/library.tar.xz"
cp "$here/bundle.json" "$unpacked/"
if ! "$program" library import "$unpacked" --source "$data/source-$version"; then
  echo "The compiled library serves Rust $wanted, and here is $(rustc --version). Compiling it anew: about ten minutes."
  CARGO_TARGET_DIR=$data/target "$program" library build --source "$data/source-$version"
  rm -rf "$data/target"
fi
"$program" install
echo "Choose the kernel 'Rust (WaveMesh)' in Jupyter; \`$program doctor\` checks that all is well."
