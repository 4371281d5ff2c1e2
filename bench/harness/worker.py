"""The peers' side: prepares a case, runs it on request, and returns its answer. `bench/src/main.rs` is the same for ours.

`python -m harness.worker SUITE FUNCTION` imports the peer once, then forks for every case, so that each begins with the memory
of a process that has done nothing but imports.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from .case import Peer, PeerCase, Work


def status(name: str) -> int:
    """A line of /proc/self/status in bytes; 0 if there is no such line."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


class Prepared:
    """One case in its own process."""

    def __init__(self, peer: Peer, request: dict[str, Any]) -> None:
        inputs = safetensors.numpy.load_file(request["inputs"])
        self.work: Work = peer.prepare(PeerCase(request["op"], request["params"], inputs))
        self.last: Any = None
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # returns freed memory to the system, so that work that takes it again is noticed
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass  # the peak is then still that of the preparation: the difference is too small, never too large
        self.resident_before = self.peak = status("VmRSS")

    def run(self, repeat: int) -> float:
        seconds = 0.0
        for _ in range(repeat):
            self.last = None
            start = time.perf_counter()
            result = self.work.run()
            seconds += time.perf_counter() - start
            self.last = result
        return seconds / repeat

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "answer":
                seconds = self.run(1)
                # Measured here, because the arrays of the answer are not part of the work.
                self.peak = status("VmHWM")
                # save_file writes an array's memory as it is, whatever its strides.
                answer = {name: np.ascontiguousarray(array) for name, array in self.work.answer(self.last).items()}
                safetensors.numpy.save_file(answer, request["path"])
                return {"seconds": seconds, "facts": self.work.facts(self.last)}
            case "sample":
                if request["awake"]:
                    self.run(1)
                return {"seconds": self.run(request["repeat"])}
            case "memory":
                return {"above": max(self.peak - self.resident_before, 0)}
        raise ValueError(f"unknown request {request['do']}")


def say(reply: dict[str, Any], out: Any) -> None:
    print(json.dumps(reply), file=out, flush=True)


def attempt(action: Any) -> dict[str, Any]:
    try:
        return action()
    except Exception as error:  # a peer's failure is an answer too, and goes into the table
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def serve_case(peer: Peer, request: dict[str, Any], lines: Any, out: Any) -> None:
    """Serves one prepared case until its `end`."""
    prepared: list[Prepared] = []

    def prepare() -> dict[str, Any]:
        prepared.append(Prepared(peer, request))
        return {}

    say(attempt(prepare), out)
    for line in lines:
        request = json.loads(line)
        if request["do"] == "end":
            return
        say(attempt(lambda: prepared[0].reply(request)), out)


def main(suite: str, function: str) -> None:
    # Peers may print what they like; only this copy of stdout carries replies.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lines = iter(sys.stdin.readline, "")
    module = importlib.import_module(f"suites.{suite}")
    peer: Peer = getattr(module, function)

    def load() -> dict[str, Any]:
        for name in peer.modules:
            importlib.import_module(name)
        return {}

    say(attempt(load), out)
    for line in lines:
        # The pipe holds one request at a time, so this process buffers nothing that the child would miss.
        child = os.fork()
        if child == 0:
            serve_case(peer, json.loads(line), lines, out)
            os._exit(0)
        _, code = os.waitpid(child, 0)
        if code:
            say({"error": f"the peer's process ended with status {os.waitstatus_to_exitcode(code)}"}, out)
        else:
            say({}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
