"""RMSprop, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .base import FormulaOptimizer, Params
from .parts import modified


class RMSprop(FormulaOptimizer):
    """RMSprop."""

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
