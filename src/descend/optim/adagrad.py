"""Adagrad, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..formula import Rule
from .base import FormulaOptimizer, Params
from .parts import modified
from .state import filled


class Adagrad(FormulaOptimizer):
    """Adagrad."""

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

    def _fresh(self, p: Any) -> Mapping[str, Any]:
        """torch's Adagrad has its state from the start; here it is made when it is first looked at."""
        if not isinstance(p, Tensor):
            return {}
        start = float(self.defaults["initial_accumulator_value"])
        return {"step": torch.tensor(0.0), "sum": filled(p, start)}

    def _sparse(self, group: Mapping[str, Any]) -> str:
        if group["weight_decay"]:
            raise RuntimeError("weight_decay option is not compatible with sparse gradients")
        return "touched"

    def share_memory(self) -> None:
        """Move the sums to memory that other processes can write."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"].share_memory_()
