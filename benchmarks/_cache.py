"""Whether the cache that cores share holds what a step works on, or is full of what other machines do."""

from __future__ import annotations

import statistics
import time

import torch

FITS = 6 << 20
"""Bytes that any such cache holds, and that are more than the cores' own hold."""

ASKED = 20 << 20
"""Bytes of a million parameters, their gradients and three states."""

HELD = 0.7
"""It holds them where they are rewritten at this share of the rate of what fits, at least."""


class SharedCache:
    """Rewrites memory of its own and notes how quickly that goes, as often as it is asked."""

    def __init__(self) -> None:
        self._small, self._large = (torch.ones(size // 4) for size in (FITS, ASKED))

        self._found: list[float] = []

    def probe(self) -> None:
        """Find the rate at which `ASKED` bytes are rewritten again and again over that of `FITS` bytes."""
        self._found.append(_rate(self._large) / _rate(self._small))

    def lacking(self) -> float:
        """How far what was found since the last time stays below what is `HELD`: 1 and less is enough."""
        found, self._found = statistics.median(self._found), []
        return HELD / found


def _rate(memory: torch.Tensor) -> float:
    """Bytes a second, over about a hundred million."""
    times = (5 * ASKED) // memory.nbytes
    memory.mul_(1.0)
    start = time.perf_counter()
    for _ in range(times):
        memory.mul_(1.0)
    return times * memory.nbytes / (time.perf_counter() - start)
