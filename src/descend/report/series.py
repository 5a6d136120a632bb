"""History columns as what the page draws: thinned without losing an extreme, in few characters."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .read import Column, Floats, Run

# A run of up to this many records is drawn whole; a longer one by buckets.
WHOLE = 2000
BUCKETS = 300
DIGITS = 5

Rows = npt.NDArray[np.int64]


def short(value: float, digits: int = DIGITS) -> float | int | None:
    """A number in as few characters as `digits` significant digits need; None for what is not finite."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e15 else rounded


def shorts(values: Floats, digits: int = DIGITS) -> list[float | int | None]:
    return [short(value, digits) for value in values.tolist()]


def extremes(values: Floats, buckets: int) -> Rows:
    """Places in `values` [N] of the least and the greatest finite value in each of `buckets` equal parts,
    of the first and last value, and of both sides of every border between finite and non-finite.
    """
    size = len(values)
    keep = {0, size - 1}
    finite = np.isfinite(values)
    borders = np.flatnonzero(finite[1:] != finite[:-1])
    for border in borders[:buckets].tolist():
        keep.update((border, border + 1))
    edges = np.linspace(0, size, buckets + 1).astype(np.int64)
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = np.flatnonzero(finite[start:end])
        if len(part):
            inside = values[start:end][part]
            keep.add(start + int(part[inside.argmin()]))
            keep.add(start + int(part[inside.argmax()]))
    return np.asarray(sorted(keep), dtype=np.int64)


def packed(values: Floats) -> dict[str, Any] | list[float | int | None]:
    """An arithmetic progression as {"from", "by", "n"}, anything else as a list."""
    if len(values) > 2:
        by = (values[-1] - values[0]) / (len(values) - 1)
        if np.allclose(values, values[0] + by * np.arange(len(values)), rtol=1e-9, atol=1e-9):
            return {"from": float(values[0]), "by": float(by), "n": len(values)}
    return shorts(values, 8)


def drawn(run: Run, keys: Collection[str]) -> dict[str, Any]:
    """The curves `keys` of one run: {"step", "epoch", "series", "means", "of"}.

    A series that every kept record has is {"v": [...]}; one that fewer have is {"i": [...], "v": [...]},
    `i` being places in `step`. Of more than `WHOLE` records those are kept that hold an extreme of some
    series in its bucket. "means" then has the mean of each bucket, which smoothing works on, and "of" how
    many records there were.
    """
    count = len(run.steps)
    if not count:
        return {"step": [], "epoch": None, "series": {}, "means": None, "of": 0}
    columns = {key: column for key, column in run.columns.items() if key in keys}
    kept = np.arange(count)
    means = None
    if count > WHOLE:
        parts = [np.asarray([0, count - 1], dtype=np.int64)]
        for column in columns.values():
            few = len(column.rows) <= WHOLE // 4
            parts.append(column.rows if few else column.rows[extremes(column.values, BUCKETS)])
        kept = np.unique(np.concatenate(parts))
        means = _means(run, columns)
    series: dict[str, Any] = {}
    for key, column in columns.items():
        chosen = np.isin(column.rows, kept, assume_unique=True)
        rows, values = column.rows[chosen], column.values[chosen]
        series[key] = {"v": shorts(values) if varies(column) else packed(values)}
        if len(rows) < len(kept):
            series[key]["i"] = np.searchsorted(kept, rows).tolist()
    return {
        "step": packed(run.steps[kept]),
        "epoch": None if run.epochs is None else packed(run.epochs[kept]),
        "series": series,
        "means": means,
        "of": count if count > WHOLE else 0,
    }


def _means(run: Run, columns: Mapping[str, Column]) -> dict[str, Any]:
    edges = np.linspace(0, len(run.steps), BUCKETS + 1).astype(np.int64)
    sizes = np.diff(edges)

    def centres(values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, edges[:-1]) / sizes, dtype=np.float64)

    found: dict[str, Any] = {}
    for key, column in columns.items():
        if len(column.rows) == len(run.steps):
            found[key] = shorts(centres(column.values))
    return {
        "step": shorts(centres(run.steps), 8),
        "epoch": None if run.epochs is None else shorts(centres(run.epochs), 8),
        "series": found,
    }


def first_nonfinite(run: Run, key: str) -> int | None:
    """The step of the first record whose `key` is NaN or infinite, or None."""
    column = run.columns.get(key)
    if column is None:
        return None
    places = np.flatnonzero(~np.isfinite(column.values))
    return int(run.steps[column.rows[places[0]]]) if len(places) else None


def varies(column: Column) -> bool:
    """Whether a column holds more than one value."""
    return bool(len(column.values)) and not bool(np.all(column.values == column.values[0]))


def wants_log(values: Floats) -> bool:
    """Whether a logarithmic scale shows more: every finite value above zero, over more than 1.7 decades."""
    finite = values[np.isfinite(values)]
    return len(finite) > 1 and bool(finite.min() > 0) and bool(finite.max() / finite.min() > 50)
