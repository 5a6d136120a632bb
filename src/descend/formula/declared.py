"""What a formula declares beside its lines: hyper-parameters with their ranges, and states."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..errors import UsageError


@dataclass(frozen=True)
class Range:
    """An interval as mathematics writes it: "[0, 1)".

    >>> Range("[0, 1)").holds(1.0)
    False
    """

    written: str

    @cached_property
    def _bounds(self) -> tuple[float, float, bool, bool]:
        low, high = self.written[1:-1].split(",")
        return float(low), float(high), self.written[0] == "[", self.written[-1] == "]"

    def holds(self, value: float) -> bool:
        """Whether `value` lies inside; NaN never does."""
        low, high, with_low, with_high = self._bounds
        return (low <= value if with_low else low < value) and (value <= high if with_high else value < high)

    @property
    def low(self) -> float:
        """The lower bound."""
        return self._bounds[0]

    @property
    def high(self) -> float:
        """The upper bound."""
        return self._bounds[1]

    def __str__(self) -> str:
        return self.written


@dataclass(frozen=True)
class Hyper:
    """A hyper-parameter: its default, the values it may take, and what it is.

    Outside `allowed` is an error; outside `sensible` (where given) a warning, or an error under `strict`.
    """

    default: float
    allowed: str = "(-inf, inf)"
    doc: str = ""
    sensible: str | None = None
    name: str = ""

    @property
    def low(self) -> float:
        """The lower end of the allowed range."""
        return Range(self.allowed).low

    @property
    def high(self) -> float:
        """The upper end of the allowed range."""
        return Range(self.allowed).high

    def check(self, value: float) -> str | None:
        """A sentence saying that `value` is not sensible, or None.

        Raises UsageError where it is not allowed at all.
        """
        if not Range(self.allowed).holds(value):
            raise UsageError(f"{self.name} must lie in {self.allowed}, got {value!r}")
        if self.sensible is not None and not Range(self.sensible).holds(value):
            return f"{self.name} = {value!r} is accepted but makes no sense; use a value in {self.sensible}"
        return None


@dataclass(frozen=True)
class State:
    """What a rule remembers of an element (or, with `scalar`, of a whole parameter) between steps.

    `key` is its name in the state dict, torch's where torch has the rule. `init` is a number, the name of
    a hyper-parameter, or "p" for the parameter as it was before the first step. `shape` is "element" for one
    number an element, "rows" or "columns" for one a row or column of a matrix, "left" for a matrix of
    rows x rows, "right" for one of columns x columns. `block` names the hyper-parameter that bounds the sides
    of the blocks into which a larger matrix is cut, each with a "left" and a "right" of its own; `limit` the
    one that bounds their size: a larger "left" or "right" is left out and stands for the identity.
    """

    key: str = ""
    init: float | str = 0.0
    doc: str = ""
    scalar: bool = False
    shape: str = "element"
    block: str = ""
    limit: str = ""
    name: str = ""
