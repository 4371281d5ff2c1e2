#!/usr/bin/env bash
# Compiles with counters of coverage; cargo calls it for the crates of this workspace alone (RUSTC_WORKSPACE_WRAPPER), so that their
# dependencies are not compiled again.
exec "$@" -C instrument-coverage
