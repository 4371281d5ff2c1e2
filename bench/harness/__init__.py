"""Measures WaveMesh and its peers in one run. A suite imports everything it needs from here."""

from .case import Case, Limit, Peer, Row, Work, WrongAnswer, close, peer

__all__ = ["Case", "Limit", "Peer", "Row", "Work", "WrongAnswer", "close", "peer"]
