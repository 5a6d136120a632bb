"""What is found by running: the first step, invariances, and how a rule takes a quadratic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formula import Range, Rule
from .analyse_trial import Trial, defaults, guards

SHAPE = (4, 3)
GRADIENTS = np.array([10.0**k for k in range(-6, 7)])
"""Sizes of the gradient that the first step is taken at."""

_STEPS = 12
_FACTOR = 16.0
SMALL = 1e-6
"""Below this share of a step, a difference counts as none."""


def first_steps(rule: Rule) -> Any:
    """How far the first step moves p = 1 along a constant gradient, for each of GRADIENTS."""
    p = np.ones((len(GRADIENTS), *SHAPE))
    trial = Trial(rule, p, defaults(rule))
    moved = trial.step(GRADIENTS[:, None, None]) - 1.0
    return moved[:, 0, 0]


@dataclass(frozen=True)
class Answer:
    """What a change of scale or of coordinates does to the steps.

    They are multiplied by c to the power of `factor`, 0, 1 or -1; None for neither. `apart` is the largest
    difference that was left, as a share of the largest step; `of_guards` whether it is so only as far as the
    guards (`eps`) are small.
    """

    factor: float | None
    apart: float
    of_guards: bool = False


def scaled(rule: Rule, p_by: float, g_by: float, without: tuple[str, ...] = ()) -> Answer:
    """The steps where p is multiplied by c**p_by and g by c**g_by, over those where they are not.

    c is 16; what is found must hold for 1/16 too, lest a bound is met on one side only, as by a clipped norm.
    """
    hypers = {**defaults(rule), **dict.fromkeys(without, 0.0)}
    bare = _guarded(rule, hypers, 1e-9)

    def steps(c: float, values: Mapping[str, float]) -> Any:
        p, gs = _problem()
        return _steps(rule, p * c**p_by, [g * c**g_by for g in gs], values)

    for given in (hypers, bare):
        one, other = steps(1.0, given), steps(_FACTOR, given)
        apart, k = min((_apart(other, one * _FACTOR**k), k) for k in (0.0, 1.0, -1.0))
        if apart < SMALL:
            below = _apart(steps(1 / _FACTOR, bare), steps(1.0, bare) * _FACTOR**-k)
            return Answer(k, apart, given is bare) if below < SMALL else Answer(None, below)
    return Answer(None, apart)


def _guarded(rule: Rule, hypers: Mapping[str, float], shrink: float) -> dict[str, float]:
    """The hyper-parameters, with what only keeps a division from zero made smaller where it may be."""
    small = {word: hypers[word] * shrink for word in guards(rule)}
    return {**hypers, **{word: x for word, x in small.items() if Range(rule.hyper(word).allowed).holds(x)}}


def turned(rule: Rule, how: str) -> float:
    """How far the steps are from equivariant, as a share of the largest: 0 if coordinates do not matter.

    `how` is "sign", "rotation" of all coordinates, "elements" or "rows and columns" changing places,
    "sides" (the matrix turned from both sides), or "shift" of p alone.
    """
    p, gs = _problem()
    random = np.random.default_rng(5)
    if how == "shift":
        return _apart(_steps(rule, p + 3.0, gs, defaults(rule)), _steps(rule, p, gs, defaults(rule)))
    move = _movement(how, random)
    one = np.stack([move(step) for step in _steps(rule, p, gs, defaults(rule))])
    return _apart(_steps(rule, move(p), [move(g) for g in gs], defaults(rule)), one)


def _movement(how: str, random: Any) -> Any:
    n = SHAPE[0] * SHAPE[1]
    if how == "sign":
        return np.negative
    if how == "elements":
        places = random.permutation(n)
        return lambda x: x.ravel()[places].reshape(SHAPE)
    if how == "rows and columns":
        rows, columns = random.permutation(SHAPE[0]), random.permutation(SHAPE[1])
        return lambda x: x[rows][:, columns]
    if how == "sides":
        left, right = (np.linalg.qr(random.standard_normal((side, side)))[0] for side in SHAPE)
        return lambda x: left @ x @ right
    whole = np.linalg.qr(random.standard_normal((n, n)))[0]
    return lambda x: (whole @ x.ravel()).reshape(SHAPE)


def _problem() -> tuple[Any, list[Any]]:
    random = np.random.default_rng(2)
    return random.standard_normal(SHAPE), list(random.standard_normal((_STEPS, *SHAPE)))


def _steps(rule: Rule, p: Any, gs: list[Any], hypers: Mapping[str, Any]) -> Any:
    """The changes of p along given gradients [steps, rows, columns]."""
    trial = Trial(rule, p[None], hypers)
    points = [p, *(trial.step(g)[0] for g in gs)]
    return np.diff(np.stack(points), axis=0)


def _apart(found: Any, wanted: Any) -> float:
    size = np.max(np.abs(wanted))
    if not np.isfinite(size) or size == 0:
        return float("inf")
    return float(np.max(np.abs(found - wanted)) / size)


@dataclass(frozen=True)
class Quadratic:
    """How a rule takes h/2 * p**2 by running, for lr*h from `least` to `most`.

    `limit` is where it begins to leave every bound, None if it does not; `falls` whether it was still falling
    at the end somewhere; `cycles` the smallest and largest size, in lr, of the cycles that it ended in.
    """

    least: float
    most: float
    steps: int
    limit: float | None
    falls: bool
    cycles: tuple[float, float] | None


def on_quadratics(rule: Rule) -> Quadratic:
    """Run a rule on quadratics of curvatures from lr*h = 1e-3 to 1e6, long enough for it to forget."""
    memory = max((1 / (1 - h.default) for h in rule.hypers if 0.5 <= h.default < 1), default=1.0)
    most = 400 if rule.has_matrices else 4000 if rule.reduces else 24000
    steps = min(most, max(2000, round(24 * memory)))
    products = np.logspace(-3, 6, 10)
    grew, falls, size = descents(rule, products, steps)
    limit = None
    if grew.any():
        k = int(np.argmax(grew))
        low, high = (products[k - 1] if k else 0.0), products[k]
        for _ in range(4):
            between = np.linspace(low, high, 12)[1:]
            found, _, _ = descents(rule, between, min(steps, 2000))
            j = int(np.argmax(found)) if found.any() else len(between) - 1
            low, high = (between[j - 1] if j else low), between[j]
        limit = float(high)
    cycling = size[~falls & ~grew]
    cycles = (float(cycling.min()), float(cycling.max())) if len(cycling) else None
    return Quadratic(float(products[0]), float(products[-1]), steps, limit, bool(falls.any()), cycles)


def descents(rule: Rule, products: Any, steps: int) -> tuple[Any, Any, Any]:
    """For every product of rate and curvature: whether it grew, whether it falls, its last size in lr."""
    hypers = defaults(rule)
    lr = hypers.get("lr", 1.0)
    start = 20 * lr * np.array([[1.0, -0.7], [0.4, 0.9]])
    trial = Trial(rule, np.broadcast_to(start, (len(products), 2, 2)), hypers)
    h = (np.asarray(products) / lr)[:, None, None]
    first, part = np.abs(start).max(), steps // 12
    sizes = np.zeros((2, len(products)))
    with np.errstate(all="ignore"):
        for t in range(steps):
            trial.step(h * trial.p)
            window = 1 if t >= steps - part else 0 if t >= steps - 2 * part else None
            if window is not None:
                sizes[window] = np.maximum(sizes[window], np.abs(trial.p).max(axis=(1, 2)))
            elif t % 100 == 99 and not np.isfinite(trial.p).any():
                sizes[:] = np.inf
                break
        before, last = sizes
        grew = ~(last < 1e3 * first)
        falls = ~grew & ((last < 1e-6 * first) | (last < 0.8 * before))
    return grew, falls, last / lr
