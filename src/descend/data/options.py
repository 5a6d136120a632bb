"""What a caller asked of `load`, in one record that every loader reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .sources import Transform
from .split import check_fraction

SHARE = 0.2


@dataclass(frozen=True)
class Options:
    """The arguments of `load`; see there. `source` is the path or name, or None for an object in memory."""

    source: str | None = None
    target: str | None = None
    validation: Any = None
    seed: int = 0
    encoding: str | None = None
    task: str | None = None
    standardise: bool | None = None
    types: dict[str, str] | None = None
    image_size: tuple[int, int] | None = None
    transform: Transform | None = None

    @property
    def fraction(self) -> float:
        """The share to hold out where the data have no held-out part of their own."""
        return check_fraction(SHARE if self.validation is None else self.validation)

    @property
    def own_split(self) -> bool:
        """Whether a held-out part that the data bring along is to be used: unless a share was asked for."""
        return self.validation is None

    def validation_text(self) -> float | str | None:
        """The held-out share, the text that names a second source, or None for the default."""
        v = self.validation
        return (
            v
            if v is None
            else float(v)
            if isinstance(v, (int, float))
            else str(v)
            if _is_path(v)
            else "given"
        )

    def record(self) -> dict[str, Any]:
        """The arguments that load the same data again, as JSON."""
        return {
            "source": self.source,
            "target": self.target,
            "validation": self.validation_text(),
            "seed": self.seed,
            "encoding": self.encoding,
            "task": self.task,
            "standardise": self.standardise,
            "types": self.types,
            "image_size": list(self.image_size) if self.image_size else None,
        }

    def describe_split(self, train: int, held: int, stratified: bool, given: bool = False) -> str:
        """A sentence about the held-out part."""
        if not held:
            return f"{train} samples to learn from, none held out"
        if given:
            return f"{train} samples to learn from, {held} held out, given apart"
        how = ", stratified by class" if stratified else ""
        return f"{train} samples to learn from, {held} held out (seed {self.seed}{how})"


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike))
