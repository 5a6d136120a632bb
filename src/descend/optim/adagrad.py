"""Adagrad, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..formula import Rule
from .base import FormulaOptimizer, Params
from .parts import modified
from .state import filled


class Adagrad(FormulaOptimizer):
    """Adagrad divides the gradient by the root of the sum of all its squares so far.

    For every element p with gradient g; t counts the parameter's steps from 1.

    Adagrad (Duchi, Hazan and Singer 2011, JMLR 12, Figure 1 (diagonal)):

        rate = lr / (1 + (t - 1) * lr_decay)
        s = s + g**2
        p = p - rate * g / (sqrt(s) + eps)

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: learning rate: the size of the first step. In [0, inf). Default 0.01.
        lr_decay: how fast lr falls with t, on top of the sum's growth. In [0, inf). Default 0.
        weight_decay: strength of the L2 penalty. In [0, inf). Default 0.
        initial_accumulator_value: what the sum starts at. In [0, inf). Default 0.
        eps: keeps the division finite where the sum is zero. In [0, inf). Default 1e-10.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        maximize: climb instead of descend.
        differentiable: let autograd record the step (on the torch back end, which is slower).
        fused: torch's choice of an implementation; every step is fused here, whatever it says.
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.Adagrad(model.parameters(), lr=0.01)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    family = ("adagrad",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return group["maximize"], group["differentiable"], bool(group["weight_decay"])

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return modified(group, "adagrad")

    def _fresh(self) -> Callable[[Any], Mapping[str, Any]]:
        return partial(_first, float(self.defaults["initial_accumulator_value"]))

    def _sparse(self, group: Mapping[str, Any]) -> str:
        if group["weight_decay"]:
            raise RuntimeError("weight_decay option is not compatible with sparse gradients")
        return "touched"

    def share_memory(self) -> None:
        """Move the sums to memory that other processes can write."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"].share_memory_()


def _first(start: float, p: Any) -> Mapping[str, Any]:
    """torch's Adagrad has its state from the start; here it is made when it is first looked at."""
    if not isinstance(p, Tensor):
        return {}
    return {"step": torch.tensor(0.0, device="cpu"), "sum": filled(p, start)}
