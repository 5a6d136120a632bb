"""The loss around the path of a problem of one or two numbers: what `surface.json` holds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call

from .objectives import DataObjective, evaluation_mode
from .points import Point, Window

if TYPE_CHECKING:
    from .loop import Descent

_LINE = 201  # grid points of a curve, and per side of a plane
_PLANE = 61
_SAMPLES = 2000  # samples that the loss of a model is computed on
_CHUNK = 512  # grid points evaluated at once
_MARGIN = 0.25


def landscape(
    descent: Descent, names: Sequence[str] | None = None, window: Window | None = None
) -> dict[str, Any]:
    """The loss on a grid around the path, and the path with its losses and gradients.

    Args:
        descent: an ended one, of one or two parameters in all.
        names: of the axes; None takes those of the model's parameters.
        window: the ranges that the function is usually drawn in.

    Returns:
        names; axes, a list of numbers each; loss, a list for one axis, a list of rows (one for each number of
        the second axis) for two; path, a list of {step, x, loss, gradient}; samples where not all were used.
    """
    with evaluation_mode(descent.module):
        return _drawn(descent, names, window)


def _drawn(descent: Descent, names: Sequence[str] | None, window: Window | None) -> dict[str, Any]:
    objective = descent.objective
    value = _value(descent)
    points = list(descent.progress.points)
    last = [float(descent.progress.step), *descent.flat()]
    if points[-1] != last:
        points.append(last)
    xs = torch.tensor([x for _, *x in points], dtype=torch.float64)
    losses, gradients = _along(value, xs)
    axes = _axes(xs, losses, window)
    grid = torch.cartesian_prod(*axes) if len(axes) > 1 else axes[0].reshape(-1, 1)
    heights = objective.sign * _many(value, grid)
    if len(axes) > 1:
        heights = heights.reshape(len(axes[0]), len(axes[1])).T
    found: dict[str, Any] = {
        "names": list(names or _names(descent)),
        "axes": [axis.tolist() for axis in axes],
        "loss": heights.tolist(),
        "path": [
            {"step": int(step), "x": x, "loss": objective.sign * loss, "gradient": gradient}
            for (step, *x), loss, gradient in zip(
                points, losses.tolist(), (objective.sign * gradients).tolist(), strict=True
            )
        ],
    }
    if isinstance(objective, DataObjective) and len(objective.train) > _SAMPLES:
        found["samples"] = _SAMPLES
    return found


def _names(descent: Descent) -> list[str]:
    """The parameters' own names; where one holds both numbers, with their places."""
    names = []
    for name, p in descent.module.named_parameters():
        short = name.rpartition(".")[2]
        names += [short] if p.numel() == 1 else [f"{short}[{place}]" for place in range(p.numel())]
    return names


def _value(descent: Descent) -> Callable[[Tensor], Tensor]:
    """The objective as a function of one flat point of float64."""
    module, objective = descent.module, descent.objective
    shapes = [(name, p.shape, p.dtype, p.numel()) for name, p in module.named_parameters()]

    def taken_apart(flat: Tensor) -> dict[str, Tensor]:
        found, place = {}, 0
        for name, shape, dtype, count in shapes:
            found[name] = flat[place : place + count].reshape(shape).to(dtype)
            place += count
        return found

    if isinstance(module, Point):

        def of_point(flat: Tensor) -> Tensor:
            value: Tensor = module.call(list(taken_apart(flat).values()))
            return objective.sign * value.reshape(())

        return of_point
    assert isinstance(objective, DataObjective)
    rows = torch.arange(min(_SAMPLES, len(objective.train)))
    inputs, targets = objective.train.batch(rows, 0)
    loss = objective.loss_function

    def of_model(flat: Tensor) -> Tensor:
        return loss(functional_call(module, taken_apart(flat), (inputs,)), targets)

    return of_model


def _along(value: Callable[[Tensor], Tensor], xs: Tensor) -> tuple[Tensor, Tensor]:
    losses, gradients = [], []
    for x in xs:
        point = x.clone().requires_grad_()
        loss = value(point)
        losses.append(loss.detach().double())
        gradients.append(torch.autograd.grad(loss, point)[0].double())
    return torch.stack(losses), torch.stack(gradients)


def _many(value: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The values at points [N, n]: together where the function allows it, else one by one."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations that vmap has no fast way for
        try:
            return torch.vmap(value, chunk_size=_CHUNK)(points).double()
        except (RuntimeError, ValueError, TypeError):
            return torch.stack([value(point).double() for point in points])


def _axes(xs: Tensor, losses: Tensor, window: Window | None) -> list[Tensor]:
    """A grid that holds the path, or, where the path leaves for far away, its beginning."""
    start = xs[0]
    far = (xs - start).abs()
    settled = torch.isfinite(xs).all(dim=1) & (losses <= losses[0] + 10.0 * losses[0].abs() + 10.0)
    spread = far[settled].max(dim=0).values if bool(settled.any()) else torch.ones_like(start)
    near = settled & (far <= spread.clamp(min=1e-3)).all(dim=1)
    shown = xs[near] if bool(near.any()) else start.reshape(1, -1)
    axes = []
    for place in range(xs.shape[1]):
        low, high = float(shown[:, place].min()), float(shown[:, place].max())
        margin = max(_MARGIN * (high - low), 0.05 * max(abs(low), abs(high)), 1e-6)
        low, high = low - margin, high + margin
        if window is not None and _within(window, shown):
            low, high = min(low, window[place][0]), max(high, window[place][1])
        axes.append(torch.linspace(low, high, _LINE if xs.shape[1] == 1 else _PLANE, dtype=torch.float64))
    return axes


def _within(window: Window, shown: Tensor) -> bool:
    """Whether the path stays near the usual window, and is not so short that it would vanish in it."""
    for place, (low, high) in enumerate(window):
        width = high - low
        if float(shown[:, place].min()) < low - width or float(shown[:, place].max()) > high + width:
            return False
    extent = max(float(shown[:, k].max() - shown[:, k].min()) / (b - a) for k, (a, b) in enumerate(window))
    return math.isfinite(extent) and extent > 0.1
