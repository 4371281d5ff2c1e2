#!/usr/bin/env bash
# Measures WaveMesh beside its peers in the same run, with the same inputs and threads. Answers are compared before the timing.
# Usage: bash bench/run.sh [suite…] [--quick] [--json FILE] [--write] [--threads N] [--list]
# The peers are installed in a separate Python environment, ${XDG_CACHE_HOME:-~/.cache}/wavemesh/bench (bench/README.md gives its size).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/kernel/toolchain.sh"
find_toolchain || { echo "Rust $pinned_rust is missing: run bash kernel/setup.sh first, it installs it." >&2; exit 1; }

export WAVEMESH_BENCH_HOME=${WAVEMESH_BENCH_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/wavemesh/bench}
python=$WAVEMESH_BENCH_HOME/venv/bin/python
if ! [ -x "$python" ]; then
  mkdir -p "$WAVEMESH_BENCH_HOME"
  python3 -m venv "$WAVEMESH_BENCH_HOME/venv" || { echo "bench: python3 cannot make virtual environments: sudo apt-get install python3-venv" >&2; exit 1; }
fi
stamp=$WAVEMESH_BENCH_HOME/venv/.harness
if ! cmp -s "$root/bench/requirements/harness.txt" "$stamp"; then
  "$python" -m pip install --quiet --disable-pip-version-check -r "$root/bench/requirements/harness.txt"
  cp "$root/bench/requirements/harness.txt" "$stamp"
fi

# A BLAS kernel chosen by an editor or a host would slow the peers: each side chooses its own.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export PYTHONPATH=$root/bench PYTHONDONTWRITEBYTECODE=1
exec "$python" -m harness "$@"
