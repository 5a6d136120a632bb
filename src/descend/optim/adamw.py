"""AdamW, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .adam import Adam, check_tensors
from .base import FormulaOptimizer, Params
from .parts import modified


class AdamW(Adam):
    """AdamW is Adam whose weight decay shrinks the parameter directly, outside the averages.

    For every element p with gradient g; t counts the parameter's steps from 1.

    AdamW, as it stands (Loshchilov and Hutter 2019, Algorithm 2, arXiv:1711.05101):

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        p = p - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * p)

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: learning rate: the size of a step. In [0, inf). Default 0.001.
        betas: the pair (beta1, beta2). Default (0.9, 0.999).
            beta1: how much of m is kept each step; remembers about 1/(1 - beta1) steps. In [0, 1).
            beta2: how much of v is kept each step. In [0, 1).
        eps: keeps the division finite where v is zero. In [0, inf). Default 1e-08.
        weight_decay: share of p removed each step, times lr. In [0, inf). Default 0.01.
        amsgrad: divide by the largest average of the squared gradients so far.
        maximize: climb instead of descend.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        capturable: must stay False: the scalars of a step are computed on the host.
        differentiable: let autograd record the step (on the torch back end, which is slower).
        fused: torch's choice of an implementation; every step is fused here, whatever it says.
        independent_weight_decay: let them decay whatever lr is, p = p - weight_decay * p.
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.AdamW(model.parameters(), lr=0.001)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    family = ("adamw", "amsgrad")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        independent_weight_decay: bool = False,
        strict: bool = False,
    ) -> None:
        check_tensors(lr, betas, foreach)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": True,
            "independent_weight_decay": independent_weight_decay,
        }
        FormulaOptimizer.__init__(self, params, defaults, strict=strict)  # Adam's takes other options

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return (
            group["maximize"],
            group["differentiable"],
            bool(group["weight_decay"]),
            group["independent_weight_decay"],
            group["amsgrad"],
        )

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        if group["weight_decay"] and not group["amsgrad"] and not group["independent_weight_decay"]:
            return modified({**group, "weight_decay": 0}, "adamw")
        decay = "independent" if group["independent_weight_decay"] else "decoupled"
        return modified(group, "amsgrad" if group["amsgrad"] else "adam", decay)
