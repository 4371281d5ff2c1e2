#!/usr/bin/env bash
# environment VENV REQUIREMENTS: a Python environment with the packages of that file, made once, also when two scripts ask at the same time.
environment() {
  local venv=$1 wanted=$2
  mkdir -p "$(dirname "$venv")"
  (
    flock 9
    ! cmp -s "$wanted" "$venv/.complete" || exit 0
    rm -rf "$venv"
    python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -r "$wanted" || exit 1
    cp "$wanted" "$venv/.complete" # last: without it the next run starts over
  ) 9>"$venv.lock"
}
