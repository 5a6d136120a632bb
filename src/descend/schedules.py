"""Schedules: a hyper-parameter as a pure function of the step, counted from 0.

A schedule is a frozen dataclass that one calls with a step. Its text is its own constructor in words, and
reads back:

>>> cosine = parse("cosine", base=0.1, total=100)
>>> str(cosine)
'cosine(0.1, total=100, end=0.0)'
>>> parse(str(cosine)) == cosine
True
>>> round(cosine(50), 6)
0.05
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from .errors import UsageError


def need(ok: bool, message: str) -> None:
    """Raises a UsageError unless `ok`."""
    if not ok:
        raise UsageError(message)


@dataclass(frozen=True)
class Schedule(ABC):
    """A value for each step. Abstract; `value` is the height that a schedule starts from or rises to."""

    name: ClassVar[str] = ""
    value: float

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            numbers = given if isinstance(given, tuple) else (given,)
            for number in numbers:
                if isinstance(number, (int, float)):
                    need(math.isfinite(number), f"{self.name}: {field.name}={number} is not a finite number")
            if field.name in ("total", "every"):
                need(given >= 1, f"{self.name}: {field.name}={given} must be a number of steps from 1")
        self._check()

    def _check(self) -> None:  # noqa: B027
        """Further conditions of one schedule."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The value at `step`, from 0. Past its end a schedule keeps its last value."""

    def __str__(self) -> str:
        shown = []
        for field in fields(self):
            given = getattr(self, field.name)
            if isinstance(given, tuple):
                given = "[" + ", ".join(map(str, given)) + "]"
            shown.append(f"{given}" if field.name in ("value", "then") else f"{field.name}={given}")
        return f"{self.name}({', '.join(shown)})"


