#!/usr/bin/env bash
# Compiles with checks of addresses; cargo calls it for the crates of this workspace alone (RUSTC_WORKSPACE_WRAPPER), so that their
# dependencies are not compiled again.
RUSTC_BOOTSTRAP=1 exec "$@" -Zsanitizer=address
