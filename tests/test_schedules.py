"""Schedules against torch's schedulers, their text form, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler as peers

from descend import UsageError
from descend.schedules import (
    KINDS,
    Chain,
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    MultiStep,
    OneCycle,
    Plateau,
    PlateauState,
    Polynomial,
    Step,
    Warmup,
    WarmupStableDecay,
    names,
    parse,
)

STEPS = 100


def peer_values(make, steps: int = STEPS) -> list[float]:
    """The learning rates that a torch scheduler gives, step by step."""
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=0.1)
    scheduler = make(optimizer)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


PEERS = [
    (Step(0.1, every=7, factor=0.5), lambda o: peers.StepLR(o, 7, 0.5)),
    (MultiStep(0.1, at=(10, 40, 41), factor=0.3), lambda o: peers.MultiStepLR(o, [10, 40, 41], 0.3)),
    (Exponential(0.1, factor=0.97), lambda o: peers.ExponentialLR(o, 0.97)),
    (Polynomial(0.1, total=80, power=2.0), lambda o: peers.PolynomialLR(o, 80, 2.0)),
    (Cosine(0.1, total=STEPS, end=0.01), lambda o: peers.CosineAnnealingLR(o, STEPS, 0.01)),
    (InverseTime(0.1, rate=0.2), lambda o: peers.LambdaLR(o, lambda s: 1 / (1 + 0.2 * s))),
    (
        Warmup(Constant(0.1), steps=9),
        lambda o: peers.LinearLR(o, start_factor=0.1, total_iters=9),
    ),
    (
        Chain((Constant(0.1), Cosine(0.1, total=60)), at=(40,)),
        lambda o: peers.SequentialLR(o, [peers.ConstantLR(o, 1.0), peers.CosineAnnealingLR(o, 60)], [40]),
    ),
    (
        OneCycle(0.5, total=STEPS, start=0.02, end=2e-6, rise=0.4),
        lambda o: peers.OneCycleLR(o, 0.5, total_steps=STEPS + 1 - 1, pct_start=0.4),
    ),
]


@pytest.mark.parametrize(("ours", "make"), PEERS, ids=lambda x: getattr(x, "name", ""))
def test_equals_torch(ours, make) -> None:
    steps = STEPS - 1 if isinstance(ours, OneCycle) else STEPS
    for step, value in enumerate(peer_values(make, steps)):
        # torch multiplies its way from step to step: a rounding error for each
        assert ours(step) == pytest.approx(value, rel=1e-12, abs=1e-15), step


def test_warmup_stable_decay_by_hand() -> None:
    schedule = WarmupStableDecay(1.0, total=10, warmup=3, decay=4, end=0.2)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    assert [schedule(step) for step in range(12)] == pytest.approx(expected)


def test_no_warmup_step_is_at_zero() -> None:
    assert Warmup(Constant(0.5), steps=4)(0) == pytest.approx(0.1)
    assert WarmupStableDecay(0.5, total=9, warmup=4, decay=0)(0) == pytest.approx(0.1)


@pytest.mark.parametrize("name", names())
def test_text_reads_back(name: str) -> None:
    text = "chain(cosine(total=30), constant(0.02), at=[30])" if name == "chain" else name
    schedule = parse(text, base=0.1, total=200)
    assert type(schedule) is KINDS[name]
    assert parse(str(schedule)) == schedule
    assert all(math.isfinite(schedule(step)) and schedule(step) >= 0 for step in range(250))


def test_one_cycle_can_fall_and_rise_again() -> None:
    momentum = parse("one-cycle(0.85, start=0.95, end=0.95)", total=100)
    assert momentum(0) == 0.95
    assert min(map(momentum, range(100))) == pytest.approx(0.85)
    assert momentum(99) == pytest.approx(0.95)


def test_nested_and_shares() -> None:
    schedule = parse("warmup(cosine, steps=5%)", base=0.1, total=200)
    assert schedule == Warmup(Cosine(0.1, total=190), steps=10)
    assert parse("multi-step(at=[50%, 75%])", 0.1, 40) == MultiStep(0.1, at=(20, 30))


@pytest.mark.parametrize("name", [n for n in names() if n not in ("chain", "plateau", "constant")])
def test_short_totals_stay_finite(name: str) -> None:
    for total in (1, 2, 3, 4):
        schedule = parse(name, base=0.1, total=total)
        assert all(math.isfinite(schedule(step)) for step in range(6))


def test_plateau_equals_torch() -> None:
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=0.1)
    peer = peers.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, cooldown=1, min_lr=0.01)
    ours, state = Plateau(0.1, factor=0.5, patience=2, cooldown=1, low=0.01), PlateauState()
    generator = torch.Generator().manual_seed(0)
    for epoch in range(60):
        loss = float(torch.rand(1, generator=generator)) + 10 / (epoch + 1)
        peer.step(loss)
        state = ours.seen(state, loss)
        assert ours(epoch, state) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert ours(0, state) == 0.01


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cosin", "did you mean 'cosine'"),
        ("cosine(end=0, ned=1)", "takes value, total, end"),
        ("cosine(", "cannot be read"),
        ("step(every=0)", "from 1"),
        ("step(every=1.5)", "whole number"),
        ("exponential(factor=1e999)", "not a finite number"),
        ("multi-step(at=[5, 3])", "must rise"),
        ("chain", "give schedules"),
        ("warmup(0.1, steps=3)", "is no schedule"),
        ("__import__('os')", "unknown schedule"),
        ("plateau(factor=2)", "between 0 and 1"),
        ("warmup-stable-decay(warmup=80, decay=80)", "must fit"),
        ("0.1", "is no schedule"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        parse(text, base=0.1, total=100)


def test_needs_what_it_cannot_know() -> None:
    with pytest.raises(UsageError, match="number of steps"):
        parse("cosine", base=0.1)
    with pytest.raises(UsageError, match="a value to start from"):
        parse("cosine", total=10)
