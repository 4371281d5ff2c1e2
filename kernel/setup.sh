#!/usr/bin/env bash
# From a fresh machine to a Rust notebook: toolchain, Jupyter, kernel, compiled library, and the quickstart as proof.
# Run it again whenever you like: what is up to date is left alone.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/kernel/toolchain.sh"

usage() {
  cat <<'USAGE'
Usage: bash kernel/setup.sh [--replace] [--cuda | --no-cuda] [--no-notebook] [--no-jupyter] [--help]

  --replace       overwrite a Jupyter kernelspec named `wavemesh` that another program installed
  --cuda          compile the library for NVIDIA GPUs too; the default where a driver and nvcc are found
  --no-cuda       compile it for the processor alone
  --no-notebook   do not run notebooks/00_quickstart.ipynb at the end
  --no-jupyter    install no JupyterLab, as where a notebook is open already (Google Colab); implies --no-notebook

Where things go (XDG_DATA_HOME and CARGO_TARGET_DIR are respected):
  ~/.local/share/wavemesh    kernel, compiled library, and a private Python environment if there is no `jupyter`
  target/                    what cargo builds
USAGE
}

replace= run_notebook=1 jupyter=1 cuda=auto
for argument in "$@"; do
  case $argument in
    --replace) replace=--replace ;;
    --cuda) cuda=1 ;;
    --no-cuda) cuda= ;;
    --no-notebook) run_notebook= ;;
    --no-jupyter) run_notebook= jupyter= ;;
    --help | -h) usage; exit ;;
    *) echo "setup: unknown option '$argument'" >&2; usage >&2; exit 2 ;;
  esac
done

