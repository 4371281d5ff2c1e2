"""Adds up the numbers that `llvm-cov export -summary-only` gives for files, by room, and writes them as a table."""

import json
import sys
from collections import defaultdict

SOURCES = "/src/"


def room(path):
    """Gives `sdf` for `…/src/sdf/grid.rs`, and `task` for `…/src/task.rs`."""
    return path.split(SOURCES)[-1].split("/")[0].removesuffix(".rs")


def main():
    report = json.load(sys.stdin)["data"][0]
    rooms = defaultdict(lambda: [0, 0])
    for file in report["files"]:
        path, lines = file["filename"], file["summary"]["lines"]
        if SOURCES in path and "/bench/" not in path and "/kernel/" not in path:
            for place in room(path), "all":
                rooms[place][0] += lines["covered"]
                rooms[place][1] += lines["count"]
    print("| room | lines | covered |\n| --- | ---: | ---: |")
    for name, (covered, count) in sorted(rooms.items(), key=lambda entry: entry[1][0] / max(1, entry[1][1])):
        if count:
            print(f"| {name} | {count} | {100 * covered / count:.1f} % |")


if __name__ == "__main__":
    main()
