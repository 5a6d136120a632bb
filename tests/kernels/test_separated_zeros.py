"""Rows and columns of zeros in means of squares that are taken by column first."""

import pytest
import torch
from test_separated import ADAFACTOR, both, parameters, stages_as, sum_of, zero_column, zero_row

import descend
from descend.formula import State, rule_of
from descend.formula.vocabulary import abs, maximum, mean, minimum, norm, sqrt


def zero_rows_and_columns(params):
    params[0].grad[[0, 70, 129]] = 0
    params[0].grad[:, [1, 699]] = 0


def lost_row(params):
    params[0].grad[3] *= 1e-30


def lost_column(params):
    params[0].grad[:, 3] *= 1e-30


@pytest.mark.parametrize("change", [zero_row, zero_column, zero_rows_and_columns, lost_row, lost_column])
def test_rows_and_columns_of_zeros_count_as_nothing(change, monkeypatch):
    least, past, plan = both(monkeypatch, ADAFACTOR, change, shapes=((130, 700), (70, 33)))
    assert not sum_of(plan).any()
    for a, b in zip(least, past, strict=True):
        assert torch.allclose(a, b, rtol=2e-6, atol=2e-6)


def bounded(name):
    """A rule with factors of rows and columns below a bound."""

    def inverse(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g * minimum(1 / sqrt(r) / sqrt(c), top)
        p = p - lr * x / norm(x)
        return p, r, c

    def negative(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g * minimum(1 / sqrt(r) / -sqrt(c), top)
        p = p - lr * x / norm(x)
        return p, r, c

    def beside(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g * minimum(1 / sqrt(r) / sqrt(c), top) / sqrt(r)
        p = p - lr * x / norm(x)
        return p, r, c

    def unknown(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + mean(g**2, "rows")
        c = c + mean(abs(g), "columns")
        x = g * minimum(1 / sqrt(r) / c, top)
        p = p - lr * x / norm(x)
        return p, r, c

    def scaled(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g * minimum(lr / sqrt(r) / sqrt(c), top)
        p = p - x / norm(x)
        return p, r, c

    def below(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + mean(g**2, "rows")
        c = c - mean(g**2, "columns")
        x = g * minimum(1 / sqrt(r) / c, top)
        p = p - lr * x / norm(x)
        return p, r, c

    def twice(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g * minimum(minimum(1 / sqrt(r) / sqrt(c), top), 6)
        p = p - lr * x / norm(x)
        return p, r, c

    def thresholds(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + maximum(mean(g**2, "rows") - 0.01, 0)
        c = c + maximum(mean(g**2, "columns") - 0.01, 0)
        x = g * minimum(1 / sqrt(r) / sqrt(c), top)
        p = p - lr * x / norm(x)
        return p, r, c

    return rule_of(locals()[name])


@pytest.mark.parametrize(
    ("rule", "hypers", "without", "used"),
    [
        *(("inverse", {"top": top}, True, top == 5) for top in (5.0, 1e18, 1e300)),
        *(("scaled", {"lr": lr}, True, lr == 0.1) for lr in (0.1, 1e-12, -0.1)),
        *((name, {}, True, False) for name in ("negative", "below", "beside", "twice")),
        ("inverse", {"top": -1.0}, False, False),
        ("unknown", {}, True, False),
        ("thresholds", {}, True, True),
    ],
)
@pytest.mark.parametrize("scale", [0, 0.05, 1e-12, 1e-22, 1])
@pytest.mark.parametrize("place", ["row", "column"])
def test_rows_and_columns_of_zeros_beside_other_factors_and_bounds(
    rule, hypers, without, used, scale, place, monkeypatch
):
    found = []
    for keep in ("least", "past"):
        stages_as(keep, monkeypatch)
        params = parameters(((64, 300),))
        params[0].data.zero_()
        params[0].grad[(3,) if place == "row" else (slice(None), 3)] *= scale
        optimizer = descend.optimizer(bounded(rule))(params, **hypers)
        optimizer.step()
        found.append(params[0].detach())
    (plan,) = optimizer._staged
    least, past = found
    assert torch.equal(least.isnan(), past.isnan())
    assert torch.allclose(least.nan_to_num(), past.nan_to_num(), rtol=2e-6, atol=0)
    if scale in (0, 1):
        assert (sum_of(plan)[0] == 0) == (used if scale == 0 else without)
