"""When a descent stops, and why. "The loss falls no more" and "converged" are different reasons."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import UsageError, nearest

_TARGET = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*([-+0-9.eE]+)\s*")


@dataclass(frozen=True)
class Verdict:
    """A reason to stop, machine-readable and as a sentence."""

    reason: str
    explanation: str


@dataclass(frozen=True)
class Target:
    """A value that is good enough: `name` at or below (`<=`), or at or above (`>=`), `level`."""

    name: str
    sense: str
    level: float

    def reached(self, values: Mapping[str, float]) -> bool:
        """Whether `values` holds the quantity and it is good enough."""
        value = values.get(self.name)
        if value is None:
            return False
        return value <= self.level if self.sense == "<=" else value >= self.level

    def __str__(self) -> str:
        return f"{self.name} {self.sense} {self.level:g}"


def target(given: float | str, default: str, allowed: Iterable[str], sense: str = "<=") -> Target:
    """A number, for the quantity `default`; or a text such as `"validation_accuracy >= 0.98"`.

    >>> str(target("accuracy >= 0.98", "validation_loss", ["validation_loss", "validation_accuracy"]))
    'validation_accuracy >= 0.98'

    Raises:
        UsageError: neither, or a quantity that this descent does not have.
    """
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        found = Target(default, sense, float(given))
    else:
        match = _TARGET.fullmatch(str(given))
        try:
            if match is None:
                found = Target(default, sense, float(given))
            else:
                found = Target(match[1], match[2], float(match[3]))
        except (TypeError, ValueError):
            raise UsageError(
                f"target {given!r}: give a loss, as in 0.01, or a quantity and a level, as in "
                "'validation_accuracy >= 0.98'"
            ) from None
    names = list(allowed)
    if found.name not in names and f"validation_{found.name}" in names:
        found = Target(f"validation_{found.name}", found.sense, found.level)
    if found.name not in names:
        raise UsageError(
            f"target {given!r}: this descent has no {found.name!r}{nearest(found.name, names)}; "
            f"it has {', '.join(names)}"
        )
    if not math.isfinite(found.level):
        raise UsageError(f"target {given!r}: the level must be a finite number")
    return found


@dataclass(frozen=True)
class Stop:
    """The conditions to stop under; None is no such condition.

    Attributes:
        steps, epochs, minutes: limits. The time counts all parts of a resumed run.
        tolerance: "converged" once the norm of the full-batch gradient is at or below it.
        patience: "no_progress" after this many epochs (steps of `minimize`) without a lower loss.
        min_change: a loss counts as lower when it falls by more than this part of the best one.
        target: good enough.
    """

    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    tolerance: float | None = None
    patience: int | None = None
    min_change: float = 1e-4
    target: Target | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "patience"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name}={value!r}: give a whole number from 1")
        for name in ("minutes", "tolerance", "min_change"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and math.isfinite(value) and value >= 0):
                raise UsageError(f"{name}={value!r}: give a number that is not negative")
        if self.minutes == 0:
            raise UsageError("minutes=0: give more than none")

    def limit(self, step: int, epoch: int, seconds: float) -> Verdict | None:
        """The verdict of the three limits."""
        if self.steps is not None and step >= self.steps:
            return Verdict("step_limit", f"the limit of {_count(self.steps, 'step')} was reached")
        if self.epochs is not None and epoch >= self.epochs:
            return Verdict("epoch_limit", f"the limit of {_count(self.epochs, 'epoch')} was reached")
        if self.minutes is not None and seconds >= 60.0 * self.minutes:
            return Verdict("time_limit", f"the limit of {self.minutes:g} minutes was reached")
        return None

    def improved(self, value: float, best: float) -> bool:
        """Whether `value` is enough below `best` to count as progress."""
        return value < best - self.min_change * abs(best) if math.isfinite(best) else value < best

    def reached(self, values: Mapping[str, float]) -> Verdict | None:
        """The verdict of the target."""
        if self.target is None or not self.target.reached(values):
            return None
        value = values[self.target.name]
        return Verdict("target", f"the target was reached: {self.target.name} is {value:.6g} ({self.target})")

    def converged(self, norm: float) -> Verdict | None:
        """The verdict of the full-batch gradient's norm."""
        if self.tolerance is None or not norm <= self.tolerance:
            return None
        return Verdict(
            "converged", f"the full gradient's norm is {norm:.3g}, within the tolerance of {self.tolerance:g}"
        )

    def stalled(self, waited: int, what: str, unit: str) -> Verdict | None:
        """The verdict of the patience, after `waited` epochs or steps without a lower loss."""
        if self.patience is None or waited < self.patience:
            return None
        return Verdict("no_progress", f"the {what} has not fallen for {_count(waited, unit)}")


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
