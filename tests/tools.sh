# Programs that only the tests need and that PyPI has in compiled form, in a separate environment. Source this file.
# `tool PACKAGE==VERSION PROGRAM` sets `program` to the path of PROGRAM, installed if it is not there.
tools=${CARGO_TARGET_DIR:?}/test-tools

tool() {
  local mark=$tools/.installed-$1
  program=$tools/bin/$2
  [ -e "$mark" ] && return
  [ -x "$tools/bin/python" ] || python3 -m venv "$tools"
  if ! "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$1"; then
    echo "NOT RUN: $1 cannot be installed from PyPI" >&2
    [ "${CI:-}" = true ] && exit 1
    exit 0
  fi
  touch "$mark"
}
