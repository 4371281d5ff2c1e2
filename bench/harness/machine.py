"""The conditions of a result besides the code: machine, load, versions, threads."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent.parent
THREAD_VARIABLES = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    simd = next((name for name, flag in (("AVX-512", "avx512f"), ("AVX2", "avx2")) if flag in flags), "no AVX2")
    return f"{fields.get('model name', platform.machine())}, {simd}"


def version(package: str) -> str:
    """The installed version of a peer, or nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def describe(threads: int, arguments: list[str]) -> dict[str, Any]:
    """The lines above a table."""
    changed = "+ changes" if output("git", "status", "--porcelain", "--untracked-files=no") else ""
    return {
        "command": " ".join(["bash bench/run.sh", *arguments]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": f"{output('git', 'rev-parse', '--short', 'HEAD')} {changed}".strip(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}",
        "threads": threads,
        "load": round(os.getloadavg()[0], 2),
        "rustc": " ".join(output("rustc", "--version").split()[:2]),
        "python": platform.python_version(),
    }


def environment(threads: int) -> dict[str, str]:
    """The environment of a side: its number of threads, in every variable that some library reads."""
    return os.environ | {name: str(threads) for name in THREAD_VARIABLES}
