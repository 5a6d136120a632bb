"""Where a descent writes: rows of history, checkpoints when they are due. Without a place, only memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import record
from . import checkpoint
from .exact import Progress

Tree = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a new run is written: the directory, the content of its config.toml and data.json, more files."""

    path: Path
    config: Mapping[str, Any]
    data: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


class Recorder:
    """Writes for one descent.

    Attributes:
        directory: the run directory once the descent has begun, or None.
        history: the rows so far.
        resumes: of each resume the step, whether it was exact, and why not.
    """

    def __init__(self, place: Place | None, every: checkpoint.Every | None) -> None:
        self.place = place
        self.every = every
        self.directory: record.RunDirectory | None = None
        self.history: list[dict[str, Any]] = []
        self.resumes: list[dict[str, Any]] = []
        self._saved_step = -1
        self._saved_at = 0.0

    @property
    def length(self) -> int:
        """Bytes of history on disk."""
        return self.directory.length if self.directory else 0

    def begin(self, capture: Callable[[], Tree]) -> None:
        """Makes the run directory, with the first checkpoint in it; a resumed run has one already."""
        self._saved_at = time.monotonic()
        if self.place is None or self.directory is not None:
            return

        def first(directory: Path) -> None:
            checkpoint.save(directory, 0, capture())

        self.directory = record.RunDirectory.create(
            self.place.path, self.place.config, self.place.data, first, self.place.files
        )
        self._saved_step = 0

    def adopt(self, directory: record.RunDirectory) -> tuple[int, Tree, list[str]]:
        """Takes an existing run directory back to its last sound checkpoint: what `checkpoint.load` gives.

        Raises:
            StorageError: there is none.
        """
        checkpoint.clean(directory.checkpoints)
        step, tree, damaged = checkpoint.load(directory.checkpoints)
        directory.truncate(int(tree["history"]))
        directory.remove("result.json")
        self.directory, self._saved_step = directory, step
        self.history = record.read(directory.path).history
        earlier = record.read_json(directory.path / "resumes.json") or {"resumes": []}
        self.resumes = list(earlier["resumes"])
        return step, tree, damaged

    def resumed(self, how: dict[str, Any]) -> None:
        """Notes a resume at once: another kill must not make it forgotten."""
        self.resumes.append(how)
        assert self.directory is not None
        self.directory.write("resumes.json", record.pretty({"resumes": self.resumes}))

    def log(self, row: dict[str, Any]) -> None:
        """Adds a row to the history."""
        self.history.append(row)
        if self.directory is not None:
            self.directory.append(row)

    def due(self, progress: Progress) -> bool:
        """Whether a checkpoint is due after this step."""
        if self.every is None or self.directory is None:
            return False
        if self.every.unit == "steps":
            return progress.step % self.every.number == 0
        if self.every.unit == "epochs":
            return progress.position == 0 and progress.epoch % self.every.number == 0
        return time.monotonic() - self._saved_at >= self.every.number

    def save(self, step: int, capture: Callable[[], Tree]) -> bool:
        """Writes a checkpoint, unless this step's is there already or there is no place for one."""
        if self.directory is None or self._saved_step == step:
            return False
        self.directory.sync()
        checkpoint.save(self.directory.checkpoints, step, capture())
        self._saved_step, self._saved_at = step, time.monotonic()
        return True

    def close(self) -> None:
        """Lets go of the run directory."""
        if self.directory is not None:
            self.directory.close()
