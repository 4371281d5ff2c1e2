#!/usr/bin/env bash
# Tests the real kernel from outside: with today's jupyter_client, in JupyterLab, and, for tests of messages, over ipc and with Colab's
# client.
# Usage: bash kernel/tests/run.sh [pytest arguments]
#   WAVEMESH_KERNEL        the program to test, with the library for cells in place (default: both are built here, below
#                          the target folder, so that your own kernel and library are left alone)
#   WAVEMESH_TEST_VENVS    where the Python environments are kept (default: below the target folder)
#   WAVEMESH_TEST_CLIENTS  which clients to test with (default: "current colab lab")
# A part that cannot run is reported clearly; with CI=true that is an error.
set -euo pipefail
tests=$(cd "$(dirname "$0")" && pwd)
kernel=$(dirname "$tests")
root=$(dirname "$kernel")
. "$kernel/toolchain.sh"
. "$tests/environment.sh"
find_toolchain || { echo "Rust $pinned_rust is missing: run bash kernel/setup.sh first, it installs it." >&2; exit 1; }
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
target=$CARGO_TARGET_DIR
venvs=${WAVEMESH_TEST_VENVS:-$target/test-venvs}

if [ -z "${WAVEMESH_KERNEL:-}" ]; then
  kernel_cargo build --release --locked
  WAVEMESH_KERNEL=$kernel_target/release/wavemesh-kernel
  export XDG_DATA_HOME=$target/test-data
  "$WAVEMESH_KERNEL" library build --source "$root"
fi
export WAVEMESH_KERNEL

run_client() {
  local client=$1 wanted=$tests/requirements-$1.txt python=$venvs/$1/bin/python selected
  shift
  if ! environment "$venvs/$client" "$wanted"; then
    echo "SKIPPED: the kernel's tests with the client '$client': its Python environment cannot be made" >&2
    if [ "${CI:-}" = true ]; then return 1; else return 0; fi
  fi
  echo "-- with the client '$client': $("$python" -c 'import jupyter_client, zmq; print("jupyter_client", jupyter_client.__version__, "pyzmq", zmq.__version__)')"
  case $client in
    lab) selected=("$tests/test_jupyterlab.py") ;;
    colab) selected=("$tests" "--ignore=$tests/test_jupyterlab.py" -m messages) ;;
    *) selected=("$tests" "--ignore=$tests/test_jupyterlab.py") ;;
  esac
  "$python" -m pytest -q -p no:cacheprovider -rs "${selected[@]}" "$@"
}

# The first client runs beside the others, which run one after another: a kernel mostly waits for one compiler. The output of the others
# appears when the first is done.
read -ra clients <<<"${WAVEMESH_TEST_CLIENTS:-current colab lab}"
others() {
  local client
  for client in "${clients[@]:1}"; do run_client "$client" "$@" || return; done
}
later=$(mktemp)
others "$@" >"$later" 2>&1 &
second=$!
trap 'kill "$second" 2>/dev/null || true; rm -f "$later"' EXIT
run_client "${clients[0]}" "$@" && failed=0 || failed=$?
wait "$second" || failed=$?
cat "$later"
exit "$failed"
