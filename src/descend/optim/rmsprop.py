"""RMSprop, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .base import FormulaOptimizer, Params
from .parts import modified


class RMSprop(FormulaOptimizer):
    """RMSProp divides the gradient by the root of an average of its recent squares.

    For every element p with gradient g; t counts the parameter's steps from 1.

    RMSProp, as it stands (Tieleman and Hinton 2012, lecture 6.5, slide 29):

        v = alpha * v + (1 - alpha) * g**2
        p = p - lr * g / (sqrt(v) + eps)

    RMSProp with momentum, with momentum (Tieleman and Hinton 2012, lecture 6.5; Graves 2013, eq. 40):

        v = alpha * v + (1 - alpha) * g**2
        b = momentum * b + g / (sqrt(v) + eps)
        p = p - lr * b

    Centred RMSProp, centered (Graves 2013, eq. 38-41, arXiv:1308.0850):

        v = alpha * v + (1 - alpha) * g**2
        m = alpha * m + (1 - alpha) * g
        variance = maximum(v - m**2, 0)
        p = p - lr * g / (sqrt(variance) + eps)

    Centred RMSProp with momentum, centered, with momentum (Graves 2013, eq. 38-45, arXiv:1308.0850):

        v = alpha * v + (1 - alpha) * g**2
        m = alpha * m + (1 - alpha) * g
        variance = maximum(v - m**2, 0)
        b = momentum * b + g / (sqrt(variance) + eps)
        p = p - lr * b

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: learning rate. In [0, inf). Default 0.01.
        alpha: how much of v is kept each step. In [0, inf), sensibly in [0, 1). Default 0.99.
        eps: keeps the division finite where v is zero. In [0, inf). Default 1e-08.
        weight_decay: strength of the L2 penalty. In [0, inf). Default 0.
        momentum: how much of the sum is kept each step. In [0, inf), sensibly in [0, 1). Default 0.
        centered: subtract the squared average of the gradients: divide by their standard deviation.
        capturable: must stay False: the scalars of a step are computed on the host.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        maximize: climb instead of descend.
        differentiable: let autograd record the step (on the torch back end, which is slower).
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.RMSprop(model.parameters(), lr=0.01)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    family = ("rmsprop_centered_momentum",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return (
            group["maximize"],
            group["differentiable"],
            bool(group["weight_decay"]),
            bool(group["momentum"]),
            group["centered"],
        )

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        centred = "_centered" if group["centered"] else ""
        return modified(group, f"rmsprop{centred}{'_momentum' if group['momentum'] else ''}")