@dataclass(frozen=True)
class Constant(Schedule):
    """Always `value`."""

    name: ClassVar[str] = "constant"

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class Step(Schedule):
    """`value`, multiplied by `factor` after every `every` steps (torch's StepLR)."""

    name: ClassVar[str] = "step"
    every: int
    factor: float = 0.1

    def __call__(self, step: int) -> float:
        return float(self.value * self.factor ** (step // self.every))


@dataclass(frozen=True)
class MultiStep(Schedule):
    """`value`, multiplied by `factor` from each of the steps `at` on (torch's MultiStepLR)."""

    name: ClassVar[str] = "multi-step"
    at: tuple[int, ...]
    factor: float = 0.1

    def _check(self) -> None:
        need(list(self.at) == sorted(set(self.at)), f"multi-step: at={list(self.at)} must rise")

    def __call__(self, step: int) -> float:
        return float(self.value * self.factor ** sum(step >= milestone for milestone in self.at))


@dataclass(frozen=True)
class Exponential(Schedule):
    """`value * factor**step` (torch's ExponentialLR)."""

    name: ClassVar[str] = "exponential"
    factor: float

    def __call__(self, step: int) -> float:
        return float(self.value * self.factor**step)


@dataclass(frozen=True)
class InverseTime(Schedule):
    """`value / (1 + rate * step)`: the 1/t decay of Robbins and Monro (1951)."""

    name: ClassVar[str] = "inverse-time"
    rate: float

    def _check(self) -> None:
        need(self.rate >= 0, f"inverse-time: rate={self.rate} must not be negative")

    def __call__(self, step: int) -> float:
        return self.value / (1.0 + self.rate * step)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From `value` to `end` in `total` steps, as `(1 - step/total)**power` (torch's PolynomialLR, end 0)."""

    name: ClassVar[str] = "polynomial"
    total: int
    power: float = 1.0
    end: float = 0.0

    def __call__(self, step: int) -> float:
        left = 1.0 - min(step, self.total) / self.total
        return float(self.end + (self.value - self.end) * left**self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From `value` to `end` along half a cosine, in `total` steps.

    Loshchilov and Hutter (2017), without their restarts; torch's CosineAnnealingLR in closed form.
    """

    name: ClassVar[str] = "cosine"
    total: int
    end: float = 0.0

    def __call__(self, step: int) -> float:
        return _cosine(self.value, self.end, min(step, self.total) / self.total)


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * part))


@dataclass(frozen=True)
class Warmup(Schedule):
    """From `start` in a straight line to the first value of `then`, in `steps` steps; then `then` begins.

    Step `s` of the warm-up is at `(s + 1) / (steps + 1)` of the way, so that no step is wasted at 0.
    """

    name: ClassVar[str] = "warmup"
    then: Schedule
    steps: int
    start: float = 0.0

    def __init__(self, then: Schedule, steps: int, start: float = 0.0) -> None:
        need(isinstance(then, Schedule), f"warmup: {then!r} is no schedule; give the one that follows")
        for key, given in (("then", then), ("steps", steps), ("start", start), ("value", then.value)):
            object.__setattr__(self, key, given)
        self.__post_init__()

    def _check(self) -> None:
        need(self.steps >= 0, f"warmup: steps={self.steps} must not be negative")

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.then(step - self.steps)
        return self.start + (self.then(0) - self.start) * (step + 1) / (self.steps + 1)

    def __str__(self) -> str:
        return f"warmup({self.then}, steps={self.steps}, start={self.start})"


@dataclass(frozen=True)
class Chain(Schedule):
    """One schedule after another: `parts[i]` from step `at[i - 1]` on, counting from 0 again.

    As torch's SequentialLR.
    """

    name: ClassVar[str] = "chain"
    parts: tuple[Schedule, ...]
    at: tuple[int, ...]

    def __init__(self, parts: tuple[Schedule, ...], at: tuple[int, ...] = ()) -> None:
        need(
            bool(parts) and all(isinstance(part, Schedule) for part in parts),
            "chain: give schedules, and with at=[...] the steps at which the next one begins",
        )
        for key, given in (("parts", tuple(parts)), ("at", tuple(at)), ("value", parts[0].value)):
            object.__setattr__(self, key, given)
        self.__post_init__()

    def _check(self) -> None:
        need(
            len(self.at) == len(self.parts) - 1 and list(self.at) == sorted(set(self.at)),
            f"chain: {len(self.parts)} schedules need {len(self.parts) - 1} rising steps as at=, "
            f"got at={list(self.at)}",
        )

    def __call__(self, step: int) -> float:
        place = sum(step >= begin for begin in self.at)
        return self.parts[place](step - (self.at[place - 1] if place else 0))

    def __str__(self) -> str:
        return f"chain({', '.join(map(str, self.parts))}, at=[{', '.join(map(str, self.at))}])"


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From `start` to `value` in the part `rise` of `total` steps, then to `end`, along half a cosine each.

    Smith and Topin (2018). Where the text form leaves them out, start is value/25 and end start/10,000, as in
    torch's OneCycleLR. For a momentum give a start and end above the value.
    """

    name: ClassVar[str] = "one-cycle"
    total: int
    start: float
    end: float
    rise: float = 0.3

    def _check(self) -> None:
        need(0 < self.rise < 1, f"one-cycle: rise={self.rise} must lie between 0 and 1")

    def __call__(self, step: int) -> float:
        top = self.rise * self.total - 1.0
        last = self.total - 1.0
        if step < top:
            return _cosine(self.start, self.value, step / top)
        part = 1.0 if last <= max(top, 0.0) else (min(step, last) - max(top, 0.0)) / (last - max(top, 0.0))
        return _cosine(self.value, self.end, part)


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """Up in `warmup` steps, level, and in the last `decay` of `total` steps in a straight line to `end`.

    Hu et al. (2024), MiniCPM. The warm-up never takes 0, as in `Warmup`.
    """

    name: ClassVar[str] = "warmup-stable-decay"
    total: int
    warmup: int
    decay: int
    end: float = 0.0

    def _check(self) -> None:
        need(
            self.warmup >= 0 and self.decay >= 0 and self.warmup + self.decay <= self.total,
            f"warmup-stable-decay: warmup={self.warmup} and decay={self.decay} must fit in "
            f"total={self.total}",
        )

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.value * (step + 1) / (self.warmup + 1)
        into = step - (self.total - self.decay)
        if into <= 0 or not self.decay:
            return self.value
        return self.value + (self.end - self.value) * min(1.0, into / self.decay)


@dataclass(frozen=True)
class PlateauState:
    """What a plateau schedule remembers: the factor so far, the best loss, epochs without a better one."""

    scale: float = 1.0
    best: float = math.inf
    waited: int = 0
    resting: int = 0


@dataclass(frozen=True)
class Plateau(Schedule):
    """`value`, multiplied by `factor` once the loss has not fallen for more than `patience` epochs.

    A loss counts as lower when it is below `best * (1 - threshold)` (for a negative best, below
    `best * (1 + threshold)`). After each cut `cooldown` epochs do not count. The value stays above `low`.
    As torch's ReduceLROnPlateau. The schedule itself has no state: `seen` turns a state and a loss into the
    next state.
    """

    name: ClassVar[str] = "plateau"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    low: float = 0.0

    def _check(self) -> None:
        need(0 < self.factor < 1, f"plateau: factor={self.factor} must lie between 0 and 1")
        need(self.patience >= 0, f"plateau: patience={self.patience} must not be negative")

    def __call__(self, step: int, state: PlateauState | None = None) -> float:
        scale = state.scale if state else 1.0
        return max(self.low, self.value * scale) if scale < 1.0 else self.value

    def seen(self, state: PlateauState, loss: float) -> PlateauState:
        """The state after an epoch that ended with `loss`.

        >>> plateau = Plateau(0.1, factor=0.5, patience=0)
        >>> plateau(9, plateau.seen(plateau.seen(PlateauState(), 1.0), 1.0))
        0.05
        """
        margin = 1.0 - self.threshold if state.best >= 0 else 1.0 + self.threshold
        if loss < state.best * margin:
            state = replace(state, best=loss, waited=0)
        else:
            state = replace(state, waited=state.waited + 1)
        if state.resting > 0:
            state = replace(state, resting=state.resting - 1, waited=0)
        if state.waited > self.patience:
            state = replace(state, scale=state.scale * self.factor, waited=0, resting=self.cooldown)
        return state


KINDS: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (
        Constant,
        Step,
        MultiStep,
        Exponential,
        InverseTime,
        Polynomial,
        Cosine,
        Warmup,
        Chain,
        OneCycle,
        WarmupStableDecay,
        Plateau,
    )
}


def names() -> list[str]:
    """The names of all schedules."""
    return list(KINDS)


def parse(text: str, base: float | None = None, total: int | None = None) -> Schedule:
    """The schedule that a text names: `"cosine"`, `"step(0.1, every=100)"`, `"warmup(cosine, steps=5%)"`.

    What the text leaves out comes from `base` (the value to start from), from `total` (the number of
    steps of the run), or from the schedule's own rule of thumb, which `docs/schedules.md` lists. `5%` is
    a share of `total`.

    Raises:
        UsageError: an unknown schedule or argument, or one that needs a `base` or `total` that is not known.
    """
    from ._schedule_text import read

    return read(text, base, total)
