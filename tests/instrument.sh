#!/usr/bin/env bash
# Compiles with coverage counters. Cargo calls it only for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER), so that their
# dependencies are not compiled again.
exec "$@" -C instrument-coverage
