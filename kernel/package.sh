#!/usr/bin/env bash
# Makes what people install: a wheel, a tarball for those without pip, and an sdist, in target/dist, each with its SHA-256.
# Usage: bash kernel/package.sh [--quick] [--cuda | --bundle FOLDER | --sources FOLDER] [--help]
#   --quick     compress less, as the tests do: a tenth of the time, a larger wheel
#   --cuda      make the add-on wheel for NVIDIA GPUs instead, which needs nvcc (kernel/cuda_toolkit.sh brings one); it serves cards of
#               compute capability 7.5 and later, or of CUDA_COMPUTE_CAP and later (8.0 gives candle's operations bf16)
#   --bundle    make only the compiled parts of the wheel, in FOLDER
#   --sources   copy only the sources that the wheel carries, to FOLDER
# Needs the pinned Rust, a C linker, binutils and python3; the first time it compiles for 10 to 15 minutes on two cores.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
case ${1:-} in --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;; esac
# shellcheck source=kernel/toolchain.sh
. "$root/kernel/toolchain.sh"
find_toolchain || { echo "Rust $pinned_rust is missing: https://rustup.rs installs it" >&2; exit 1; }

glibc=2.35 # of the oldest system that the wheel is for: Ubuntu 22.04, Google Colab's
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
out=$CARGO_TARGET_DIR/dist
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/kernel/Cargo.toml" | head -1)
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'package: %s\n' "$*" >&2; exit 1; }

# bundle FOLDER: the kernel's program, the compiled library, its sources and the kernelspec.
bundle() {
  local folder=$1
  work=$(mktemp -d)
  say "Compiling the kernel"
  kernel_cargo build --release --locked
  mkdir -p "$work/bundle/kernelspec"
  strip -o "$work/bundle/wavemesh-kernel" "$kernel_target/release/wavemesh-kernel"
  say "Compiling the library"
  local library
  library=$(XDG_DATA_HOME=$work/data "$kernel_target/release/wavemesh-kernel" library build --source "$root" | tail -1)
  check_glibc "$work/bundle/wavemesh-kernel"
  copy_sources "$work/bundle/source"
  write_kernelspec "$work/bundle/kernelspec"
  pack_library "$library" "$work/bundle"
  licences "$work/bundle" "$root/kernel/Cargo.toml" "$root/kernel/dylib/Cargo.toml"
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  mv "$work/bundle" "$folder"
  say "Made $folder"
}

# cuda_bundle FOLDER: the library for NVIDIA GPUs alone; the wheel without --cuda brings the rest.
cuda_bundle() {
  local folder=$1 library
  work=$(mktemp -d)
  say "Compiling the kernel"
  kernel_cargo build --release --locked
  export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-75}
  say "Compiling the library for GPUs of compute capability $CUDA_COMPUTE_CAP and later (the first time, half an hour)"
  library=$(XDG_DATA_HOME=$work/data "$kernel_target/release/wavemesh-kernel" library build --cuda --source "$root" | tail -1)
  pack_library "$library" "$folder"
  licences "$folder" --features cuda "$root/kernel/dylib/Cargo.toml"
  cp "$root"/LICENSE-* "$folder/" # the other wheel has them with its sources
  say "Made $folder"
}

