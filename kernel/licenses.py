"""Prints the licences of every crate that is linked into a wheel: each text once, below the names of the crates that it is for.

Usage: python3 kernel/licenses.py [--features cuda] MANIFEST…     (what the wheel's parts are compiled from)
"""

import argparse
import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path

NAMES = re.compile(r"(un)?licen[cs]e|copying|copyright|notice", re.IGNORECASE)


def linked(manifest, features):
    """The crates of others in this program or library, by name and version: no macros, and none of build scripts and tests."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu"]
    found = json.loads(subprocess.check_output([*command, "--manifest-path", manifest, "--features", features]))
    packages = {package["id"]: package for package in found["packages"]}
    edges = {node["id"]: node["deps"] for node in found["resolve"]["nodes"]}
    seen, waiting = set(), [found["resolve"]["root"]]
    while waiting:
        one = waiting.pop()
        if one not in seen and not any("proc-macro" in target["kind"] for target in packages[one]["targets"]):
            seen.add(one)
            waiting += [edge["pkg"] for edge in edges[one] if any(kind["kind"] is None for kind in edge["dep_kinds"])]
    return {(packages[one]["name"], packages[one]["version"]): packages[one] for one in seen if packages[one]["source"]}


def texts(crate):
    """What the licence files in the crate say."""
    folder = Path(crate["manifest_path"]).parent
    paths = {path for path in folder.iterdir() if path.is_file() and NAMES.match(path.name)}
    if crate["license_file"]:
        paths.add(folder / crate["license_file"])
    return [path.read_text(encoding="utf-8", errors="replace").strip("\r\n") for path in sorted(paths)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", default="", help="as cargo was told")
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST")
    options = parser.parse_args()
    crates = {}
    for manifest in options.manifests:
        crates |= linked(manifest, options.features)
    bearers, wordings, silent = defaultdict(list), {}, []
    for (name, version), crate in sorted(crates.items()):
        found = texts(crate)
        for text in found:
            words = " ".join(text.split())
            wordings.setdefault(words, text)
            bearers[words].append(f"{name} {version}")
        if not found:
            silent.append(f"{name} {version}: {crate['license']}, {crate['repository']}")
    print(f"{len(crates)} crates are linked into what this package holds; the texts of their licences follow. Rust's standard")
    print("library is linked too, under MIT or Apache-2.0: https://www.rust-lang.org/policies/licenses")
    if silent:
        print("\nThese say their licence and bring no text:\n\n" + "\n".join(silent))
    for words, names in bearers.items():
        print(f"\n{'=' * 80}\n{', '.join(dict.fromkeys(names))}\n{'=' * 80}\n\n{wordings[words]}")


main()
