"""A run directory as the report wants it: its record, with the history as columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import record
from .words import real

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """One key of the history: `rows` int[K] says which records have it, `values` float[K] what they say."""

    rows: npt.NDArray[np.int64]
    values: Floats


@dataclass(frozen=True)
class Run:
    """A run directory, read. `columns` holds every number of the history but `steps` and `epochs`, each [N].

    `epochs` is None for a function, which has none, and unless every record has one.
    """

    path: Path
    label: str
    config: dict[str, Any]
    config_text: str
    data: dict[str, Any] | None
    steps: Floats
    epochs: Floats | None
    columns: dict[str, Column]
    result: dict[str, Any] | None
    surface: dict[str, Any] | None

    def setting(self, *keys: str) -> Any:
        """The value at a dotted place of the configuration, or None."""
        here: Any = self.config
        for key in keys:
            if not isinstance(here, dict) or key not in here:
                return None
            here = here[key]
        return here


def read(directory: str | os.PathLike[str]) -> Run:
    """Read a run directory; a run in progress, killed or diverged reads as well as a finished one.

    Raises:
        StorageError: `directory` is not a run directory, or a file in it is damaged.
    """
    found = record.read(directory)
    rows = [row for row in found.history if real(row.get("step")) is not None]
    fit = found.config.get("run", {}).get("kind") != "minimize"
    epochs = [row["epoch"] for row in rows if real(row.get("epoch")) is not None]
    return Run(
        path=found.path,
        label=found.path.resolve().name,
        config=found.config,
        config_text=(found.path / "config.toml").read_text(encoding="utf-8"),
        data=found.data,
        steps=np.asarray([row["step"] for row in rows], dtype=np.float64),
        epochs=np.asarray(epochs, dtype=np.float64) if fit and rows and len(epochs) == len(rows) else None,
        columns=_columns(rows),
        result=found.result,
        surface=found.surface,
    )


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, Column]:
    found: dict[str, tuple[list[int], list[float]]] = {}
    for place, row in enumerate(rows):
        for key, value in row.items():
            if key in ("step", "epoch"):
                continue
            number = value if type(value) is float else real(value)
            if number is not None:
                places, values = found.setdefault(key, ([], []))
                places.append(place)
                values.append(number)
    return {
        key: Column(np.asarray(places, dtype=np.int64), np.asarray(values, dtype=np.float64))
        for key, (places, values) in found.items()
    }


def labelled(runs: Sequence[Run]) -> list[Run]:
    """The runs with labels that tell them apart: as much of the path as that takes, else a number."""
    paths = [run.path.resolve().parts for run in runs]
    for depth in range(1, max(map(len, paths)) + 1):
        labels = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(labels)) == len(labels):
            break
    else:
        labels = [f"{parts[-1]} ({place})" for place, parts in enumerate(paths, 1)]
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]
