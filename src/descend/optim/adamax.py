"""Adamax, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .base import BETAS, FormulaOptimizer, Params
from .parts import modified


class Adamax(FormulaOptimizer):
    """Adamax."""

    hyper_keys = BETAS
    family = ("adamax",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return group["maximize"], group["differentiable"], bool(group["weight_decay"])

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return modified(group, "adamax")
