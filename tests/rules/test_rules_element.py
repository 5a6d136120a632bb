"""Limits and numbers of the newer rules that work on every element by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rule_checks import start
from rule_contenders import Reference
from rule_lines import Line
from test_rules_limits import check_same_path, fresh, line, path

import descend

SAME_PATH: list[tuple[str, Line, Line]] = [
    (
        "AdEMAMix with alpha = 0 is AdamW",
        line("ademamix", alpha=0.0, weight_decay=0.1),
        line("adamw", weight_decay=0.1),
    ),
    (
        "Adan that looks no way ahead is Adam",
        line("adan", beta1=0.9, beta2=0.0, beta3=0.999),
        line("adam"),
    ),
    (
        "Lion without averages is Adam without averages",
        line("lion", lr=0.01, beta1=0.0),
        line("adam", lr=0.01, beta1=0.0, beta2=0.0, eps=0.0),
    ),
]


@pytest.mark.parametrize(("one", "other"), [x[1:] for x in SAME_PATH], ids=[x[0] for x in SAME_PATH])
def test_a_limit_is_another_rule(one: Line, other: Line) -> None:
    check_same_path(one, other)


def test_away_from_the_limit_the_rules_differ() -> None:
    for one in (line("ademamix", alpha=0.1), line("adan", beta1=0.9, beta2=0.1, beta3=0.999)):
        with pytest.raises(AssertionError):
            check_same_path(one, line("adam"))


def test_lion_moves_every_element_by_lr() -> None:
    points = path(line("lion", lr=0.01), fresh())
    np.testing.assert_allclose(np.abs(np.diff(points, axis=0)), 0.01, rtol=1e-12)


def test_adopt_on_gradients_of_size_one_is_averaged_momentum_a_step_late() -> None:
    gradients = [np.sign(g) for g in fresh()]
    late = path(line("adopt", lr=0.01, beta1=0.9), gradients)
    plain = path(line("ema_momentum", lr=0.01, beta=0.9), gradients[1:])
    np.testing.assert_allclose(late[1:], plain, rtol=1e-12)
    assert np.array_equal(late[0], start(40, torch.float64)[0].numpy())


def test_adopt_clips_a_gradient_that_v_did_not_foresee() -> None:
    run = Reference(line("adopt", lr=1.0, beta1=0.0), np.zeros(1))
    moves = []
    for g in (1e-3, 1.0, 1e3, 1e6):
        before = run.p
        run.step(np.array([g]))
        moves.append(float((before - run.p)[0]))
    np.testing.assert_allclose(moves, [0, 1, 2**0.25, 3**0.25], rtol=1e-12)


def test_yogi_s_first_step_from_zero_is_adam_s_and_its_v_falls_slowly() -> None:
    gradients = fresh(1)
    a = path(line("yogi", lr=0.01, initial_accumulator_value=0.0), gradients)
    np.testing.assert_allclose(a, path(line("adam", lr=0.01, eps=1e-3), gradients), rtol=1e-12)
    yogi, adam = Reference(line("yogi"), np.zeros(1)), Reference(line("adam"), np.zeros(1))
    for run in (yogi, adam):
        run.put(np.zeros(1), {"m": np.zeros(1), "v": np.ones(1)}, 10)
        run.step(np.array([0.1]))
    assert 1 - yogi.states["v"][0] == pytest.approx(1e-3 * 0.01)
    assert 1 - adam.states["v"][0] == pytest.approx(1e-3 * 0.99)


def test_ademamix_s_half_life_and_weight_grow_linearly() -> None:
    steps, beta1, beta3 = 10, 0.9, 0.9999
    run = Reference(line("ademamix", warmup=float(steps)), np.zeros(1))
    slow, quick, v = 0.0, 0.0, 0.0
    lives = np.log(0.5) / np.log([beta1, beta3])
    for t, g in enumerate(np.random.default_rng(0).standard_normal(15), 1):
        part = min(t / steps, 1)
        keep = 0.5 ** (1 / (lives[0] + part * (lives[1] - lives[0])))
        slow, quick = keep * slow + (1 - keep) * g, beta1 * quick + (1 - beta1) * g
        v = 0.999 * v + 0.001 * g**2
        mixed = quick / (1 - beta1**t) + 5 * part * slow
        wanted = run.p[0] - 1e-3 * mixed / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        run.step(np.array([g]))
        assert run.p[0] == pytest.approx(wanted, rel=1e-10), t


def test_sophia_with_much_curvature_is_averaged_momentum_and_with_none_the_sign() -> None:
    gradients = fresh()
    n = len(gradients[0])
    a = Reference(line("sophia", lr=0.01, beta1=0.9), start(n, torch.float64)[0])
    b = Reference(line("ema_momentum", lr=0.01 / (0.01 * 1e4), beta=0.9), a.p)
    a.states["h"] = np.full(n, 1e4)
    for g in gradients:
        a.step(g)
        b.step(g)
    np.testing.assert_allclose(a.p, b.p, rtol=1e-12)
    for h in (0.0, -3.0):
        a.states["h"] = np.full(n, h)
        before: Any = a.p
        a.step(gradients[0])
        np.testing.assert_allclose(a.p, before - 0.01 * np.sign(a.states["m"]), rtol=1e-12)


def test_sophia_follows_the_curvature_that_its_page_writes() -> None:
    """The program of the rule's page, on a quadratic, where Hutchinson's estimate is exact."""
    curvature = torch.tensor([1e2, 1e3, 1e4], dtype=torch.float32)
    w = torch.nn.Parameter(torch.ones_like(curvature))
    opt = descend.optimizer("sophia")([w], lr=0.1, beta1=0.0, gamma=1.0)
    loss = (curvature * w**2).sum() / 2
    grads = torch.autograd.grad(loss, [w], create_graph=True)
    signs = [torch.randint_like(w, 2) * 2 - 1]
    (product,) = torch.autograd.grad(grads, [w], grad_outputs=signs)
    opt.state[w]["hessian"] = signs[0] * product
    assert torch.equal(opt.state[w]["hessian"], curvature)
    w.grad = grads[0].detach()
    opt.step()
    torch.testing.assert_close(w.detach(), torch.full_like(w, 0.9))  # 0.1 of Newton's step, in all at once
    opt.state[w]["hessian"] = opt.state[w]["hessian"].lerp(torch.zeros_like(w), 0.5)
    w.grad = curvature * w.detach()
    opt.step()
    torch.testing.assert_close(w.detach(), torch.full_like(w, 0.8))  # twice as far, were it not clipped at 1
