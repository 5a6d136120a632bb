"""Which other rules a rule coincides with, at which hyper-parameters: found by running all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations
from typing import Any

import numpy as np

from ..formula import Hyper, Range, Rule
from ..formula.nodes import COMPARISON, walk
from ..kernels import reference
from .analyse_trial import GUARDS, Trial, guards

_STEPS = 8
_SHAPE = (3, 4)
_EQUAL = 1e-11
_VERY_LARGE = 1e30

Setting = tuple[tuple[str, str, float], ...]
"""Hyper-parameters at special values: whose ("own" or "other"), the name and the value."""


@dataclass(frozen=True)
class Coincidence:
    """With what settings a rule takes the same steps as another.

    `own` and `other` are special values of the two; hyper-parameters of one name are equal in both, and
    `called` pairs those that are equal under two names. Where `factor` is not "1", the steps are the other's
    at its lr times that.
    """

    rule: str
    own: tuple[tuple[str, float], ...]
    other: tuple[tuple[str, float], ...]
    called: tuple[tuple[str, str], ...]
    factor: str

    def __str__(self) -> str:
        said = [f"{word} = {_number(value)}" for word, value in self.own]
        said += [f"its {word} = {_number(value)}" for word, value in self.other]
        fixed = dict(self.own)
        for mine, theirs in self.called:
            said.append(f"its {theirs} = {_number(fixed[mine]) if mine in fixed else mine}")
        said += [f"its lr = {self.factor}"] if self.factor != "lr" else []
        return f"{self.rule}{' where ' if said else ', always'}{', '.join(said)}"


def coincidences(rule: Rule, others: Iterable[Rule]) -> list[Coincidence]:
    """The settings of fewest special values at which each other rule takes the same steps.

    A match is found on random gradients at two sets of hyper-parameters away from their defaults, and then
    held to the float64 reference.
    """
    found: list[Coincidence] = []
    for other in others:
        if other.name != rule.name and _alike(rule, other):
            found += _between(rule, other)
    return sorted(found, key=lambda one: (len(one.own) + len(one.other), one.rule))


def _alike(rule: Rule, other: Rule) -> bool:
    """Whether both can run here: they take lr, and whole matrices are left to themselves."""
    return all(
        not one.has_matrices
        and any(h.name == "lr" for h in one.hypers)
        and not any(n.op == "key" for n in walk(one.outputs.values()))
        for one in (rule, other)
    )


def _between(rule: Rule, other: Rule) -> list[Coincidence]:
    mine, theirs = ({h.name: h for h in one.hypers} for one in (rule, other))
    free = [w for w in theirs if w not in mine]
    spare = [w for w in mine if w not in theirs]
    best: list[Coincidence] = []
    fewest = 3
    for called in _pairings(mine, theirs, spare, free):
        settings = _settings(rule, other, dict(called))
        pairs = [_values(rule, other, setting, called) for setting in settings]
        a, b = [own for own, _ in pairs], [values for _, values in pairs]
        ratio = _compared(rule, other, a, b)
        for k in np.flatnonzero(np.isfinite(ratio)):
            one = _checked(rule, other, settings[k], called, a[k], b[k], float(ratio[k]))
            size = len(settings[k])
            if one is None or size > fewest:
                continue
            if size < fewest:
                best, fewest = [], size
            best.append(one)
    plain = [one for one in best if not one.called and one.factor == "lr"]
    return (plain or best)[:1]


def _pairings(
    mine: Mapping[str, Hyper], theirs: Mapping[str, Hyper], spare: Sequence[str], free: Sequence[str]
) -> list[tuple[tuple[str, str], ...]]:
    """Ways to call hyper-parameters of one what those of the other are called."""
    found: list[tuple[tuple[str, str], ...]] = [()]
    for size in range(1, min(len(spare), len(free), 2) + 1):
        for own in combinations(spare, size):
            for other in permutations(free, size):
                pairs = tuple(zip(own, other, strict=True))
                if all(_average(mine[a]) and _average(theirs[b]) for a, b in pairs):
                    found.append(pairs)
    return found


def _average(h: Hyper) -> bool:
    """Whether a hyper-parameter is how much of something is kept."""
    return 0.5 <= h.default < 1 and Range(h.allowed).holds(0.5)


def _settings(rule: Rule, other: Rule, called: Mapping[str, str]) -> list[Setting]:
    """Every choice of at most two special values, or one where names are paired too; none of them first."""
    single: list[tuple[str, str, float]] = []
    shared = {h.name for h in rule.hypers}
    for h in rule.hypers:
        single += [("own", h.name, value) for value in _special(h)]
    for h in other.hypers:
        if h.name not in shared and h.name not in called.values():
            single += [("other", h.name, value) for value in _special(h)]
    pairs = [pair for pair in combinations(single, 2) if pair[0][:2] != pair[1][:2] and not called]
    return [(), *((one,) for one in single), *pairs]


def _special(h: Hyper) -> list[float]:
    """0, 1 and the ends of the range, one that is open upwards very far away; of a guard (`eps`) only 0."""
    if h.name == "lr":
        return []
    allowed = Range(h.allowed)
    if h.name.startswith(GUARDS):
        return [0.0] if allowed.holds(0.0) else []
    ends = [0.0, 1.0, allowed.low, _VERY_LARGE if math.isinf(allowed.high) else allowed.high]
    return [value for value in dict.fromkeys(ends) if math.isfinite(value) and allowed.holds(value)]


def _values(
    rule: Rule, other: Rule, setting: Setting, called: Sequence[tuple[str, str]]
) -> tuple[dict[str, float], dict[str, float]]:
    """The hyper-parameters of both rules under a setting."""
    own = {**_generics(rule), **{word: value for whose, word, value in setting if whose == "own"}}
    values = _generics(other)
    values |= {word: value for word, value in own.items() if word in values}
    values |= {theirs: own[mine] for mine, theirs in called}
    values |= {word: value for whose, word, value in setting if whose == "other"}
    return own, values


@cache
def _generic_values(rule: Rule) -> tuple[tuple[str, float], ...]:
    return tuple((h.name, _generic(h, rule)) for h in rule.hypers)


def _generics(rule: Rule) -> dict[str, float]:
    """Every hyper-parameter at a value that is not special."""
    return dict(_generic_values(rule))


def _generic(h: Hyper, rule: Rule) -> float:
    """A value that is not special, so that what holds there holds for all."""
    if h.name == "lr":
        return 0.05
    if h.name in guards(rule):
        return 1e-3 * (1 + len(h.name) / 10)
    steps = any(
        n.op in COMPARISON and {"t", h.name} <= {leaf.word for leaf in walk([n]) if leaf.op == "name"}
        for n in walk(rule.outputs.values())
    )
    if steps:
        return 3.5
    allowed = Range(h.allowed)
    if _average(h):
        tried = [0.5 + 0.37 * math.modf(sum(map(ord, h.name)) * 0.618)[0]]
    else:
        tried = [h.default * 1.25, 0.15 + 0.01 * len(h.name), -0.3, h.default]
    return next(v for v in tried if allowed.holds(v) and v not in (0.0, 1.0, allowed.low, allowed.high))


def _compared(rule: Rule, other: Rule, a: list[dict[str, float]], b: list[dict[str, float]]) -> Any:
    """For every setting the factor between the steps of the two rules, NaN where there is none."""
    one, two = _paths(rule, a), _paths(other, b)
    with np.errstate(all="ignore"):
        scale = np.sum(one * two, axis=1) / np.sum(two * two, axis=1)
        apart = np.max(np.abs(one - scale[:, None] * two), axis=1) / np.max(np.abs(one), axis=1)
        moving = np.max(np.abs(one), axis=1) > 1e-9
    return np.where((apart < _EQUAL) & moving & (scale > 0), scale, np.nan)


def _paths(rule: Rule, values: list[dict[str, float]]) -> Any:
    """The changes of p under every setting [settings, steps x elements]."""
    random = np.random.default_rng(11)
    p = np.broadcast_to(random.standard_normal(_SHAPE), (len(values), *_SHAPE))
    sizes = 10.0 ** random.uniform(-1.5, 1, _STEPS)
    trial = Trial(rule, p, {word: np.array([v[word] for v in values]) for word in values[0]})
    points = [p, *(trial.step(size * random.standard_normal(_SHAPE)) for size in sizes)]
    with np.errstate(all="ignore"):
        return np.diff(np.stack(points, axis=1), axis=1).reshape(len(values), -1)


def _checked(
    rule: Rule,
    other: Rule,
    setting: Setting,
    called: Sequence[tuple[str, str]],
    a: dict[str, float],
    b: dict[str, float],
    ratio: float,
) -> Coincidence | None:
    """The coincidence where the reference confirms it, at another rate and other shared values too."""
    factor = _named_factor(ratio, a)
    if factor is None:
        return None
    fixed = {word for _, word, _ in setting}
    moved = {w: _moved(rule.hyper(w), v) if w not in fixed else v for w, v in a.items()}
    pair = {theirs: mine for mine, theirs in called}
    across = {w: moved.get(pair.get(w, w), v) if w not in fixed else v for w, v in b.items()}
    for own, others in ((a, b), (moved, across)):
        others = {**others, "lr": others["lr"] * factor[1](own)}
        if not _same(rule, other, own, others):
            return None
    return Coincidence(
        other.name,
        tuple((word, value) for whose, word, value in setting if whose == "own"),
        tuple((word, value) for whose, word, value in setting if whose == "other"),
        tuple(called),
        factor[0],
    )


def _moved(h: Hyper, value: float) -> float:
    for tried in (value * 0.9, value * 1.05):
        if Range(h.allowed).holds(tried):
            return tried
    return value


def _named_factor(ratio: float, own: Mapping[str, float]) -> tuple[str, Any] | None:
    """A factor between two rates as a formula of the hyper-parameters."""
    forms: list[tuple[str, Any]] = [("lr", lambda v: 1.0)]
    for word in own:
        if word != "lr":
            forms += [
                (f"lr*(1 - {word})", lambda v, w=word: 1 - v[w]),
                (f"lr/(1 - {word})", lambda v, w=word: 1 / (1 - v[w])),
                (f"lr*{word}", lambda v, w=word: v[w]),
                (f"lr/{word}", lambda v, w=word: 1 / v[w]),
            ]
    for form in forms:
        try:
            if abs(form[1](own) - ratio) < 1e-9 * ratio:
                return form
        except ZeroDivisionError:
            continue
    return None


def _same(rule: Rule, other: Rule, a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether the float64 reference takes the same steps, to 1e-12 of the largest."""
    random = np.random.default_rng(13)
    start = random.standard_normal(_SHAPE)
    gs = random.standard_normal((12, *_SHAPE))
    ends: list[Any] = []
    for one, hypers in ((rule, a), (other, b)):
        p, states = start, reference.initial_states(one, start, hypers)
        for t, g in enumerate(gs, 1):
            p, states = reference.step(one, p, g, t, states, hypers)
        ends.append(p)
    if not all(np.isfinite(end).all() for end in ends):
        return False
    size = np.max(np.abs(ends[0] - start))
    return bool(np.max(np.abs(ends[0] - ends[1])) <= 1e-12 * max(size, 1.0))


def _number(value: float) -> str:
    return "infinity" if value == _VERY_LARGE else f"{value:g}"
