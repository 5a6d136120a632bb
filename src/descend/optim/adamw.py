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
    """AdamW."""

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
