#!/usr/bin/env bash
# Runs every notebook from top to bottom in the Rust kernel, as a reader would after `bash kernel/setup.sh`.
# Usage: bash tests/notebooks.sh [--save] [notebook.ipynb]…     (default: all of notebooks/)
#   --save    train as long as a reader would, and give the notebooks the outputs of this run
# Set-up uses a separate folder of the tests, so your own kernel and kernelspec stay unchanged.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
export XDG_DATA_HOME=$CARGO_TARGET_DIR/test-data
export JUPYTER_DATA_DIR=$XDG_DATA_HOME/jupyter
save=()
if [ "${1:-}" = --save ]; then
  save=(--save)
  shift
else
  # Notebooks 03, 06 and 07 train for minutes for a reader, but for seconds in the tests.
  export WAVEMESH_TRAIN_SECONDS=${WAVEMESH_TRAIN_SECONDS:-10}
fi
bash "$root/kernel/setup.sh" --no-notebook
python=$XDG_DATA_HOME/wavemesh/venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
[ $# -gt 0 ] || set -- "$root"/notebooks/*.ipynb
exec "$python" "$root/tests/notebooks.py" "${save[@]}" "$CARGO_TARGET_DIR/notebooks" "$@"
