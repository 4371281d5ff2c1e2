"""Installs a suite's pinned peers into the private environment, and reports the disk space that each one takes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ.get("WAVEMESH_BENCH_HOME", Path(sys.prefix).parent))
REQUIREMENTS = Path(__file__).parent.parent / "requirements"


def pip(*arguments: str) -> str:
    """Runs pip; returns the reason of a failure, or nothing."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")]
    return lines[-1] if lines else f"pip ended with status {done.returncode}"


def install(suite: str) -> dict[str, str]:
    """Installs the suite's requirements. Returns pip's reason for each one that could not be installed."""
    wanted = REQUIREMENTS / f"{suite}.txt"
    if not wanted.exists():
        return {}
    stamp = Path(sys.prefix) / f".{suite}"
    with open(HOME / "install.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted.read_text():
            return {}
        print(f"{suite}: installing its peers ({wanted.name}) …", file=sys.stderr, flush=True)
        failed = {}
        if pip("-r", str(wanted)):
            # If one fails, the others must still be installed.
            lines = [line.split("#")[0].strip() for line in wanted.read_text().splitlines()]
            failed = {line: reason for line in lines if line and (reason := pip(line))}
        if not failed:
            stamp.write_text(wanted.read_text())
        return failed
