"""NAdam, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .base import BETAS, FormulaOptimizer, Params
from .parts import decoupled, modified


class NAdam(FormulaOptimizer):
    """NAdam."""

    hyper_keys = BETAS
    family = ("nadam",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return (
            group["maximize"],
            group["differentiable"],
            bool(group["weight_decay"]),
            group["decoupled_weight_decay"],
        )

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return modified(group, "nadam", decoupled(group))
