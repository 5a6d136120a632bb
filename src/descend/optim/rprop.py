"""Rprop, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from ..errors import UsageError
from ..formula import Rule
from .base import FormulaOptimizer, Params
from .parts import modified


class Rprop(FormulaOptimizer):
    """Rprop steps by the sign of the gradient, with a step size of its own for every element.

    For every element p with gradient g; t counts the parameter's steps from 1.

    Rprop (Riedmiller and Braun 1993; Igel and Hüsken 2000, iRprop-):

        turn = g * prev
        factor = where(turn > 0, etaplus, where(turn < 0, etaminus, 1))
        size = minimum(maximum(size * factor, step_size_min), step_size_max)
        g = where(turn < 0, 0, g)
        p = p - sign(g) * size
        prev = g

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: size of the first step. In [0, inf). Default 0.01.
        etas: the pair (etaminus, etaplus). Default (0.5, 1.2).
            etaminus: the size is multiplied by this when the sign turns. In (0, 1).
            etaplus: the size is multiplied by this while the sign stays. In (1, inf).
        step_sizes: the pair (step_size_min, step_size_max). Default (1e-06, 50).
            step_size_min: smallest size. In (-inf, inf), sensibly in [0, inf).
            step_size_max: largest size. In (-inf, inf), sensibly in (0, inf).
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
        >>> optimizer = descend.Rprop(model.parameters(), lr=0.01)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    hyper_keys: ClassVar = {
        "etaminus": ("etas", 0),
        "etaplus": ("etas", 1),
        "step_size_min": ("step_sizes", 0),
        "step_size_max": ("step_sizes", 1),
    }
    family = ("rprop",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return group["maximize"], group["differentiable"]

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return modified(group, "rprop")

    def _check(self, group: Mapping[str, Any]) -> None:
        if not 0.0 < group["etas"][0] < 1.0 < group["etas"][1]:
            raise UsageError(f"Invalid eta values: {group['etas'][0]}, {group['etas'][1]}")
        super()._check(group)
