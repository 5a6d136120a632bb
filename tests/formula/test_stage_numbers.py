"""What staging refuses, and what the host computes where Python would leave the real numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import descend
from descend.errors import FormulaError
from descend.formula import rule_of, stage
from descend.formula.vocabulary import where
from descend.study import export


def rooted(p, g, power=0.5, base=4.0, lr=1.0):
    p = p - lr * base**power * g
    return p


def compared(p, g, power=0.5, base=4.0):
    p = p - where(base**power > 1, 1, 0) * g
    return p


@pytest.mark.parametrize(("base", "step"), [(4.0, 2.0), (-4.0, math.nan)])
def test_a_root_of_a_negative_number_is_nan(base: float, step: float) -> None:
    w = torch.nn.Parameter(torch.zeros(1))
    w.grad = torch.full((1,), -1.0)
    descend.optimizer(rooted)([w], base=base).step()
    assert w.item() == pytest.approx(step, nan_ok=True)


def turning(p, g, t, lr=1.0):
    p = p - lr * ((-1) ** t * g + (-2) ** 2 * g - 2**2 * g + (-g) ** 3)
    return p


@pytest.mark.parametrize("way", ["kernel", "torch", "exported"])
def test_a_negative_number_is_raised_to_a_power_as_a_whole(way: str) -> None:
    w = torch.zeros(1, requires_grad=True)
    if way == "torch":
        w = w.clone()  # differentiable steps are for what is no leaf
    w.grad = torch.full((1,), 2.0)
    if way == "exported":
        found: dict[str, Any] = {"__name__": "exported"}
        exec(export(turning), found)
        optimizer = found["Turning"]([w])
    else:
        optimizer = descend.optimizer(turning)([w], differentiable=way == "torch")
    places = []
    for _ in range(4):
        optimizer.step()
        places.append(w.item())
    assert places == [10.0, 16.0, 26.0, 32.0]  # steps of -(∓2 + 8 - 8 - 8)


def test_a_comparison_of_one_is_false() -> None:
    row, _ = stage(rule_of(compared)).scalars(1.0, 0.5, -4.0)
    assert 0.0 in [abs(x) for x in row]


def test_a_formula_that_changes_nothing_is_refused() -> None:
    def still(p, g, lr=0.1):
        x = p - lr * g  # noqa: F841
        return p

    with pytest.raises(FormulaError, match=r"nothing changes: p and the states are returned as they came"):
        descend.optimizer(still)
