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
    """Rprop."""

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
