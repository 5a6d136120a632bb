"""torch.optim's classes over our rules: same names, arguments and defaults."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from . import rules
from .formula import Rule, chain
from .modifiers import ascent, coupled_decay
from .optimizer import Optimizer, Params


class Adam(Optimizer):
    """Adam."""

    hyper_keys = {"beta1": ("betas", 0), "beta2": ("betas", 1)}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        )

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return group["maximize"], group["weight_decay"] != 0

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        parts = [
            *([ascent] if group["maximize"] else []),
            *([coupled_decay] if group["weight_decay"] else []),
            rules.get("adam"),
        ]
        return chain(*parts) if len(parts) > 1 else parts[0]


def of_rule(name: str) -> type[Optimizer] | None:
    """The class that stands for a rule, or None where torch has none."""
    return {"adam": Adam}.get(name)
