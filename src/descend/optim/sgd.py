"""SGD, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..errors import UsageError
from ..formula import Rule
from .base import FormulaOptimizer, Params
from .parts import modified


class SGD(FormulaOptimizer):
    """Gradient descent steps against the gradient, by the learning rate.

    For every element p with gradient g; t counts the parameter's steps from 1.

    Gradient descent, without momentum (Cauchy 1847):

        p = p - lr * g

    Momentum, with momentum (Polyak 1964; Sutskever et al. 2013, eq. 1-2):

        b = where(t == 1, g, momentum * b + (1 - dampening) * g)
        p = p - lr * b

    Nesterov momentum, with momentum and nesterov (Nesterov 1983; Sutskever et al. 2013, eq. 3-4):

        b = momentum * b + g
        p = p - lr * (g + momentum * b)

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: learning rate: how far p moves per unit of gradient. In [0, inf). Default 0.001.
        momentum: how much of the sum is kept each step. In [0, inf), sensibly in [0, 1). Default 0.
        dampening: how much of the new gradient is left out. In (-inf, inf), sensibly in [0, 1]. Default 0.
        weight_decay: strength of the L2 penalty. In [0, inf). Default 0.
        nesterov: look ahead along the momentum.
        maximize: climb instead of descend.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        differentiable: let autograd record the step (on the torch back end, which is slower).
        fused: torch's choice of an implementation; every step is fused here, whatever it says.
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.SGD(model.parameters(), lr=0.001)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    family = ("momentum",)
    step_key = None

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return (
            group["maximize"],
            group["differentiable"],
            bool(group["weight_decay"]),
            bool(group["momentum"]),
            group["nesterov"],
        )

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        if not group["momentum"]:
            return modified(group, "gradient_descent")
        return modified(group, "nesterov" if group["nesterov"] else "momentum")

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise UsageError("Nesterov momentum requires a momentum and zero dampening")

    def _sparse(self, group: Mapping[str, Any]) -> str:
        if group["weight_decay"]:
            raise RuntimeError("weight_decay option is not compatible with sparse gradients")
        return "dense" if group["momentum"] else "touched"
