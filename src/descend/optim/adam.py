"""Adam, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..errors import UsageError
from ..formula import Rule
from .base import BETAS, FormulaOptimizer, Params
from .parts import decoupled, modified


class Adam(FormulaOptimizer):
    """Adam."""

    hyper_keys = BETAS
    family = ("adam", "amsgrad")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        strict: bool = False,
    ) -> None:
        check_tensors(lr, betas, foreach)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return (
            group["maximize"],
            group["differentiable"],
            bool(group["weight_decay"]),
            group["decoupled_weight_decay"],
            group["amsgrad"],
        )

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        if group["amsgrad"]:
            return modified(group, "amsgrad", decoupled(group))
        return modified(group, "adam", decoupled(group))

    def _sparse(self, group: Mapping[str, Any]) -> str:
        raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")


def check_tensors(lr: Any, betas: Any, foreach: Any) -> None:
    """Refuse the tensors that torch refuses as a learning rate or as betas."""
    if isinstance(lr, Tensor) and foreach:
        raise UsageError("lr as a Tensor is not supported for capturable=False and foreach=True")
    if not all(isinstance(b, float) for b in betas) and not all(isinstance(b, Tensor) for b in betas):
        raise UsageError("betas must be either both floats or both Tensors")
    if isinstance(betas[0], Tensor) and foreach:
        raise UsageError("betas[0] as a Tensor is not supported for capturable=False and foreach=True")
