"""The parts of a suite: cases, the peers that can run them, and the comparison of two answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


class WrongAnswer(Exception):
    """Our answer and a peer's differ: an error, whatever the time."""


@dataclass(frozen=True)
class Limit:
    """The least work of a case: floating-point operations, and bytes read or written once. The table shows how close the result comes."""

    flops: float = 0
    bytes: float = 0


@dataclass(frozen=True)
class Peer:
    """A peer: the function that prepares a case for it, and the modules that it needs; if they import, the peer is installed."""

    name: str
    modules: tuple[str, ...]
    package: str
    prepare: Callable[[PeerCase], Work]

    @property
    def function(self) -> str:
        return self.prepare.__name__


def peer(name: str, *modules: str, package: str | None = None) -> Callable[[Callable[[PeerCase], Work]], Peer]:
    """Decorates a suite's function `PeerCase -> Work`. `modules` are imported before the call; `package` is the name on PyPI (for the
    version), if it differs from `name`."""
    return lambda prepare: Peer(name, modules, package or name, prepare)


@dataclass
class PeerCase:
    """A case as a peer receives it: the same operation, parameters and arrays as `Case` in Rust."""

    op: str
    params: dict[str, Any]
    inputs: Arrays


@dataclass
class Work:
    """A prepared case of a peer. Only `run` is timed; `answer` turns its result into arrays, and `facts` into numbers for the table."""

    run: Callable[[], Any]
    answer: Callable[[Any], Arrays] = lambda result: result
    facts: Callable[[Any], dict[str, float]] = lambda result: {}


def close(tolerance: float) -> Callable[[Arrays, Arrays, Arrays], None]:
    """The usual check: arrays must be the same, whole numbers equal, other numbers within `tolerance` times the peer's largest
    magnitude."""

    def check(_inputs: Arrays, ours: Arrays, theirs: Arrays) -> None:
        if ours.keys() != theirs.keys():
            raise WrongAnswer(f"ours has {sorted(ours)}, the peer has {sorted(theirs)}")
        for name, want in theirs.items():
            got = ours[name]
            if got.shape != want.shape:
                raise WrongAnswer(f"{name}: our shape is {got.shape}, the peer's {want.shape}")
            if want.dtype.kind in "iub":
                if not np.array_equal(got, want):
                    raise WrongAnswer(f"{name}: {np.count_nonzero(got != want)} of {want.size} values differ")
                continue
            error = np.abs(got.astype(np.float64) - want).max(initial=0.0)
            allowed = tolerance * np.abs(want).max(initial=0.0)
            if not error <= allowed:
                raise WrongAnswer(f"{name}: differs by {error:.2e}, more than {allowed:.2e}")

    return check


@dataclass
class Case:
    """One line of the table. Both sides get `op`, `params` and `inputs`; `check(inputs, ours, theirs)` raises `WrongAnswer`."""

    name: str
    size: str
    op: str
    inputs: Callable[[], Arrays]
    params: dict[str, Any] = field(default_factory=dict)
    peers: tuple[Peer, ...] = ()
    check: Callable[[Arrays, Arrays, Arrays], None] = close(1e-4)
    limit: Limit | None = None
    headline: bool = False  # also in README's table, beside its first peer
    threads: int | None = None  # for both sides, instead of the run's number: for peers that are right with one thread only


@dataclass
class Row:
    """A measured line: times in seconds, memory in bytes, both sides' facts, or the reason why there is no measurement."""

    case: str
    size: str
    peer: str = ""
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    our_memory: int | None = None
    their_memory: int | None = None
    our_facts: dict[str, Any] = field(default_factory=dict)
    their_facts: dict[str, Any] = field(default_factory=dict)
    share: float | None = None  # of the limit; 1 means all of it
    not_measured: str = ""
    error: str = ""
    headline: bool = False
