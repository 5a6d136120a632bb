"""Numbers that the papers and the textbooks give, out of the rules themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rule_contenders import Reference
from rule_lines import Line

from descend import rules
from descend.formula import Hyper, State, rule_of
from descend.formula.vocabulary import sqrt


def started(name: str, p: Any = 0.0, **hypers: float) -> Reference:
    return Reference(Line(rules.get(name), hypers=hypers), np.atleast_1d(np.asarray(p, np.float64)))


def steps(run: Reference, gradients: Any) -> Any:
    """How far each step went downhill, over lr: [steps]."""
    found = []
    for g in gradients:
        before = run.p
        run.step(np.atleast_1d(np.asarray(g, np.float64)))
        found.append((before - run.p)[0] / run.values["lr"])
    return np.array(found)


def descend_on(run: Reference, gradient: Any, count: int) -> Any:
    """The points of a run on a function of known gradient: [count + 1, n]."""
    points = [run.p]
    for _ in range(count):
        run.step(gradient(run.p))
        points.append(run.p)
    return np.array(points)


def uncorrected_adam(
    p,
    g,
    m=State("m"),
    v=State("v"),
    lr=Hyper(1e-3),
    beta1=Hyper(0.9),
    beta2=Hyper(0.999),
    eps=Hyper(0.0),
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    p = p - lr * m / (sqrt(v) + eps)
    return p, m, v


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_adam_s_first_step_is_lr_whatever_the_gradient(scale: float) -> None:
    assert steps(started("adam", eps=0.0), [scale])[0] == pytest.approx(1.0, abs=1e-12)


def test_what_bias_correction_corrects() -> None:
    """Uncorrected, a steady gradient: 3.16 lr first, at most 6.57 lr at t = 12, 1% too long at t = 3900."""
    run = Reference(Line(rule_of(uncorrected_adam)), np.zeros(1))
    size = steps(run, np.ones(5000))
    assert size[0] == pytest.approx(3.162, abs=5e-4)
    assert size.max() == pytest.approx(6.57, abs=5e-3)
    assert 1 + size.argmax() == 12
    within = 1 + int(np.flatnonzero(size > 1.01).max()) + 1
    assert 3850 < within < 3950
    corrected = steps(started("adam", eps=0.0), np.ones(5000))
    np.testing.assert_allclose(corrected, 1.0, rtol=1e-10)


def test_rmsprop_s_first_step_is_ten_times_lr() -> None:
    assert steps(started("rmsprop", eps=0.0), [0.3])[0] == pytest.approx(10.0)


def test_rmsprop_from_the_first_gradient_steps_lr() -> None:
    np.testing.assert_allclose(
        steps(started("rmsprop_from_first", eps=0.0), np.full(50, 0.3)), 1.0, rtol=1e-12
    )


def test_adagrad_steps_lr_over_root_t_under_a_steady_gradient() -> None:
    size = steps(started("adagrad", eps=0.0), np.full(100, 0.7))
    np.testing.assert_allclose(size, 1 / np.sqrt(np.arange(1, 101)), rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_adadelta_s_first_step_does_not_know_the_gradient_s_scale(scale: float) -> None:
    assert steps(started("adadelta"), [scale])[0] == pytest.approx(np.sqrt(1e-6 / (1 - 0.9)), rel=1e-4)


def test_no_step_of_adamax_is_longer_than_1_0091_lr() -> None:
    fading = 0.999 ** np.arange(400)  # the gradients that keep u where it is: the worst case
    assert steps(started("adamax", eps=0.0), fading).max() == pytest.approx(1.0091, abs=5e-5)
    source = np.random.default_rng(0)
    wild = source.standard_normal(3000) * 10 ** source.uniform(-3, 3, 3000)
    assert np.abs(steps(started("adamax", eps=0.0), wild)).max() <= 1.0091


def test_radam_divides_by_v_from_the_sixth_step_on() -> None:
    scales = [steps(started("radam", eps=0.0), np.full(7, scale)) for scale in (1.0, 10.0)]
    knows_scale = ~np.isclose(scales[0], scales[1])
    assert knows_scale.tolist() == [True] * 5 + [False] * 2


def test_nadam_s_mu_product_is_the_product_of_its_mu() -> None:
    run = started("nadam")
    steps(run, np.ones(20))
    mu = 0.9 * (1 - 0.5 * 0.96 ** (np.arange(1, 21) * 0.004))
    assert float(run.states["mu_product"]) == pytest.approx(mu.prod(), rel=1e-13)


def test_asgd_averages_from_t0_on() -> None:
    run = started("asgd", 1.0, t0=5.0, lr=0.1)
    points = []
    for t in range(1, 13):
        run.step(np.sin([float(t)]))
        points.append(run.p[0])
        since = points[6:] if t > 6 else points[-1:]
        assert run.states["ax"][0] == pytest.approx(np.mean(since), rel=1e-12), t
    assert float(run.states["eta"]) == pytest.approx(0.1 / (1 + 1e-4 * 0.1 * 12) ** 0.75, rel=1e-14)


def test_rprop_grows_shrinks_and_rests() -> None:
    run = started("rprop", lr=0.1)
    sizes, moves, before = [], [], 0.0
    for g in (1.0, 2.0, -0.1, -0.1, -5.0):
        run.step(np.array([g]))
        sizes.append(float(run.states["size"][0]))
        moves.append(float(run.p[0] - before))
        before = float(run.p[0])
    assert sizes == pytest.approx([0.1, 0.12, 0.06, 0.06, 0.072])
    assert moves == pytest.approx([-0.1, -0.12, 0.0, 0.06, 0.072])


def reddi(name: str, count: int = 3000) -> float:
    """Where a rule ends on the counter-example: f is C x in every third step and -x in the others, |x| <= 1.

    The mean slope is (C - 2)/3 > 0, so the best point is -1. beta1 = 0, beta2 = 1/(1 + C**2), lr 1/sqrt(t).
    """
    c = 3.0
    run = started(name, 0.0, beta1=0.0, beta2=1 / (1 + c**2), eps=0.0)
    for t in range(1, count + 1):
        run.values["lr"] = 0.5 / np.sqrt(t)
        run.step(np.array([c if t % 3 == 1 else -1.0]))
        run.p = np.clip(run.p, -1, 1)
    return float(run.p[0])


def test_adam_goes_to_the_worst_point_where_amsgrad_finds_the_best() -> None:
    assert reddi("adam") > 0.9
    assert reddi("amsgrad") < -0.9


def test_w_times_x_by_hand() -> None:
    """x = 1..4, y = 2x, w = 0, mean squared error: slope -30; lr 1/15 solves it at once, 2/15 never."""
    x = np.arange(1.0, 5.0)

    def slope(w: Any) -> Any:
        return np.array([np.mean(2 * x * (w[0] * x - 2 * x))])

    assert slope(np.zeros(1))[0] == -30
    assert descend_on(started("gradient_descent", lr=0.01), slope, 1)[1, 0] == pytest.approx(0.3)
    assert descend_on(started("gradient_descent", lr=1 / 15), slope, 1)[1, 0] == pytest.approx(2.0)
    assert abs(descend_on(started("gradient_descent", lr=2.01 / 15), slope, 500)[-1, 0]) > 100
    assert descend_on(started("gradient_descent", lr=1.99 / 15), slope, 2000)[-1, 0] == pytest.approx(2.0)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_momentum_is_stable_up_to_twice_one_plus_beta_over_the_curvature(beta: float) -> None:
    limit = 2 * (1 + beta) / 3.0
    for factor, stable in ((0.99, True), (1.01, False)):
        run = started("momentum", 1.0, lr=limit * factor, momentum=beta)
        assert (abs(descend_on(run, lambda p: 3.0 * p, 3000)[-1, 0]) < 1) == stable


def rate(name: str, slopes: Any, **hypers: float) -> float:
    """By how much the error shrinks each step, in the end, on the quadratic of those curvatures."""
    points = descend_on(started(name, np.ones(len(slopes)), **hypers), lambda p: slopes * p, 400)
    size = np.linalg.norm(points, axis=1)
    return float((size[400] / size[300]) ** (1 / 100))


def test_rates_on_a_quadratic() -> None:
    """Condition number 100: descent (k-1)/(k+1), heavy ball (√k-1)/(√k+1) = .8182, Nesterov 1 - 1/√k."""
    slopes, root = np.array([1.0, 100.0]), 10.0
    assert rate("gradient_descent", slopes, lr=2 / 101) == pytest.approx(99 / 101, abs=1e-6)
    ball = rate("momentum", slopes, lr=4 / (root + 1) ** 2, momentum=((root - 1) / (root + 1)) ** 2)
    assert ball == pytest.approx(9 / 11, abs=0.01)
    ahead = rate("nesterov", slopes, lr=1 / 100, momentum=(root - 1) / (root + 1))
    assert ahead == pytest.approx(1 - 1 / root, abs=0.01)
