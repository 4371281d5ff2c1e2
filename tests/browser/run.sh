#!/usr/bin/env bash
# Tries every display in headless Chromium, on plain pages and in JupyterLab. Usage: bash tests/browser/run.sh [pytest arguments]
# `bash tests/browser/run.sh screenshots` takes the pictures of docs/displays.md instead, `bash tests/browser/run.sh speed` its table of large viewers,
# and `bash tests/browser/run.sh animation` the animation of the front page, with the kernel that WAVEMESH_KERNEL names or one that is built here.
# If it cannot run, it prints a clear message; with CI=true that is an error.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
target=${CARGO_TARGET_DIR:-$root/target}
wanted=$root/kernel/tests/requirements-lab.txt # the environment of the kernel's tests in JupyterLab
venv=${WAVEMESH_TEST_VENVS:-$target/test-venvs}/lab
python=$venv/bin/python
. "$root/kernel/tests/environment.sh"

skip() {
  echo "SKIPPED: the displays in a browser: $1" >&2
  if [ "${CI:-}" = true ]; then exit 1; else exit 0; fi
}
[ -n "${CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome > /dev/null || skip "there is no Chromium; install it or set CHROMIUM"

if [ "${1:-}" != animation ]; then
  (cd "$root" && cargo build --release --locked --example gallery)
  export WAVEMESH_GALLERY=$target/gallery
  "$target/release/examples/gallery" "$WAVEMESH_GALLERY" > /dev/null
elif [ -z "${WAVEMESH_KERNEL:-}" ]; then
  . "$root/kernel/toolchain.sh"
  kernel_cargo build --release --locked
  export WAVEMESH_KERNEL=$kernel_target/release/wavemesh-kernel XDG_DATA_HOME=$target/test-data
  "$WAVEMESH_KERNEL" library build --source "$root"
fi

environment "$venv" "$wanted" || skip "its Python environment cannot be made"
case ${1:-} in
  screenshots) exec timeout --kill-after=10 120 "$python" "$here/screenshots.py" ;;
  animation)
    "$python" -c 'import PIL' 2> /dev/null || "$python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0
    exec timeout --kill-after=10 600 "$python" "$here/animation.py"
    ;;
  speed) exec timeout --kill-after=10 240 "$python" "$here/speed.py" "$target/release/examples/gallery" ;;
esac
# Nothing here may hang: each test has a time limit, and so has the whole run.
timeout --kill-after=10 600 "$python" -m pytest -q -p no:cacheprovider -rs --timeout=60 "$here" "$@"
