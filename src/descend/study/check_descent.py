"""A rule on standard problems, at its own rate and at others, beside Adam and gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from .. import rules
from ..optim.rule_optimizer import RuleOptimizer, class_of
from .check_formula import rate_of
from .check_subject import Finding, Subject, fails, holds, note

LADDER = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
YARDSTICKS = ("adam", "gradient_descent")


Slope = Callable[[torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Problem:
    """A start, and what gives the values [k] and gradients [k, ...] at k points [k, ...]."""

    name: str
    start: torch.Tensor
    slope: Slope


def problems(quick: bool) -> list[Problem]:
    """The standard problems; every point is a matrix, so that every rule can take it."""
    random = torch.Generator().manual_seed(1)
    start = torch.randn(8, 4, generator=random)
    curved = torch.logspace(-2, 1, 32).reshape(8, 4)
    inputs = torch.randn(200, 10, generator=random)
    labels = (inputs @ torch.randn(10, 3, generator=random) + torch.randn(200, 3, generator=random)).argmax(1)
    targets = torch.nn.functional.one_hot(labels, 3).float()

    def quadratic(h: torch.Tensor) -> Slope:
        return lambda w, _: (0.5 * (h * w * w).sum((1, 2)), h * w)

    def noisy(w: torch.Tensor, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return 0.5 * (w * w).sum((1, 2)), w + torch.randn(w.shape[1:], generator=random)

    def rosenbrock(w: torch.Tensor, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = w[..., 0::2], w[..., 1::2]
        bend = y - x * x
        slopes = torch.stack([-400 * x * bend - 2 * (1 - x), 200 * bend], -1)
        return (100 * bend * bend + (1 - x) ** 2).sum((1, 2)), slopes.reshape(w.shape)

    def classes(w: torch.Tensor, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        logs = torch.log_softmax(inputs @ w, 2)
        return -(logs * targets).sum(2).mean(1), inputs.mT @ (logs.exp() - targets) / len(inputs)

    valley = torch.tensor([-1.2, 1.0]).repeat(8, 2)
    found = [
        Problem("quadratic", start, quadratic(torch.ones(8, 4))),
        Problem("ill-conditioned, 1000", start, quadratic(curved)),
        Problem("Rosenbrock", valley, rosenbrock),
        Problem("three classes", 0.01 * torch.randn(10, 3, generator=random), classes),
        Problem("noisy quadratic", start, noisy),
    ]
    return found[:2] if quick else found


@torch.no_grad()
def run(
    problem: Problem, kind: type[RuleOptimizer], steps: int, settings: list[dict[str, Any]]
) -> list[float]:
    """For each setting the value at the end over the value at the start; infinite where it ran away."""
    points = problem.start.repeat(len(settings), 1, 1)
    params = [torch.nn.Parameter(point) for point in points]  # they share the memory of the points
    optimizers = [kind([p], **given) for p, given in zip(params, settings, strict=True)]
    random = torch.Generator().manual_seed(0)
    first = problem.slope(points, random)[0]
    for _ in range(steps):
        slopes = problem.slope(points, random)[1].contiguous()
        for p, slope, optimizer in zip(params, slopes, optimizers, strict=True):
            p.grad = slope
            try:
                optimizer.step()
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # it ran away, and its matrices with it
                p.fill_(math.inf)
    shares = (problem.slope(points, random)[0] / first).tolist()
    return [share if math.isfinite(share) else math.inf for share in shares]


def descents(subject: Subject) -> Iterator[Finding]:
    """Whether the rule goes down at its default rate, which rate is best, and how far others come."""
    slow = subject.rule.kind == "matrix" or subject.program.folds
    steps = 100 if subject.quick or slow else 300
    rate = rate_of(subject.rule)
    default = subject.defaults.get(rate or "", math.nan)
    ladder: list[dict[str, Any]] = [{}, *({rate: lr} for lr in LADDER)] if rate else [{}]
    rows: list[tuple[str, ...]] = [
        ("problem", f"at {rate} = {default:g}" if rate else "as it is", "best", *YARDSTICKS)
    ]
    found = []
    for problem in problems(subject.quick):
        values = run(problem, subject.kind, steps, ladder)
        found.append(values)
        rungs: list[dict[str, Any]] = [{"lr": lr} for lr in LADDER]
        others = [run(problem, class_of(rules.get(name)), steps, rungs) for name in YARDSTICKS]
        rows.append((problem.name, _written(values[0]), *map(_best, (values[1:], *others))))
    own, ladder_values = found[0][0], found[0][1:]
    if own < 1:
        yield holds(
            "descent", f"goes down at its defaults: a quadratic to {own:.2g} of its start in {steps} steps"
        )
    elif min(ladder_values, default=math.inf) < 1:
        at = LADDER[ladder_values.index(min(ladder_values))]
        yield fails(
            "descent",
            f"does not go down at its default {rate} = {default:g}, but at {at:g}",
            f"give {rate} a default that suits it: {at:g}, say",
        )
    else:
        tried = f" at any of the rates {', '.join(f'{x:g}' for x in LADDER)}" if rate else ""
        yield fails(
            "descent",
            f"does not go down on a quadratic{tried}",
            "look at the sign of the step, and at what it is divided by",
        )
    what = f"values after {steps} steps as a share of those at the start; the best of the rates 1e-4 to 1:"
    yield note("descent", what, "", rows)


def _best(values: list[float]) -> str:
    """The best value of a ladder, and its rate."""
    if not values:
        return "–"
    best = min(values)
    return f"{_written(best)} at {LADDER[values.index(best)]:g}" if best < math.inf else "runs away"


def _written(value: float) -> str:
    if value >= 1e6:
        return "runs away"
    return f"{value:.2g}" if value >= 0.01 or not value else f"{value:.1e}"
