"""NaN is never swallowed, infinity goes where the formula sends it, and zero gradients make no NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rule_checks import DTYPES, start
from rule_contenders import Ours, Reference
from rule_lines import BY_NAME, ELEMENT_FORMS, LINES, Line

by_name = pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
on_both = pytest.mark.parametrize("backend", ["cpu", "torch"])
BOUNDED = ("adopt", "lion", "rprop", "sophia")
"""Rules whose step has a largest length, whatever the gradient."""
K = 5
"""The element that is made strange, of 40: one whole vector and a rest for every dtype."""


def check_nan_stays(line: Line, dtype: torch.dtype, backend: str, late: int = 0) -> None:
    """Assert that one NaN in one gradient makes that element NaN for good, and no other.

    `late` is by how many steps the rule's moves come late.
    """
    p, fresh = start(40, dtype)
    run = Ours(line, p, backend)
    for t in range(6):
        g = fresh()
        if t == 2:
            g[K] = torch.nan
        run.step(g)
        if t >= 2 + late:
            assert torch.isnan(run.p[K]), t
    others = torch.arange(40) != K
    assert torch.isfinite(run.p[others]).all()
    assert not torch.equal(run.p[others], p[others])


def check_zero_gradients_change_nothing(line: Line, backend: str, steps: int = 3) -> None:
    """Assert that without any gradient the parameter stays where it is."""
    p = torch.linspace(-2.0, 2.0, 40)
    run = Ours(line, p, backend)
    for _ in range(steps):
        run.step(torch.zeros(40))
    assert torch.equal(run.p, p), run.p


def check_steady_gradient_stays_finite(line: Line, steps: int = 2000) -> None:
    """Assert that gradients that hardly change make neither NaN nor infinity."""
    source = torch.Generator().manual_seed(0)
    run = Ours(line, torch.zeros(100))
    steady = torch.rand(100, generator=source) + 0.1
    for _ in range(steps):
        run.step(steady * (1 + 1e-4 * torch.randn(100, generator=source)))
    assert torch.isfinite(run.p).all()


@by_name
@on_both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_stays_nan(line: Line, backend: str, dtype: torch.dtype) -> None:
    check_nan_stays(line, dtype, backend)


@by_name
@on_both
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_gradient_does_what_the_formula_says(line: Line, backend: str, value: float) -> None:
    p, fresh = start(40, torch.float32)
    run, exact = Ours(line, p, backend), Reference(line, p)
    for t in range(3):
        g = fresh()
        if t == 2:
            g[K] = value
        run.step(g)
        exact.step(g)
    x, true = float(run.p[K]), float(exact.p[K])
    assert np.isnan(x) if np.isnan(true) else np.isclose(x, true, rtol=1e-5)
    assert not np.isfinite(x) or line.name in BOUNDED


@by_name
@on_both
def test_no_gradient_no_step(line: Line, backend: str) -> None:
    if {"weight_decay", "lambd"} & set(line.values):
        line = Line(line.rule, hypers={**line.hypers, "weight_decay": 0.0, "lambd": 0.0})
    check_zero_gradients_change_nothing(line, backend)


@pytest.mark.parametrize("line", ELEMENT_FORMS, ids=lambda line: line.name)
@on_both
def test_so_it_is_in_every_dialect(line: Line, backend: str) -> None:
    check_nan_stays(line, torch.float32, backend, late=line.name == "rprop (optax)")
    hypers = {**line.hypers, **dict.fromkeys({"weight_decay"} & set(line.values), 0.0)}
    check_zero_gradients_change_nothing(Line(line.rule, hypers=hypers), backend)


@on_both
def test_adamax_without_eps_rests_where_no_gradient_ever_was(backend: str) -> None:
    check_zero_gradients_change_nothing(Line(BY_NAME["adamax"].rule, hypers={"eps": 0.0}), backend)


@pytest.mark.parametrize("name", ["rmsprop_centered", "rmsprop_centered_momentum"])
def test_the_variance_of_a_steady_gradient_is_never_negative(name: str) -> None:
    check_steady_gradient_stays_finite(BY_NAME[name])


@by_name
def test_a_steady_gradient_is_no_trouble_to_any_rule(line: Line) -> None:
    check_steady_gradient_stays_finite(line, steps=200)


def test_an_average_that_overflows_is_loud() -> None:
    """v beyond the dtype's range makes p NaN at the next step, where torch's p would quietly stop moving."""
    line = BY_NAME["rmsprop"]
    run: Any = Ours(line, torch.ones(4))
    run.step(torch.full((4,), 1e30))
    assert torch.isinf(run.states["v"]).all()
    run.step(torch.ones(4))
    assert torch.isnan(run.p).all()
