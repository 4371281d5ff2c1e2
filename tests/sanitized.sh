#!/usr/bin/env bash
# Compiles with address checks. Cargo calls it only for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER), so that their dependencies
# are not compiled again.
RUSTC_BOOTSTRAP=1 exec "$@" -Zsanitizer=address
