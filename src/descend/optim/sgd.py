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
    """SGD."""

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
