"""Writes rows as a table in the terminal, as JSON, and as bench/RESULTS.md (and part of it to README.md)."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .case import Row
from .machine import ROOT

COLUMNS = ("case", "size", "ours", "ours min", "peer", "peer's", "peer's min", "ratio", "memory ours / peer's", "of limit", "also")
GPU_HEADING = "## GPU\n"
README_MARKS = ("<!-- bench: begin -->", "<!-- bench: end -->")


NO_BREAK = "\N{NO-BREAK SPACE}"  # so that no table breaks a number from its unit


def scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    factor, unit = next(((factor, unit) for factor, unit in steps if abs(value) >= factor), steps[-1])
    number = value / factor
    return f"{number:.3g}{NO_BREAK}{unit}" if abs(number) < 999.5 else f"{number:.0f}{NO_BREAK}{unit}"


def seconds(value: float) -> str:
    return scaled(value, ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")))


def size(value: float | None) -> str:
    return "–" if not value else scaled(value, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))


def fact(name: str, value: Any) -> str:
    return size(value) if name.endswith("bytes") else f"{value:.4g}" if isinstance(value, float) else str(value)


def facts(row: Row) -> str:
    """`coefficients 1423 / 1423`: ours, then the peer's, if both have one."""
    names = list(dict.fromkeys([*row.our_facts, *row.their_facts]))
    both = lambda name: [fact(name, side[name]) for side in (row.our_facts, row.their_facts) if name in side]
    return ", ".join(f"{name} {' / '.join(both(name))}" for name in names)


def ratio(row: Row) -> float | None:
    """The peer's time divided by ours: above 1, ours is faster."""
    return statistics.median(row.theirs) / statistics.median(row.ours) if row.ours and row.theirs else None


def cells(row: Row) -> list[str]:
    median = lambda samples: seconds(statistics.median(samples)) if samples else "–"
    least = lambda samples: seconds(min(samples)) if samples else "–"
    times = ratio(row)
    also = "; ".join(
        text
        for text in (
            facts(row),
            f"**not measured**: {row.not_measured}" if row.not_measured else "",
            f"**ERROR**: {row.error}" if row.error else "",
        )
        if text
    )
    memory = f"{size(row.our_memory)} / {size(row.their_memory)}" if row.our_memory or row.their_memory else "–"
    return [
        row.case,
        row.size,
        median(row.ours),
        least(row.ours),
        row.peer or "–",
        median(row.theirs),
        least(row.theirs),
        f"{times:.3g}×" if times else "–",
        memory,
        f"{row.share:.0%}" if row.share is not None else "–",
        also or "",
    ]


def progress(row: Row) -> str:
    """One line of progress during the run."""
    ours, theirs = (seconds(statistics.median(side)) if side else "–" for side in (row.ours, row.theirs))
    trouble = "  ".join(filter(None, (row.error and f"ERROR {row.error}", row.not_measured and f"NOT MEASURED {row.not_measured}")))
    compared = f"{row.peer} {theirs}" if row.peer else ""
    return f"   {row.case} {row.size}: {ours}  {compared}  {trouble}".rstrip()


def plain_table(rows: list[Row]) -> str:
    table = [list(COLUMNS), *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(COLUMNS) - 1)] + [0]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table)


def markdown_table(rows: list[Row], columns: tuple[str, ...] = COLUMNS) -> str:
    chosen = [COLUMNS.index(column) for column in columns]
    lines = [list(columns), ["---"] * len(columns), *([cells(row)[column] for column in chosen] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def to_json(results: dict[str, Any]) -> str:
    plain = {name: section | {"rows": [asdict(row) for row in section["rows"]]} for name, section in results.items()}
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> dict[str, Any]:
    return {name: section | {"rows": [Row(**row) for row in section["rows"]]} for name, section in json.loads(text).items()}


def replace(path: Path, text: str) -> None:
    """Writes a file completely or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    draft.replace(path)


def about(section: dict[str, Any]) -> str:
    """The lines above a table."""
    facts = section["about"]
    peers = ", ".join(f"{name} {version}" for name, version in section["peers"].items() if version)
    limits = section.get("limits") or {}
    reached = f" Limits measured in the same run: {limits['flops'] / 1e9:.0f} GFLOP/s (GEMM, f32), {limits['bandwidth'] / 1e9:.1f} GB/s (triad)." if limits else ""
    return (
        f"`{facts['command']}`, {facts['date']}, commit {facts['commit']}. {facts['machine']}; {facts['threads']} threads on every side; "
        f"load {facts['load']} before the run. {facts['rustc']}, Python {facts['python']}{'; ' + peers if peers else ''}.{reached}"
    )


def write(results: dict[str, Any], order: list[str]) -> None:
    """Merges `results` into bench/results.json, and renders RESULTS.md and README's part from all results."""
    stored = ROOT / "bench" / "results.json"
    merged = (from_json(stored.read_text()) if stored.exists() else {}) | results
    merged = {name: merged[name] for name in [*order, *merged] if name in merged}
    replace(stored, to_json(merged))
    parts = [
        "# Results\n\nWritten by `bash bench/run.sh --write`; every table names its own command, machine, versions and date, and is replaced when "
        "that suite is run again. Ratio: how many times as long the peer takes (above 1×, WaveMesh is faster). Memory: the most that "
        "the work held at once above its inputs. Of limit: the time that the machine's GEMM peak or memory bandwidth, measured in the "
        "same run, would need at least, as a share of ours."
    ]
    parts += [f"## {name}\n\n{section['summary']}\n\n{about(section)}\n\n{markdown_table(section['rows'])}" for name, section in merged.items()]
    path = ROOT / "bench" / "RESULTS.md"
    _, heading, gpu = path.read_text().partition(GPU_HEADING) if path.exists() else ("", "", "")
    replace(path, "\n\n".join([*parts, heading + gpu] if heading else [*parts, ""]).rstrip() + "\n")
    write_readme([row for section in merged.values() for row in section["rows"] if row.headline])


def write_gpu(section: str) -> None:
    """Puts the section of bench/gpu.sh, which starts with its heading, at the end of RESULTS.md."""
    path = ROOT / "bench" / "RESULTS.md"
    before = path.read_text().partition(GPU_HEADING)[0].rstrip()
    replace(path, f"{before}\n\n{section}")


def write_readme(rows: list[Row]) -> None:
    """Puts the headline rows between README's marks, if it has them."""
    readme = ROOT / "README.md"
    text = readme.read_text() if readme.exists() else ""
    if not rows or any(mark not in text for mark in README_MARKS):
        return
    begin, end = README_MARKS
    table = markdown_table(rows, ("case", "size", "ours", "peer", "peer's", "ratio", "memory ours / peer's"))
    replace(readme, f"{text.split(begin)[0]}{begin}\n{table}\n{end}{text.split(end, 1)[1]}")