data=${XDG_DATA_HOME:-$HOME/.local/share}/wavemesh
target=${CARGO_TARGET_DIR:-$root/target}
say() { printf '\033[1m[%4ds] %s\033[0m\n' "$SECONDS" "$*"; }
die() { printf '\nsetup: %s\n' "$1" >&2; shift; for hint in "$@"; do printf '  -> %s\n' "$hint" >&2; done; exit 1; }
# What runs in the background, and where it says what went wrong.
background=() logs=$(mktemp -d)
end() { [ ${#background[@]} = 0 ] || kill "${background[@]}" 2>/dev/null || true; rm -rf "$logs"; }
trap end EXIT
trap 'echo; echo "setup: interrupted. Nothing is half-installed; run it again to go on."; exit 130' INT TERM

# Says what will be done, and how long it takes where there is nothing yet, on two cores.
tell_plan() {
  echo "Set-up compiles the kernel and the library for its cells, and makes them known to Jupyter."
  echo "The first time this takes some minutes (README.md has a measurement), most of them compiling; later, seconds."
  echo "It writes to $data and $target${jupyter:+, and installs JupyterLab in $data/venv if there is none}."
}

# Shows what cargo says on standard input: a line of how far it is, changed in place on a terminal, and its errors.
watch_cargo() {
  local name=$1 chunk line counts names shown=
  while IFS= read -r -d $'\r' chunk || [ -n "$chunk" ]; do
    while IFS= read -r line; do
      case $line in
        *'Building ['*/*)
          counts=${line##*] }
          names=${counts#*: } counts=${counts%%:*}
          if [ -t 1 ]; then
            printf '\r\033[K[%4ds] %s: %s parts compiled, now %.60s' "$SECONDS" "$name" "${counts/\// of }" "$names"
            shown=1
          fi
          ;;
        *'Downloading '* | *'Downloaded '* | *'Compiling '* | *'Updating '* | *'Locking '* | *'Adding '* | '') ;;
        # The kernel and the library wait for each other while their sources come.
        *'Fetch ['* | *'Blocking waiting for file lock'*) ;;
        *) printf '%s%s\n' "${shown:+$'\n'}" "$line"; shown= ;;
      esac
    done <<<"$chunk"
  done
  [ -z "$shown" ] || printf '\r\033[K'
}

# watched NAME COMMAND…: runs a command that calls cargo.
watched() {
  local name=$1
  shift
  CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=100 "$@" 2>&1 | watch_cargo "$name"
}

check_system() {
  command -v cc >/dev/null || die "there is no C linker (cc); Rust needs one to link programs." "sudo apt-get install build-essential"
  command -v python3 >/dev/null || die "there is no python3." "sudo apt-get install python3 python3-venv"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "Python $(python3 -V | cut -d' ' -f2) is too old; Jupyter needs 3.10 or newer." "install a newer python3 and put it first on PATH"
  mkdir -p "$data" 2>/dev/null && [ -w "$data" ] || die "cannot write to $data." "set XDG_DATA_HOME to a folder of yours"
}

# Writes rustup's installer, checked against its SHA-256, to the file $1. Python is there by now; curl may not be.
fetch_rustup() {
  PYTHONPATH=$root/kernel/python/src PYTHONDONTWRITEBYTECODE=1 python3 - "$1" "$pinned_rust" "$(uname -m)-unknown-linux-gnu" <<'PYTHON'
import os, sys
from wavemesh_kernel import errors, toolchain

path, release, host = sys.argv[1:]
try:
    content = toolchain.download(release, f"{toolchain.RUSTUP_ROOT}/dist/{host}/rustup-init")
except errors.RustKernelMissing as reason:
    sys.exit(str(reason))
with open(path, "wb") as file:
    file.write(content)
os.chmod(path, 0o755)
PYTHON
}

install_toolchain() {
  find_toolchain && { say "Rust $pinned_rust: found"; return; }
  if ! command -v rustup >/dev/null; then
    say "Rust: installing rustup (about 20 s)"
    local folder
    folder=$(mktemp -d)
    fetch_rustup "$folder/rustup-init" || { rm -rf "$folder"; die "rustup could not be installed; the reason is above."; }
    "$folder/rustup-init" -y --quiet --no-modify-path --default-toolchain none --profile minimal ||
      { rm -rf "$folder"; die "rustup could not be installed; the reason is above." "install Rust $pinned_rust by hand: https://rustup.rs"; }
    rm -rf "$folder"
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  say "Rust $pinned_rust: installing (about 200 MB)"
  rustup toolchain install "$pinned_rust" --profile minimal --component rust-src,clippy,rustfmt ||
    die "Rust $pinned_rust could not be installed." "check the network and run: rustup toolchain install $pinned_rust"
  find_toolchain || die "rustc is still not version $pinned_rust: $(rustc --version 2>&1)" "unset RUSTUP_TOOLCHAIN and run this again"
}

# Sets `python` to an interpreter that has JupyterLab, nbclient and nbconvert.
prepare_python() {
  local wanted='import jupyterlab, nbclient, nbconvert, ipykernel'
  if command -v jupyter >/dev/null && python3 -c "$wanted" 2>/dev/null; then
    python=$(command -v python3)
    say "Jupyter: found $(command -v jupyter)"
    return
  fi
  python=$data/venv/bin/python
  if cmp -s "$root/kernel/requirements.txt" "$data/venv/.complete"; then
    say "Jupyter: found its private environment"
    add_extension
    return
  fi
  say "Jupyter: making a private Python environment in $data/venv, while the kernel is compiled"
  rm -rf "$data/venv"
  python3 -m venv "$data/venv" || die "python3 cannot make virtual environments." "sudo apt-get install python3-venv"
  "$python" -m pip install --quiet --disable-pip-version-check --no-compile -r "$root/kernel/requirements.txt" >"$logs/pip" 2>&1 &
  pip=$!
  background+=("$pip")
}

# Waits for what `prepare_python` has begun.
finish_python() {
  [ -n "${pip:-}" ] || return 0
  wait "$pip" || { tail -20 "$logs/pip" >&2; die "JupyterLab could not be installed." "check the network and run this again"; }
  add_extension
  cp "$root/kernel/requirements.txt" "$data/venv/.complete" # last: without it the next run starts over
}

# Lets Python notebooks of the private environment load this checkout's extension: `%load_ext wavemesh_kernel`.
add_extension() {
  echo "$root/kernel/python/src" >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/wavemesh_kernel.pth"
}

# Sets `cuda` to 1 or to nothing.
choose_cuda() {
  local toolkit="eval \"\$(bash kernel/cuda_toolkit.sh ~/.cache/wavemesh-cuda)\""
  PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin"
  if [ "$cuda" = auto ]; then
    cuda=
    if [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; then
      if command -v nvcc >/dev/null; then cuda=1; else
        say "GPU: there is an NVIDIA GPU, and cells will not use it: nvcc, which compiles for it, is missing"
        printf '  -> %s; bash kernel/setup.sh --cuda\n' "$toolkit"
      fi
    fi
  elif [ -n "$cuda" ]; then
    command -v nvcc >/dev/null || die "--cuda needs nvcc, NVIDIA's compiler." "install CUDA's toolkit, or: $toolkit"
  fi
  [ -n "$cuda" ] || return 0
  # candle's kernels are made for one compute capability: this card's, or the oldest that is served, whose kernels run on all.
  command -v nvidia-smi >/dev/null || export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-75}
  say "GPU: the library is compiled for NVIDIA GPUs too (a quarter of an hour more, the first time)"
}

# build_library [--cuda]
build_library() {
  watched "Library" "$data/bin/wavemesh-kernel" library build --source "$root" "$@" || did_not_compile library
}

did_not_compile() {
  die "compiling the $1 failed; the reason is above." "a full disk or less than 4 GB of memory are the usual causes"
}

# What the kernel says of driver, libraries and card.
gpu_found() {
  local found
  found=$("$data/bin/wavemesh-kernel" doctor 2>/dev/null | sed -n '/^  GPU /,/^  [^ ]/{s/^  GPU *//p;s/^  *->  */-> /p};/^  a cell/s/^  a cell, end to end *ok */a cell: /p' || true)
  echo "${found:-no driver of NVIDIA is here yet; cells compute on the processor until there is one}"
}

# Gigabytes of memory that programs can have.
memory() {
  local kilobytes
  kilobytes=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
  echo $((${kilobytes:-0} / 1048576))
}

# What the kernel's command `library build` compiles, in its own words to cargo: that then finds it done.
compile_library() {
  (cd "$root" && watched "Library" cargo rustc --release --locked -p wavemesh-dylib -- -Cprefer-dynamic)
}

build_kernel() {
  export CARGO_TARGET_DIR=$target
  if [ "$(memory)" -ge 6 ]; then
    say "WaveMesh: compiling the kernel and the library for cells"
    # The library takes longer, so it comes first.
    (cd "$root/kernel" && CARGO_TARGET_DIR=$kernel_target exec nice -n 10 cargo build --release --locked --quiet) >"$logs/kernel" 2>&1 &
    local kernel=$!
    background+=("$kernel")
    compile_library || did_not_compile library
    wait "$kernel" || { cat "$logs/kernel" >&2; did_not_compile kernel; }
  else
    say "WaveMesh: compiling the kernel"
    # The library's sources come meanwhile; what fails here is told when they are needed.
    (cd "$root" && exec cargo fetch --locked --quiet) >/dev/null 2>&1 &
    background+=("$!")
    watched "Kernel" kernel_cargo build --release --locked || did_not_compile kernel
  fi
  mkdir -p "$data/bin"
  if ! cmp -s "$kernel_target/release/wavemesh-kernel" "$data/bin/wavemesh-kernel"; then
    cp "$kernel_target/release/wavemesh-kernel" "$data/bin/.wavemesh-kernel.new"
    mv "$data/bin/.wavemesh-kernel.new" "$data/bin/wavemesh-kernel"
  fi
  say "WaveMesh: putting the library for cells in place"
  build_library
  # Beside the other, which serves where this one does not load.
  [ -z "$cuda" ] || { say "WaveMesh: compiling the library for NVIDIA GPUs"; build_library --cuda; say "GPU: $(gpu_found)"; }
  say "Jupyter: installing the kernel 'Rust (WaveMesh)'"
  "$data/bin/wavemesh-kernel" install $replace
}

run_quickstart() {
  local out=$target/quickstart
  mkdir -p "$out"
  say "Quickstart: running notebooks/00_quickstart.ipynb"
  (cd "$root/notebooks" && "$python" -m nbconvert --execute --to html --output-dir "$out" 00_quickstart.ipynb 2>"$out/log.txt") ||
    { tail -40 "$out/log.txt" >&2; die "the quickstart notebook failed; the reason is above." "$data/bin/wavemesh-kernel doctor"; }
  say "Done."
  printf '\nThe executed notebook:  %s\n' "$out/00_quickstart.html"
}

check_system
tell_plan
install_toolchain
if [ -n "$jupyter" ]; then prepare_python; fi
choose_cuda
build_kernel
finish_python
if [ -n "$run_notebook" ]; then run_quickstart; fi
if [ -n "$jupyter" ]; then printf 'Open JupyterLab with:   %s -m jupyterlab %s\n' "$python" "$root/notebooks"; fi