# pack_library LIBRARY FOLDER: its description and its files, without what only debuggers read, in FOLDER.
pack_library() {
  mkdir -p "$2"
  without_paths "$1/bundle.json" >"$2/bundle.json"
  find "$1/lib" -name '*.so' -exec strip --strip-unneeded {} +
  check_glibc "$1"/lib/*.so
  say "Compressing the library ($(du -sm "$1/lib" | cut -f1) MB)"
  tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner -c lib | xz -T0 "${compression[@]}" >"$2/library.tar.xz"
}

# licences FOLDER ARGUMENT…: the texts that the crates of others are under, which go wherever their code goes.
licences() { python3 "$root/kernel/licenses.py" "${@:2}" >"$1/LICENSES-crates.txt"; }

# The description of the library without the paths of this machine, which mean nothing on another.
without_paths() {
  python3 - "$1" <<'PYTHON'
import json, sys

bundle = json.load(open(sys.argv[1]))
bundle["source"] = ""
bundle["toolchain"] |= {"rustc": "", "cargo": "", "libdir": "", "modified": None}
json.dump(bundle, sys.stdout, indent=2)
PYTHON
}

# No program may ask for a symbol that the oldest system's C library lacks.
check_glibc() {
  local file newest
  for file in "$@"; do
    newest=$(objdump -T "$file" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
    [ "$(printf '%s\nGLIBC_%s\n' "$newest" "$glibc" | sort -V | tail -1)" = "GLIBC_$glibc" ] ||
      die "$(basename "$file") needs $newest, newer than GLIBC_$glibc: $(objdump -T "$file" | grep -F "$newest" | awk '{print $NF}' | tr '\n' ' ')"
  done
  say "No symbol is newer than GLIBC_$glibc"
}

# What the library is compiled from, to compile it anew for another compiler, and for documentation while typing.
copy_sources() {
  mkdir -p "$1/kernel" "$1/bench"
  cp -r "$root"/{Cargo.toml,Cargo.lock,build.rs,rust-toolchain.toml,LICENSE-MIT,LICENSE-APACHE,src} "$1/"
  cp -r "$root/kernel/dylib" "$1/kernel/"
  cp -r "$root"/bench/{Cargo.toml,src} "$1/bench/" # a member of the workspace, without which cargo reads none of it
  (cd "$1" && cargo metadata --locked --no-deps --format-version 1 >/dev/null) || die "the sources in the package are not whole"
}

# Started through the package's Python, which knows where the program and the compiler are.
write_kernelspec() {
  cat >"$1/kernel.json" <<'JSON'
{
  "argv": ["python3", "-m", "wavemesh_kernel", "run", "--connection-file", "{connection_file}"],
  "display_name": "Rust (WaveMesh)",
  "language": "rust",
  "interrupt_mode": "message",
  "metadata": { "debugger": false }
}
JSON
  cp "$root"/kernel/src/cli/logo/* "$1/"
}

# A private environment with the tools that build Python packages.
build_tools() {
  local venv=$CARGO_TARGET_DIR/python/build
  [ -x "$venv/bin/pyproject-build" ] ||
    { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile build 'hatchling>=1.26'; }
  echo "$venv/bin"
}

# make_wheel FOLDER [--sdist]: of the Python package there.
make_wheel() {
  local bin
  bin=$(build_tools)
  say "Making the wheel"
  WAVEMESH_BUNDLE=$out/bundle "$bin/pyproject-build" --no-isolation --wheel "${@:2}" --outdir "$out" "$1" >/dev/null
}

# The same parts for people without pip, with a script in place of the Python.
make_tarball() {
  local name=wavemesh-kernel-$version-x86_64-linux
  say "Making the tarball"
  rm -rf "${out:?}/$name"
  cp -r "$out/bundle" "$out/$name"
  rm -r "$out/$name/kernelspec"
  cp "$root/kernel/install.sh" "$root"/LICENSE-* "$out/$name/"
  tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner -czf "$out/$name.tar.gz" "$name"
  rm -rf "${out:?}/$name"
}

compression=(-9 --block-size=112MiB) # in halves, so that two cores compress; no dictionary spans more than 64 MiB anyway
if [ "${1:-}" = --quick ]; then
  compression=(-1)
  shift
fi
if [ "${1:-}" = --bundle ]; then
  bundle "${2:?--bundle needs a folder}"
  exit
fi
if [ "${1:-}" = --sources ]; then
  copy_sources "${2:?--sources needs a folder}"
  exit
fi
cuda=
if [ "${1:-}" = --cuda ]; then
  command -v "${NVCC:-nvcc}" >/dev/null || die "--cuda needs nvcc: eval \"\$(bash kernel/cuda_toolkit.sh FOLDER)\", or install CUDA's toolkit"
  cuda=1
  shift
fi
[ $# = 0 ] || die "unknown argument '$1'; see bash kernel/package.sh --help"
if [ -n "$cuda" ]; then
  out=$out-cuda # beside what the tests of the other packages look through
  rm -rf "$out"
  cuda_bundle "$out/bundle"
  make_wheel "$root/kernel/python-cuda"
else
  rm -rf "$out"
  bundle "$out/bundle"
  make_wheel "$root/kernel/python" --sdist
  make_tarball
fi
rm -rf "$out/bundle"
cd "$out"
for file in *.whl *.gz; do [ ! -e "$file" ] || sha256sum "$file" >"$file.sha256"; done
say "Done:"
du -h --apparent-size -- *
