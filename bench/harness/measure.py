"""Measures one case: first the answers, then samples of ours and of every peer in turn."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from .case import Case, Peer, Row, WrongAnswer
from .machine import environment
from .process import Failed, Side, start_ours, start_peer

# A sample lasts at least this long, so that the times of the clock and the pipe do not matter.
SHORTEST_SAMPLE = 0.005
# The pause between samples of two sides, in which the processor settles.
PAUSE = 0.004
# Work that takes no longer than this runs once before each measured sample: after the pause, threads and processor have to wake up first,
# which can take as long as the work.
WAKE = 0.1


@dataclass
class Settings:
    """How long to measure, and what each side gets."""

    binary: Path
    threads: int
    quick: bool
    peak_flops: float = math.nan
    bandwidth: float = math.nan

    def environment(self, threads: int | None = None) -> dict[str, str]:
        """The environment of a side; a case may have its own number of threads instead of the run's."""
        return environment(threads or self.threads)

    @property
    def budget(self) -> float:
        """Seconds of sampling for a case, all sides together."""
        return 0.6 if self.quick else 6.0

    @property
    def patience(self) -> float:
        return 30.0 if self.quick else 300.0

    def samples_wanted(self, slowest: float) -> int:
        """The minimum number of samples of each side, however long they take."""
        if self.quick:
            return 3 if slowest < 0.3 else 1
        return 5 if slowest < 2 else 3 if slowest < 10 else 1


@dataclass
class Contestant:
    """One side of a case: its process, its first answer, its samples."""

    side: Side
    answer: dict[str, np.ndarray]
    facts: dict[str, Any]
    repeat: int
    first: float
    warm: float
    samples: list[float]

    def sample(self) -> None:
        time.sleep(PAUSE)
        self.samples.append(self.side.ask(do="sample", repeat=self.repeat, awake=self.warm <= WAKE)["seconds"])
        self.side.hold()  # otherwise its threads could keep spinning and slow the next side


class SuiteRun:
    """Runs the cases of one suite, and keeps its peers' processes from case to case."""

    def __init__(self, suite: str, settings: Settings) -> None:
        self.suite, self.settings = suite, settings
        self.peers: dict[tuple[str, int | None], Side | str] = {}

    def __enter__(self) -> SuiteRun:
        return self

    def __exit__(self, *_: object) -> None:
        for side in self.peers.values():
            if isinstance(side, Side):
                side.close()

    def peer_side(self, peer: Peer, threads: int | None) -> Side:
        """The peer's process. A peer that fails to import is tried only once; the reason is kept."""
        known = self.peers.get((peer.function, threads))
        if known is None or isinstance(known, Side) and known.process.poll() is not None:
            try:
                known = start_peer(self.suite, peer, self.settings.environment(threads), self.settings.patience)
            except Failed as reason:
                known = str(reason)
            self.peers[peer.function, threads] = known
        if isinstance(known, str):
            raise Failed(known)
        return known

    def prepare(self, side: Side, case: Case, inputs: Path, answer: Path) -> Contestant:
        side.ask(do="prepare", suite=self.suite, op=case.op, params=case.params, inputs=str(inputs))
        first = side.ask(do="answer", path=str(answer))
        # The first run is often slower than later ones. If that matters, another run decides how many make a sample.
        warm = first if first["seconds"] > 20 * SHORTEST_SAMPLE else side.ask(do="sample", repeat=1, awake=False)
        seconds = warm["seconds"]
        repeat = max(1, math.ceil(SHORTEST_SAMPLE / max(seconds, 1e-9)))
        arrays = safetensors.numpy.load_file(answer)
        return Contestant(side, arrays, first["facts"], min(repeat, 10_000), first["seconds"], seconds, [])

    def rows(self, case: Case) -> Iterator[Row]:
        """One row for each peer of the case, or one for ours alone."""
        with tempfile.TemporaryDirectory(prefix="wavemesh-bench-") as folder:
            yield from self._rows(case, Path(folder))

    def _rows(self, case: Case, folder: Path) -> Iterator[Row]:
        inputs = case.inputs()
        safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in inputs.items()}, folder / "inputs")
        rows = {peer.name: Row(case.name, case.size, peer.name, headline=case.headline and peer is case.peers[0]) for peer in case.peers}
        ours_side = start_ours(self.settings.binary, self.settings.environment(case.threads), self.settings.patience)
        try:
            ours = self.prepare(ours_side, case, folder / "inputs", folder / "ours")
        except Failed as reason:
            ours_side.close()
            yield Row(case.name, case.size, error=f"ours: {reason}", headline=case.headline)
            return
        theirs: dict[str, Contestant] = {}
        try:
            for peer in case.peers:
                row = rows[peer.name]
                try:
                    contestant = self.prepare(self.peer_side(peer, case.threads), case, folder / "inputs", folder / "theirs")
                    case.check(inputs, ours.answer, contestant.answer)
                    theirs[peer.name] = contestant
                except Failed as reason:
                    row.not_measured = str(reason)
                    self.end_case(peer, case.threads)
                except WrongAnswer as difference:
                    row.error = f"wrong answer: {difference}"
                    self.end_case(peer, case.threads)
            self.sample([ours, *theirs.values()])
            self.fill(case, rows, ours, theirs)
        except Failed as reason:
            for row in rows.values():
                row.error = row.error or f"while sampling: {reason}"
        finally:
            ours_side.close()
            for peer in case.peers:
                if peer.name in theirs:
                    self.end_case(peer, case.threads)
        yield from rows.values() if rows else [self.alone(case, ours)]

    def end_case(self, peer: Peer, threads: int | None) -> None:
        """Ends the child that holds a case; the peer's process is kept for the next case."""
        side = self.peers.get((peer.function, threads))
        if isinstance(side, Side) and side.process.poll() is None:
            try:
                side.ask(do="end")
            except Failed:
                side.close()

    def sample(self, contestants: list[Contestant]) -> None:
        """Takes samples in turn until there are enough and the time is used up. The first answer was the warm-up, and counts as a sample
        if one run takes longer than the whole budget."""
        slowest = max(contestant.first for contestant in contestants)
        wanted, start = self.settings.samples_wanted(slowest), time.perf_counter()
        if self.settings.quick and slowest > self.settings.budget:
            for contestant in contestants:
                contestant.samples.append(contestant.first)
            return
        while len(contestants[0].samples) < wanted or time.perf_counter() - start < self.settings.budget:
            for contestant in contestants:
                contestant.sample()
            if len(contestants[0].samples) >= 200:
                return

    def fill(self, case: Case, rows: dict[str, Row], ours: Contestant, theirs: dict[str, Contestant]) -> None:
        alone = self.alone(case, ours)
        for name, row in rows.items():
            row.ours, row.our_memory, row.our_facts, row.share = alone.ours, alone.our_memory, alone.our_facts, alone.share
            if name in theirs:
                contestant = theirs[name]
                row.theirs, row.their_facts = contestant.samples, contestant.facts
                row.their_memory = contestant.side.ask(do="memory")["above"]

    def alone(self, case: Case, ours: Contestant) -> Row:
        row = Row(case.name, case.size, ours=ours.samples, our_facts=ours.facts, headline=case.headline)
        if ours.side.process.poll() is None:
            row.our_memory = ours.side.ask(do="memory")["above"]
        if case.limit and ours.samples:
            least = max(case.limit.flops / self.settings.peak_flops, case.limit.bytes / self.settings.bandwidth)
            row.share = least / statistics.median(ours.samples)
        return row
