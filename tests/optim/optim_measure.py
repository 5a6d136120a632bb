"""How far two optimizers are apart after a step from equal state, in ulps of the step's operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import descend
from descend.formula import Rule
from descend.kernels import reference

LIMIT = 4.0
"""Ulps that a step may differ from torch's: torch rounds in another order, and contracts other operations.

In half precision torch rounds after every operation, ours once; there it may be further off than ours is.
"""

NUDGE = 64
"""By how many ulps an operand is moved to see what one is worth: float64 has no digits left to show one."""


def numbers(x: torch.Tensor) -> Any:
    """A tensor as a float64 array; complex numbers as pairs."""
    x = x.detach()
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).double().numpy().copy()


def ulp(x: Any, dtype: torch.dtype) -> Any:
    """The distance between neighbours of `dtype` at the size of `x`."""
    info = torch.finfo(dtype)
    _, exponent = np.frexp(np.maximum(np.abs(x), info.tiny))
    return np.ldexp(1.0, exponent - 1) * info.eps


def unit_of(
    rule: Rule, hypers: dict[str, float], p: Any, g: Any, t: int, states: dict[str, Any], dtype: torch.dtype
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The exact results, and one ulp in each: what one ulp of every operand is worth there, and its own."""

    def results(moved: str | None = None) -> dict[str, Any]:
        operands = {"p": p, "g": g, **states}
        if moved is not None:
            operands[moved] = operands[moved] + NUDGE * ulp(operands[moved], dtype)
        new, found = reference.step(
            rule, operands["p"], operands["g"], t, {k: operands[k] for k in states}, hypers
        )
        return {"p": new, **found}

    true = results()
    unit = {word: ulp(value, dtype) for word, value in true.items()}
    elements = {s.name for s in rule.states if not s.scalar}
    for word in ("p", "g", *elements):
        for name, value in results(word).items():
            unit[name] = unit[name] + np.abs(value - true[name]) / NUDGE
    return true, unit


def distance(
    ours: descend.FormulaOptimizer,
    group: dict[str, Any],
    before: tuple[Any, Any, int, dict[str, Any]],
    after: tuple[torch.Tensor, dict[str, Any]],
    theirs: tuple[torch.Tensor, dict[str, Any]],
) -> tuple[float, float]:
    """The largest distance in p and the states after a step from `before` = (p, g, t, states by key).

    Between ours and theirs, and between ours and the float64 reference.
    """
    rule = ours._rule(group)
    hypers = dict(zip((h.name for h in rule.hypers), ours._values(rule)(group), strict=True))
    p, g, t, kept = before
    states = {}
    for s in rule.states:
        start = hypers[s.init] if isinstance(s.init, str) else s.init
        states[s.name] = kept.get(s.key, start if s.scalar else np.full_like(p, start))
    dtype = after[0].dtype.to_real() if after[0].is_complex() else after[0].dtype
    true, unit = unit_of(rule, hypers, p, g, t, states, dtype)
    pairs = {"p": (after[0], theirs[0])}
    pairs |= {s.name: (after[1][s.key], theirs[1][s.key]) for s in rule.states if not s.scalar}
    apart = wrong = 0.0
    for word, (a, b) in pairs.items():
        x, y = numbers(a), numbers(b)
        assert np.isfinite(x).all() == np.isfinite(y).all(), word
        if x.size:
            apart = max(apart, float(np.max(np.abs(x - y) / unit[word])))
            wrong = max(wrong, float(np.max(np.abs(x - true[word]) / unit[word])))
    return apart, wrong
