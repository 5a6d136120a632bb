"""The checkers of this folder reject rules that are wrong: each is fed one it must not let pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rule_checks import check_agreement, check_run_accuracy, check_step_accuracy
from rule_lines import BY_NAME, Line
from test_rules_edges import (
    check_nan_stays,
    check_steady_gradient_stays_finite,
    check_zero_gradients_change_nothing,
)
from test_rules_limits import check_same_bits, check_same_path

from descend.formula import Hyper, Rule, State, rule_of
from descend.formula.vocabulary import abs, maximum, sqrt, where

LR, BETA1, BETA2, EPS = Hyper(1e-3), Hyper(0.9), Hyper(0.999), Hyper(1e-8)


def in_place_of(name: str, formula: object) -> Line:
    """The line of a rule with a broken formula in its place."""
    return replace(BY_NAME[name], rule=formula if isinstance(formula, Rule) else rule_of(formula))  # type: ignore[arg-type]


def no_bias_correction(
    p, g, t, m=State("exp_avg"), v=State("exp_avg_sq"), lr=LR, beta1=BETA1, beta2=BETA2, eps=EPS
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    p = p - lr * m / (sqrt(v) + eps)
    return p, m, v


def eps_in_the_root(
    p, g, t, m=State("exp_avg"), v=State("exp_avg_sq"), lr=LR, beta1=BETA1, beta2=BETA2, eps=EPS
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    p = p - lr * (m / (1 - beta1**t)) / sqrt(v / (1 - beta2**t) + eps)
    return p, m, v


def dampened_first_buffer(p, g, b=State("momentum_buffer"), lr=LR, momentum=Hyper(0.9), dampening=Hyper(0.1)):
    b = momentum * b + (1 - dampening) * g
    p = p - lr * b
    return p, b


def loses_digits(p, g, lr=LR):
    p = (p + 100) - lr * g - 100
    return p


def swallows_nan(p, g, lr=LR):
    p = p - lr * where(g > 0, g, where(g < 0, g, 0))
    return p


def divides_by_zero(
    p, g, t, m=State("exp_avg"), u_inf=State("exp_inf"), lr=LR, beta1=BETA1, beta2=BETA2, eps=EPS
):
    m = beta1 * m + (1 - beta1) * g
    u_inf = maximum(beta2 * u_inf, abs(g) + eps)
    p = p - lr / (1 - beta1**t) * m / u_inf
    return p, m, u_inf


def unclamped(p, g, v=State("square_avg"), m=State("grad_avg"), lr=LR, alpha=Hyper(0.99), eps=EPS):
    v = alpha * v + (1 - alpha) * g**2
    m = alpha * m + (1 - alpha) * g
    p = p - lr * g / (sqrt(v - m**2) + eps)
    return p, v, m


@pytest.mark.parametrize(
    ("name", "formula"),
    [("adam", no_bias_correction), ("adam", eps_in_the_root), ("momentum", dampened_first_buffer)],
    ids=lambda x: getattr(x, "__name__", x),
)
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_wrong_formula_does_not_agree_with_torch(name: str, formula: object, backend: str) -> None:
    with pytest.raises(AssertionError):
        check_agreement(in_place_of(name, formula), torch.float32, backend)


def test_lost_digits_are_seen() -> None:
    line = in_place_of("gradient_descent", loses_digits)
    with pytest.raises(AssertionError):
        check_agreement(line, torch.float32, "cpu")
    with pytest.raises(AssertionError):
        check_step_accuracy(line, torch.float32, 1000, 3)
    with pytest.raises(AssertionError):
        check_run_accuracy(line, torch.float32, 1000, 20)


def test_a_swallowed_nan_is_seen() -> None:
    with pytest.raises(AssertionError):
        check_nan_stays(in_place_of("gradient_descent", swallows_nan), torch.float32, "cpu")


def test_nan_out_of_nothing_is_seen() -> None:
    line = replace(in_place_of("adamax", divides_by_zero), hypers={"eps": 0.0})
    with pytest.raises(AssertionError):
        check_zero_gradients_change_nothing(line, "cpu")


def test_a_negative_variance_is_seen() -> None:
    with pytest.raises(AssertionError):
        check_steady_gradient_stays_finite(in_place_of("rmsprop_centered", unclamped))


def test_rules_that_differ_do_not_coincide() -> None:
    broken = in_place_of("adam", no_bias_correction)
    with pytest.raises(AssertionError):
        check_same_path(broken, BY_NAME["adam"])
    with pytest.raises(AssertionError):
        check_same_bits(broken, BY_NAME["adam"])
