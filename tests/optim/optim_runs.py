"""Pairs of runs: torch's class and ours on equal parameters and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import descend

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "SGD nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    "Adadelta": ("Adadelta", {"weight_decay": 0.1}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop centred": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "Adam": ("Adam", {"weight_decay": 0.1}),
    "Adam amsgrad": ("Adam", {"amsgrad": True, "maximize": True}),
    "AdamW": ("AdamW", {}),
    "AdamW amsgrad": ("AdamW", {"amsgrad": True, "weight_decay": 0.1}),
    "Adamax": ("Adamax", {"weight_decay": 0.1}),
    "NAdam": ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "RAdam": ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "Rprop": ("Rprop", {}),
    "ASGD": ("ASGD", {"t0": 2, "lambd": 0.01}),
}
SHAPES = ((5, 3), (7,), ())

Make = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


def theirs(case: str) -> Make:
    name, kwargs = CASES[case]
    return lambda params: getattr(torch.optim, name)(params, **kwargs)


def ours(case: str) -> Make:
    name, kwargs = CASES[case]
    return lambda params: getattr(descend, name)(params, **kwargs)


def fresh(
    dtype: torch.dtype = torch.float32, shapes: tuple[tuple[int, ...], ...] = SHAPES
) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(3)
    return [torch.randn(s, generator=source).to(dtype).requires_grad_() for s in shapes]


def copies(params: list[torch.Tensor]) -> list[torch.Tensor]:
    return [p.detach().clone().requires_grad_() for p in params]


def walk(
    optimizer: torch.optim.Optimizer,
    params: list[torch.Tensor],
    first: int,
    last: int,
    skip: int | None = None,
) -> None:
    """Steps `first` to `last`, with gradients that depend on the step only; `skip` leaves a parameter out."""
    for step in range(first, last):
        source = torch.Generator().manual_seed(step)
        for k, p in enumerate(params):
            g = torch.randn(p.shape, generator=source).to(p.dtype)
            p.grad = None if k == skip else g
        optimizer.step()


def same(one: list[torch.Tensor], other: list[torch.Tensor], rtol: float = 2e-6, atol: float = 2e-7) -> None:
    for p, q in zip(one, other, strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=atol)
