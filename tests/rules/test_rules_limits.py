"""Limits in which two rules coincide, and the forms of weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from rule_checks import start
from rule_contenders import Ours, Reference
from rule_lines import Line

from descend import rules
from descend.formula import Rule, chain
from descend.modifiers import ascent, coupled_decay, decoupled_decay, independent_decay


def line(rule: str | Rule, **hypers: float) -> Line:
    return Line(rules.get(rule) if isinstance(rule, str) else rule, hypers=hypers)


def path(one: Line, gradients: Iterable[Any], n: int = 40) -> list[Any]:
    """The reference's points, in float64, under given gradients."""
    run = Reference(one, start(n, torch.float64)[0])
    points = []
    for g in gradients:
        run.step(g)
        points.append(run.p)
    return points


def fresh(steps: int = 60, n: int = 40) -> list[Any]:
    source = np.random.default_rng(1)
    return list(source.standard_normal((steps, n)))


def check_same_path(one: Line, other: Line, gradients: Iterable[Any] | None = None) -> None:
    """Assert that two rules take the same path in float64, up to its roundings."""
    gradients = fresh() if gradients is None else list(gradients)
    for a, b in zip(path(one, gradients), path(other, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def check_same_bits(one: Line, other: Line, grow: float = 1.0, steps: int = 30) -> None:
    """Assert that two rules' kernels give the same bits."""
    p, draw = start(100, torch.float32)
    a, b = Ours(one, p), Ours(other, p)
    for t in range(steps):
        g = draw(grow**t) if grow == 1 else torch.full((100,), grow**t)
        a.step(g.clone())
        b.step(g.clone())
        assert torch.equal(a.p, b.p), t


SAME_BITS: list[tuple[Line, Line]] = [
    (line("momentum", momentum=0.0, lr=0.1), line("gradient_descent", lr=0.1)),
    (line("nesterov", momentum=0.0, lr=0.1), line("gradient_descent", lr=0.1)),
    (line("rmsprop_momentum", momentum=0.0), line("rmsprop")),
    (line("rmsprop_centered_momentum", momentum=0.0), line("rmsprop_centered")),
    (line("asgd", lambd=0.0, lr=0.1), line("gradient_descent", lr=0.1)),
]


@pytest.mark.parametrize(("one", "other"), SAME_BITS, ids=lambda x: x.name)
def test_a_rule_without_its_extra_is_the_simpler_rule_to_the_bit(one: Line, other: Line) -> None:
    check_same_bits(one, other)


def test_amsgrad_is_adam_while_v_grows() -> None:
    check_same_bits(line("amsgrad"), line("adam"), grow=1.1)


def test_amsgrad_leaves_adam_when_v_falls() -> None:
    with pytest.raises(AssertionError):
        check_same_bits(line("amsgrad"), line("adam"), grow=0.8)


SAME_PATH: list[tuple[str, Line, Line]] = [
    (
        "averages",
        line("ema_momentum", lr=0.01 / (1 - 0.9), beta=0.9),
        line("momentum", lr=0.01, momentum=0.9),
    ),
    ("adamw without decay", line("adamw", weight_decay=0.0), line("adam")),
    (
        "adamw",
        line("adamw", weight_decay=0.1),
        line(chain(decoupled_decay, rules.get("adam")), weight_decay=0.1),
    ),
    ("nadam", line("nadam", lr=0.01, beta1=0.0), line("adam", lr=0.01, beta1=0.0)),
    (
        "decay of gradient descent",
        line(chain(coupled_decay, rules.get("gradient_descent")), lr=0.1, weight_decay=0.2),
        line(chain(decoupled_decay, rules.get("gradient_descent")), lr=0.1, weight_decay=0.2),
    ),
    (
        "independent decay",
        line(chain(independent_decay, rules.get("adam")), lr=0.1, weight_decay=0.02),
        line(chain(decoupled_decay, rules.get("adam")), lr=0.1, weight_decay=0.2),
    ),
]


@pytest.mark.parametrize(("one", "other"), [x[1:] for x in SAME_PATH], ids=[x[0] for x in SAME_PATH])
def test_two_rules_take_the_same_path(one: Line, other: Line) -> None:
    check_same_path(one, other)


def test_coupled_and_decoupled_decay_differ_under_adam() -> None:
    adam = rules.get("adam")
    with pytest.raises(AssertionError):
        check_same_path(
            line(chain(coupled_decay, adam), weight_decay=0.1),
            line(chain(decoupled_decay, adam), weight_decay=0.1),
        )


def test_independent_decay_does_not_follow_the_rate() -> None:
    rule = chain(independent_decay, rules.get("gradient_descent"))
    still = path(line(rule, lr=0.0, weight_decay=0.1), fresh(3))
    first = start(40, torch.float64)[0].numpy()
    np.testing.assert_allclose(still[-1], first * 0.9**3, rtol=1e-14)


def test_ascent_is_descent_on_the_negated_gradient() -> None:
    up = line(chain(ascent, rules.get("adam")))
    for a, b in zip(path(up, fresh()), path(line("adam"), [-g for g in fresh()]), strict=True):
        assert np.array_equal(a, b)


def test_adam_without_beta1_is_rmsprop_with_the_bias_correction_in_its_rate() -> None:
    a = Reference(line("adam", lr=0.01, beta1=0.0, beta2=0.99, eps=0.0), start(40, torch.float64)[0])
    b = Reference(line("rmsprop", alpha=0.99, eps=0.0), a.p)
    for t, g in enumerate(fresh(), 1):
        b.values["lr"] = 0.01 * np.sqrt(1 - 0.99**t)
        a.step(g)
        b.step(g)
        np.testing.assert_allclose(a.p, b.p, rtol=1e-12)


def test_radam_is_corrected_averaged_momentum_for_five_steps() -> None:
    a = Reference(line("radam", lr=0.01), start(40, torch.float64)[0])
    b = Reference(line("ema_momentum", beta=0.9), a.p)
    same = []
    for t, g in enumerate(fresh(8), 1):
        b.put(a.p, b.states, t)
        b.values["lr"] = 0.01 / (1 - 0.9**t)
        a.step(g)
        b.step(g)
        same.append(np.allclose(a.p, b.p, rtol=1e-12))
    assert same == [True] * 5 + [False] * 3


def test_momentum_and_its_average_go_together_under_any_schedule() -> None:
    """lr outside the sum: whatever the schedule, lr / (1 - beta) on the average is lr on the sum."""
    a = Reference(line("ema_momentum", beta=0.9), start(40, torch.float64)[0])
    b = Reference(line("momentum", momentum=0.9), a.p)
    for t, g in enumerate(fresh(), 1):
        b.values["lr"] = 0.1 / t
        a.values["lr"] = 0.1 / t / (1 - 0.9)
        a.step(g)
        b.step(g)
    np.testing.assert_allclose(a.p, b.p, rtol=1e-12)


def test_dampening_is_the_average_but_for_its_first_buffer() -> None:
    """torch's dampening = 1 - momentum: the same average, which started at g and not at zero."""
    gradients = fresh()
    run = Reference(line("momentum", momentum=0.9, dampening=0.9), np.zeros(40))
    average: Callable[[int], Any] = lambda t: sum(  # noqa: E731
        0.9 ** (t - k) * (0.1 if k else 1.0) * gradients[k] for k in range(t + 1)
    )
    for t, g in enumerate(gradients):
        run.step(g)
        np.testing.assert_allclose(run.states["b"], average(t), atol=1e-12)
