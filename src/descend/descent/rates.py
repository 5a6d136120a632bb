"""A learning rate for a function that nobody gave one for: measured at the start, the reason in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .objectives import FunctionObjective
from .optimizers import Rule, make

_EXACT = 32  # up to this many numbers the Hessian is computed whole, above it by power iteration
_ITERATIONS = 20
_SHARE = 0.05  # of the start's size, for rules whose step has a length of its own


def default_rate(
    rule: Rule, hypers: Mapping[str, Any], objective: FunctionObjective
) -> tuple[float | None, str]:
    """A learning rate for `rule` on `objective`, and why; None where the rule's own default will do.

    Two first steps of the rule, on gradients of 1 and of 1000, show what kind it is. If the second is a
    thousand times as long, the step grows with the gradient, and half over the largest curvature is within
    what a quadratic of that curvature allows (Nesterov 2004, section 1.2.3). If both are as long as the
    learning rate, that is the length of a step, and a part of the start's size is taken.
    """
    small, large = _first_step(rule, hypers, 1.0), _first_step(rule, hypers, 1000.0)
    if small is None or large is None or small[0] == 0:
        return None, ""
    parameters = list(objective.module.parameters())
    size = max(1.0, max(float(p.detach().abs().max()) for p in parameters))
    if math.isclose(large[0] / small[0], 1000.0, rel_tol=0.05):
        curvature = largest_curvature(objective, parameters)
        if curvature > 0:
            rate = _rounded(0.5 / curvature)
            return rate, f"half over the largest curvature at the start, {curvature:.4g}"
        norm = _gradient_norm(objective, parameters)
        if not norm > 0:
            return None, ""
        return _rounded(
            0.1 * size / norm
        ), "no curvature at the start: its first step is a tenth of the start's size"
    if 0.3 < small[0] / small[1] < 3 and 0.3 < large[0] / large[1] < 3:
        rate = _rounded(_SHARE * size)
        return rate, f"the length of a step of this rule: {_SHARE:.0%} of the start's size, {size:g}"
    return None, ""


def _first_step(rule: Rule, hypers: Mapping[str, Any], gradient: float) -> tuple[float, float] | None:
    """How far the rule's first step goes on one number, and its learning rate; None where it needs more."""
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    made = make(rule, [p], None, hypers)
    p.grad = torch.full_like(p, gradient)
    try:
        made.optimizer.step()
    except TypeError:  # it wants a closure
        return None
    return abs(float(p.detach())), made.lr


def _rounded(rate: float) -> float:
    """Two significant digits: a rate is no more exact than that, and reads better."""
    return float(f"{rate:.1e}")


def _gradient(objective: FunctionObjective, parameters: Sequence[Tensor], graph: bool) -> list[Tensor]:
    loss = objective.loss((None, None))
    found = torch.autograd.grad(loss, parameters, create_graph=graph, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def _gradient_norm(objective: FunctionObjective, parameters: Sequence[Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(_gradient(objective, parameters, graph=False)))


def largest_curvature(objective: FunctionObjective, parameters: Sequence[Tensor]) -> float:
    """The largest absolute eigenvalue of the Hessian here; 0 where there is none, or no second derivative."""
    gradients = _gradient(objective, parameters, graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradients])
    if not flat.requires_grad:
        return 0.0

    def product(direction: Tensor) -> Tensor:
        parts = torch.autograd.grad(flat, parameters, direction, retain_graph=True, allow_unused=True)
        columns = [
            torch.zeros_like(p) if part is None else part for part, p in zip(parts, parameters, strict=True)
        ]
        return torch.cat([column.reshape(-1) for column in columns]).detach()

    try:
        if flat.numel() <= _EXACT:
            rows = torch.stack([product(unit) for unit in torch.eye(flat.numel(), dtype=flat.dtype)])
            values = torch.linalg.eigvalsh(0.5 * (rows + rows.T))
            found = float(values.abs().max())
        else:
            generator = torch.Generator().manual_seed(0)
            direction = torch.randn(flat.numel(), generator=generator, dtype=flat.dtype).to(flat.device)
            found = 0.0
            for _ in range(_ITERATIONS):
                direction = product(direction / direction.norm())
                found = float(direction.norm())
                if not found > 0:
                    break
    except RuntimeError:  # an operation without a second derivative
        return 0.0
    return found if math.isfinite(found) else 0.0
