"""Splitting off a held-out part: seeded, and stratified where there are classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError

Indices = NDArray[np.int64]


def check_fraction(validation: object) -> float:
    """The held-out share as a float in [0, 1).

    Raises:
        UsageError: it is no such number.
    """
    ok = isinstance(validation, (int, float)) and not isinstance(validation, bool)
    if not ok or not 0 <= validation < 1:  # type: ignore[operator]
        raise UsageError(
            f"validation={validation!r}: give the share to hold out, from 0 (none) to below 1, "
            "or a second source of the same kind"
        )
    return float(validation)  # type: ignore[arg-type]


def split(n: int, fraction: float, seed: int, labels: Indices | None = None) -> tuple[Indices, Indices]:
    """Row numbers of the training part and of the held-out part, each ascending.

    With `labels` (int64 [n], class numbers) every class is split in the same proportion, by largest
    remainders; a class with a single member stays in the training part. Uses NumPy's `RandomState`, whose
    stream is frozen.

    >>> train, held = split(10, 0.2, seed=0, labels=np.array([0] * 5 + [1] * 5))
    >>> len(train), [int(i) // 5 for i in held]
    (8, [0, 1])

    Raises:
        DataError: fewer than two samples, and a part is to be held out.
    """
    if n == 0:
        raise DataError("the data have no samples: give at least one row")
    if fraction == 0:
        return np.arange(n), np.arange(0)
    if n == 1:
        raise DataError(
            "the data have a single sample, which cannot be split into a training and a held-out part: "
            "give more rows, or pass validation=0 to train on it alone"
        )
    wanted = min(n - 1, max(1, round(n * fraction)))
    random = np.random.RandomState(seed % 2**32)
    if labels is None:
        held = random.permutation(n)[:wanted]
    else:
        held = _stratified(labels, wanted, fraction, random)
    chosen = np.zeros(n, dtype=bool)
    chosen[held] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _stratified(
    labels: Indices, wanted: int, fraction: float, random: np.random.RandomState
) -> NDArray[np.int64]:
    sizes = np.bincount(labels)
    exact = sizes * fraction
    room = np.maximum(sizes - 1, 0)
    take = np.minimum(np.floor(exact).astype(np.int64), room)
    for c in np.argsort(-(exact - take), kind="stable"):
        if take.sum() >= wanted:
            break
        take[c] += take[c] < room[c]
    parts = [random.permutation(np.flatnonzero(labels == c))[:k] for c, k in enumerate(take)]
    return np.concatenate(parts)
