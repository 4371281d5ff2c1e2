#!/usr/bin/env bash
# The tests: format, lints, Rust and doc tests, documentation, the displays in a browser, the notebooks, the kernel's tests
# (JupyterLab in a browser among them), the packages' (an emulated Google Colab among them).
# Usage: bash tests/run.sh [rust|gpu|kernel|deny|book|browser|notebooks|python]…     (default: all)
# The Rust tests run with checks of integer overflow, for the crates of this workspace alone. If there are several parts, the last lines
# give the time of each.
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
  step "cargo fmt"
  cargo fmt --all --check
  kernel_cargo fmt --all --check
  step "every crate is compiled once"
  bash tests/compiled_once.sh
  find_mpi
  step "cargo clippy and cargo test of the kernel, beside those of the library"
  local beside kernel_tests
  beside=$(mktemp)
  { kernel_cargo clippy --release --locked --all-targets -- -D warnings && kernel_cargo test --release --locked; } >"$beside" 2>&1 &
  kernel_tests=$!
  cargo clippy --release --locked --workspace --all-targets "${features[@]}" -- -D warnings
  step "cargo test, with checks of overflow"
  RUSTC_WORKSPACE_WRAPPER=$root/tests/overflow_checks.sh cargo test --release --locked --workspace "${features[@]}"
  step "the kernel's"
  wait "$kernel_tests" || { cat "$beside"; return 1; }
  cat "$beside"
  rm "$beside"
  step "cargo doc"
  RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps
  step "cargo check, without and with each feature"
  for set in "" mesh-io train; do
    cargo check --release --locked --lib --no-default-features --features "$set"
  done
}

# Tests the kernel and library that set-up makes, in a folder for the tests.
kernel_tests() (
  export XDG_DATA_HOME=$CARGO_TARGET_DIR/test-data
  JUPYTER_DATA_DIR=$XDG_DATA_HOME/jupyter bash kernel/setup.sh --no-jupyter
  WAVEMESH_KERNEL=$XDG_DATA_HOME/wavemesh/bin/wavemesh-kernel bash kernel/tests/run.sh
)

run() {
  case $1 in
    rust) rust_tests ;;
    gpu) step "GPU kernels for every architecture"; bash tests/kernels.sh ;;
    deny) step "licences and sources of all crates"; bash tests/deny.sh ;;
    book) step "the book and every link"; bash tests/book.sh ;;
    browser) step "displays, in a browser"; bash tests/browser/run.sh ;;
    kernel) step "kernel, driven from outside"; kernel_tests ;;
    python) step "the packages, in an emulated Google Colab and elsewhere"; bash kernel/python/tests/run.sh ;;
    notebooks) step "notebooks, run from top to bottom"; bash tests/notebooks.sh ;;
    *) echo "unknown part '$1'; known: rust gpu deny book browser notebooks kernel python" >&2; exit 2 ;;
  esac
}

if [ $# = 1 ]; then
  run "$1"
  exit
fi

[ $# -gt 0 ] || set -- rust gpu deny book browser notebooks kernel python
chosen=" $* "
for part; do
  case " rust gpu deny book browser notebooks kernel python " in *" $part "*) ;; *) run "$part" ;; esac
done
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# lane PARTS: runs the chosen parts, one after another. Each is a separate process, so the others run when one fails.
lane() {
  local part
  for part; do
    [[ $chosen = *" $part "* ]] || continue
    TIMEFORMAT="$part: %0R s, of which the processors worked %0U s and the system %0S s"
    { time bash "$0" "$part" 2>&3; } 3>&2 2>>"$results/took" || echo "$part" >>"$results/failed"
  done
}

# Every other part uses what `rust` compiles. The parts that drive kernels mostly wait for one compiler, so they run beside each other; the
# output of two of the three lanes is printed afterwards.
lane rust
lane browser notebooks gpu >"$results/displays" 2>&1 &
lane python >"$results/packages" 2>&1 &
lane deny book kernel
wait
cat "$results/displays" "$results/packages"

printf '\n'
cat "$results/took"
[ ! -e "$results/failed" ] || { echo "FAILED:" $(<"$results/failed") >&2; exit 1; }
step "all parts passed: $*"
