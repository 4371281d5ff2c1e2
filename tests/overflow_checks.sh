#!/usr/bin/env bash
# Compiles with overflow checks. Cargo calls it only for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER), so that their dependencies
# are not compiled again.
# The test programs (and in them the unit tests' copy of the library) run for seconds: they are compiled with less effort, and without
# optimisation across their parts. The library that they test is compiled as for a release.
effort=()
[[ " $* " != *" --test "* ]] || effort=(-C opt-level=1 -C lto=off)
exec "$@" -C overflow-checks=on "${effort[@]}"
