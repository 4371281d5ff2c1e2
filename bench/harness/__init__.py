"""Measures WaveMesh and its peers in one run. A suite imports from here everything that it needs."""

from .case import Case, Limit, Peer, Row, Work, WrongAnswer, close, peer

__all__ = ["Case", "Limit", "Peer", "Row", "Work", "WrongAnswer", "close", "peer"]
