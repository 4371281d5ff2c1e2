#!/usr/bin/env bash
# The tests: format, lints, Rust and doc tests, documentation, the displays in a browser, the notebooks, the kernel's tests
# (JupyterLab in a browser among them), the packages' (an emulated Google Colab among them).
# Usage: bash tests/run.sh [kernel|python|notebooks|rust|browser|lint|gpu|book|deny]…     (default: all)
# The Rust tests run with checks of integer overflow, for the crates of this workspace alone. Several parts run beside each other; the output
# of each appears when it is done, and the last lines give its time.
# A part that cannot run is reported clearly; with CI=true that is an error.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. kernel/toolchain.sh
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} # one folder for everything that is compiled
find_toolchain || { echo "Rust $pinned_rust is missing: run bash kernel/setup.sh first, it installs it." >&2; exit 1; }

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

# Training over several processes needs Open MPI, and libclang to read its header.
find_mpi() {
  features=()
  if command -v mpirun >/dev/null && command -v mpicc >/dev/null &&
    { compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || [ -n "${LIBCLANG_PATH:-}" ]; }; then
    features=(--features mpi)
    return
  fi
  echo "NOT RUN: training over several processes: apt-get install openmpi-bin libopenmpi-dev libclang-dev" >&2
  [ "${CI:-}" != true ]
}

rust_tests() {
  find_mpi
  step "cargo test, with checks of overflow"
  RUSTC_WORKSPACE_WRAPPER=$root/tests/overflow_checks.sh cargo test --release --locked --workspace "${features[@]}"
}

lint() {
  step "cargo fmt"
  cargo fmt --all --check
  kernel_cargo fmt --all --check
  step "every crate is compiled once"
  bash tests/compiled_once.sh
  find_mpi
  step "cargo clippy"
  kernel_cargo clippy --release --locked --all-targets -- -D warnings
  cargo clippy --release --locked --workspace --all-targets "${features[@]}" -- -D warnings
  step "cargo doc"
  RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps
  step "cargo check, without and with each feature"
  for set in "" mesh-io train; do
    cargo check --release --locked --lib --no-default-features --features "$set"
  done
}

# Tests the kernel and library that set-up makes, in a folder that no other part uses.
kernel_tests() (
  export XDG_DATA_HOME=$CARGO_TARGET_DIR/kernel-data
  JUPYTER_DATA_DIR=$XDG_DATA_HOME/jupyter bash kernel/setup.sh --no-jupyter
  WAVEMESH_KERNEL=$XDG_DATA_HOME/wavemesh/bin/wavemesh-kernel bash kernel/tests/run.sh
)

run() {
  case $1 in
    rust) rust_tests ;;
    python) step "the packages, in an emulated Google Colab and elsewhere"; bash kernel/python/tests/run.sh ;;
    kernel)
      step "kernel, driven from outside"; kernel_tests
      step "cargo test of the kernel"; kernel_cargo test --release --locked
      ;;
    lint) lint ;;
    notebooks) step "notebooks, run from top to bottom"; bash tests/notebooks.sh ;;
    browser) step "displays, in a browser"; bash tests/browser/run.sh ;;
    gpu) step "GPU kernels for every architecture"; bash tests/kernels.sh ;;
    book) step "the book and every link"; bash tests/book.sh ;;
    deny) step "licences and sources of all crates"; bash tests/deny.sh ;;
    *) echo "unknown part '$1'; known: $parts" >&2; exit 2 ;;
  esac
}

# The parts that only compile and compute come first. The others, of which three run at a time, drive kernels and browsers: they mostly
# wait, and some of what they test shows only on processors that are not full. All three begin with the library for cells, and that must be
# in place before `python` compiles another under the same file name (test_from_source).
first="rust lint"
then="kernel python notebooks browser gpu book deny"
parts="$first $then"
if [ $# = 1 ]; then
  run "$1"
  exit
fi

[ $# -gt 0 ] || set -- $parts
for part; do
  case " $parts " in *" $part "*) ;; *) run "$part" ;; esac
done
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# Prints the name of the next part, and takes it off the list.
next() (
  flock 9
  sed -n '1p' "$results/waiting"
  sed -i '1d' "$results/waiting"
) 9>"$results/lock"

# Runs parts while there are any, each in a process of its own, so that the others run when one fails.
work() {
  local part
  while part=$(next) && [ -n "$part" ]; do
    printf -- '-- %s has begun (%s s)\n' "$part" "$SECONDS"
    TIMEFORMAT="$part: %0R s, of which the processors worked %0U s and the system %0S s"
    { time bash "$0" "$part" >"$results/$part" 2>&1; } 2>>"$results/took" || echo "$part" >>"$results/failed"
    flock "$results/lock" cat "$results/$part"
  done
}

chosen=" $* "
# together COUNT PART…: runs those of the parts that are chosen, COUNT at a time.
together() {
  local count=$1 part
  shift
  for part; do
    [[ $chosen != *" $part "* ]] || echo "$part"
  done >"$results/waiting"
  while [ "$count" -gt 0 ]; do work & count=$((count - 1)); done
  wait
}
# shellcheck disable=SC2086
together 2 $first
# shellcheck disable=SC2086
together 3 $then

printf '\n'
cat "$results/took"
[ ! -e "$results/failed" ] || { echo "FAILED:" $(<"$results/failed") >&2; exit 1; }
step "all parts passed: $*"
