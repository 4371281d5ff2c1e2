#!/usr/bin/env bash
# Installs the kernel from the tarball, without pip: the program, the compiled library, and Jupyter's kernelspec `wavemesh`.
# Usage: bash install.sh [--uninstall]
# Needs the Rust that bundle.json names; with another one the library is compiled anew, which takes ten minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${XDG_DATA_HOME:-$HOME/.local/share}/wavemesh
program=$data/bin/wavemesh-kernel
die() { printf 'install: %s\n' "$*" >&2; exit 1; }
version=$("$here/wavemesh-kernel" --version | cut -d' ' -f2) || die "this program does not run here: it is for Linux on x86-64 with glibc 2.35 or newer"
wanted=$(sed -n 's/.*rustc \([0-9.]*\) .*/\1/p' "$here/bundle.json" | head -1)

# Another version in the same folder stays, with what versions share.
remove() {
  rm -rf "$program" "$data/$version-"* "$data/source-$version"
  compgen -G "$data/*-*/bundle.json" >/dev/null || rm -rf "$data/cell-"* "$data/names-"* "$data/history.jsonl"
  rmdir "$data/bin" "$data" 2>/dev/null || true
}

if [ "${1:-}" = --uninstall ]; then
  [ ! -x "$program" ] || "$program" uninstall
  remove
  echo "Removed what this script installed."
  exit
fi

command -v cc >/dev/null || die "there is no C linker (cc): sudo apt-get install build-essential"
PATH=$PATH:$HOME/.cargo/bin
command -v rustc >/dev/null || die "there is no Rust: get $wanted from https://rustup.rs, then run this again"
mkdir -p "$data/bin" || die "cannot write to $data: set XDG_DATA_HOME to a folder of yours"
unpacked=$(mktemp -d)
whole=
trap 'rm -rf "$unpacked"; [ -n "$whole" ] || { remove; echo "install: that failed, for the reason above; nothing was left behind" >&2; }' EXIT

rm -rf "$data/source-$version"
cp -r "$here/source" "$data/source-$version"
cp "$here/wavemesh-kernel" "$data/bin/.new"
mv "$data/bin/.new" "$program"
if grep -qF "$(rustc --version)" "$here/bundle.json"; then
  tar -C "$unpacked" -xJf "$here/library.tar.xz"
  cp "$here/bundle.json" "$unpacked/"
  "$program" library import "$unpacked" --source "$data/source-$version"
else
  echo "The compiled library serves Rust $wanted, and here is $(rustc --version). Compiling it again: about ten minutes."
  CARGO_TARGET_DIR=$unpacked "$program" library build --source "$data/source-$version"
fi
"$program" install
whole=1
echo "Choose the kernel 'Rust (WaveMesh)' in Jupyter; \`$program doctor\` checks that all is well."
