"""The program behind bench/run.sh: picks suites, installs their peers, measures, reports."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from . import install, machine, report
from .case import Peer, Row
from .measure import Settings, SuiteRun

SUITES = Path(__file__).parent.parent / "suites"
# The order of the tables; suites that are not listed here come last.
ORDER = ["limits", "mesh", "wavelet", "sdf", "isosurface", "codec", "sparse", "points", "unet", "diffusion", "memory", "display", "kernel", "soak"]
QUICK_SECONDS = 110.0


def parse(arguments: list[str]) -> argparse.Namespace:
    known = [path.stem for path in SUITES.glob("*.py") if not path.stem.startswith("_")]
    known.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    parser = argparse.ArgumentParser(prog="bash bench/run.sh", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"what to measure, default all: {' '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="fewer cases and samples: two minutes, once everything is built and installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--write", action="store_true", help="bring bench/RESULTS.md and README's table up to date")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="for every side (default %(default)s)")
    parser.add_argument("--list", action="store_true", help="name the suites and stop")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.suites if name not in known]:
        parser.error(f"no suite {', '.join(unknown)}; known: {' '.join(known)}")
    if options.threads < 1:
        parser.error(f"--threads is {options.threads}, expected 1 or more")
    # Every run measures the limits, because the shares of all other suites refer to them.
    options.suites = [name for name in known if name == "limits" or not options.suites or name in options.suites]
    return options


def build() -> Path:
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "wavemesh-bench"], cwd=machine.ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", machine.ROOT / "target")) / "release" / "wavemesh-bench"


def measure(suite: str, module: ModuleType, settings: Settings, deadline: float) -> list[Row]:
    """All rows of a suite, printed as they are measured."""
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(report.progress(row), flush=True)

    # A suite that does not compare one operation with peers, such as the kernel's, makes its rows itself.
    if hasattr(module, "rows"):
        for row in module.rows(settings, deadline):
            add(row)
        return rows
    with SuiteRun(suite, settings) as run:
        for case in module.cases(settings.quick):
            if time.monotonic() > deadline:
                add(Row(case.name, case.size, not_measured="the two minutes of --quick were over", headline=case.headline))
                continue
            for row in run.rows(case):
                add(row)
    return rows


def peers_of(module: ModuleType, rows: list[Row]) -> dict[str, str]:
    """The versions of the peers that the suite's module names."""
    peers = [value for value in vars(module).values() if isinstance(value, Peer)]
    return {peer.name: machine.version(peer.package) for peer in peers if any(row.peer == peer.name for row in rows)}


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.list:
        for suite in options.suites:
            # Read, not imported: its peers need not be installed.
            print(f"{suite:12} {summary(ast.get_docstring(ast.parse((SUITES / f'{suite}.py').read_text())))}")
        return 0
    facts = machine.describe(options.threads, arguments)
    settings = Settings(build(), options.threads, options.quick)
    missing = {suite: install.install(suite) for suite in options.suites}
    if facts["load"] > 0.25 * (os.cpu_count() or 1):
        print(f"WARNING: the machine is busy (load {facts['load']}): times are longer than they should be.", file=sys.stderr)
    deadline = time.monotonic() + QUICK_SECONDS if options.quick else float("inf")
    results: dict[str, Any] = {}
    for suite in options.suites:
        module = importlib.import_module(f"suites.{suite}")
        print(f"\n== {suite}: {summary(module.__doc__)}", flush=True)
        rows = measure(suite, module, settings, deadline)
        if suite == "limits":
            module.keep(rows, settings)
        for package, reason in missing[suite].items():
            rows.append(Row(package, "", not_measured=f"it could not be installed: {reason}"))
        limits = {"flops": settings.peak_flops, "bandwidth": settings.bandwidth}
        results[suite] = {"summary": summary(module.__doc__), "about": facts, "peers": peers_of(module, rows), "limits": limits, "rows": rows}
    for suite, section in results.items():
        print(f"\n{suite}\n{report.plain_table(section['rows'])}")
    if options.json:
        report.replace(options.json, report.to_json(results))
    if options.write:
        report.write(results, ORDER)
    return verdict(results)


def summary(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n")[0]


def verdict(results: dict[str, Any]) -> int:
    """Lists what is missing and what is wrong. Only wrong answers count as failures."""
    rows = [(suite, row) for suite, section in results.items() for row in section["rows"]]
    for suite, row in rows:
        if row.not_measured:
            print(f"NOT MEASURED {suite}: {row.case} {row.size} {row.peer}: {row.not_measured}", file=sys.stderr)
    errors = [(suite, row) for suite, row in rows if row.error]
    for suite, row in errors:
        print(f"ERROR {suite}: {row.case} {row.size} {row.peer}: {row.error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
