#!/usr/bin/env bash
# Drives the real kernel from outside: with today's jupyter_client and with Colab's, over tcp and ipc, and in JupyterLab.
# Usage: bash kernel/tests/run.sh [pytest arguments]
#   WAVEMESH_KERNEL        the program to test, with the library for cells in place (default: both are built here, below
#                          the target folder, so that your own kernel and library are left alone)
#   WAVEMESH_TEST_VENVS    where the Python environments are kept (default: below the target folder)
#   WAVEMESH_TEST_CLIENTS  which clients to test with (default: "current colab lab")
# A part that cannot run is named loudly, and is an error when CI=true.
set -euo pipefail
tests=$(cd "$(dirname "$0")" && pwd)
kernel=$(dirname "$tests")
root=$(dirname "$kernel")
. "$kernel/toolchain.sh"
find_toolchain || { echo "Rust $pinned_rust is missing: run bash kernel/setup.sh first, it installs it." >&2; exit 1; }
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
target=$CARGO_TARGET_DIR
venvs=${WAVEMESH_TEST_VENVS:-$target/test-venvs}

if [ -z "${WAVEMESH_KERNEL:-}" ]; then
  (cd "$kernel" && cargo build --release --locked)
  WAVEMESH_KERNEL=$target/release/wavemesh-kernel
  export XDG_DATA_HOME=$target/test-data
  "$WAVEMESH_KERNEL" library build --source "$root"
fi
export WAVEMESH_KERNEL

for client in ${WAVEMESH_TEST_CLIENTS:-current colab lab}; do
  wanted=$tests/requirements-$client.txt
  python=$venvs/$client/bin/python
  if ! cmp -s "$wanted" "$venvs/$client/.complete"; then
    rm -rf "${venvs:?}/$client"
    if ! { python3 -m venv "$venvs/$client" && "$python" -m pip install --quiet --disable-pip-version-check -r "$wanted"; }; then
      echo "SKIPPED: the kernel's tests with the client '$client': its Python environment cannot be made" >&2
      if [ "${CI:-}" = true ]; then exit 1; else continue; fi
    fi
    cp "$wanted" "$venvs/$client/.complete" # last: without it the next run starts over
  fi
  echo "-- with the client '$client': $("$python" -c 'import jupyter_client, zmq; print("jupyter_client", jupyter_client.__version__, "pyzmq", zmq.__version__)')"
  case $client in
    lab) selected=("$tests/test_jupyterlab.py") ;;
    *) selected=("$tests" "--ignore=$tests/test_jupyterlab.py") ;;
  esac
  "$python" -m pytest -q -p no:cacheprovider -rs "${selected[@]}" "$@"
done
