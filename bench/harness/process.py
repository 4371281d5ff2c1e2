"""The two sides as the measuring program sees them: a process, requests as JSON lines, and a time limit for each reply."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .case import Peer


class Failed(Exception):
    """The side reported that it cannot do the work, died, or took too long."""


class Side:
    """A running process that answers one request at a time."""

    def __init__(self, command: list[str], environment: dict[str, str], patience: float) -> None:
        self.patience = patience
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, env=environment, start_new_session=True
        )
        self.buffer = b""
        self.held = False

    def hold(self) -> None:
        """Stops all threads of the process until its next request: the threads of a BLAS spin long after their work."""
        self.signal(signal.SIGSTOP)
        self.held = True

    def ask(self, **request: Any) -> dict[str, Any]:
        if self.held:
            self.signal(signal.SIGCONT)
            self.held = False
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # read() below gives the reason
        return self.read()

    def read(self) -> dict[str, Any]:
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], self.patience)
            if not ready:
                self.close()
                raise Failed(f"no reply within {self.patience:.0f} s")
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                self.process.wait()
                raise Failed(f"ended with status {self.process.returncode}: {self.last_words()}")
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\n", 1)
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return reply

    def last_words(self) -> str:
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"

    def close(self) -> None:
        """Ends the process and its children; this program started both."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.stderr.close()

    def signal(self, which: signal.Signals) -> None:
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, which)
            except ProcessLookupError:
                pass


def start_ours(binary: Path, environment: dict[str, str], patience: float) -> Side:
    return Side([str(binary)], environment, patience)


def start_peer(suite: str, peer: Peer, environment: dict[str, str], patience: float) -> Side:
    """Starts a peer and waits for its imports; raises `Failed` with the reason if they fail."""
    side = Side([sys.executable, "-m", "harness.worker", suite, peer.function], environment, patience)
    try:
        side.read()
    except Failed:
        side.close()
        raise
    return side
