"""Muon, as torch.optim has it, over the rules of this library; what is no matrix follows AdamW."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import rules
from ..errors import UsageError
from ..formula import Rule
from ..formula.chaining import applying
from ..modifiers import ascent
from .base import FormulaOptimizer, Params
from .checks import Where
from .parts import joined

SCALES = {None: "muon", "original": "muon", "match_rms_adamw": "muon_rms"}
"""The rule for every way to scale a step by the shape of its matrix."""


class Muon(FormulaOptimizer):
    """Muon moves every matrix along its momentum made orthogonal: all its directions by the same amount.

    It follows the rule `muon`, or `muon_rms`. Tensors of more than two dimensions are matrices of their first
    dimension by all others; vectors and numbers follow `adamw`, with the group's lr and weight_decay, and so
    does a whole group with `use_muon=False`: give embeddings and the last layer such a group. Matrices of one
    shape are made orthogonal in one call.

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: how far every direction of a matrix moves. In [0, inf). Default 0.001.
        weight_decay: share of p removed each step, times lr. In [0, inf). Default 0.1.
        momentum: how much of the average is kept each step. In [0, 1). Default 0.95.
        nesterov: look ahead along the average. Default True.
        ns_coefficients: weights of an iteration's three powers. Default (3.4445, -4.775, 2.0315).
        eps: smallest length that a matrix is divided by. In (0, inf). Default 1e-7.
        ns_steps: Newton-Schulz iterations. In [0, 100). Default 5.
        adjust_lr_fn: how a step is scaled: "original" (or None) by sqrt(max(1, rows / columns)),
            "match_rms_adamw" by 0.2 * sqrt(max(rows, columns)). Default None.
        use_muon: False sends a whole group to AdamW. Default True.
        ns_bits: precision of the iterations, 16 (bfloat16, as in torch), 32 or 64. Default 16.
        adamw_betas: the betas of what follows AdamW. Each in [0, 1). Default (0.9, 0.999).
        adamw_eps: its eps. In [0, inf). Default 1e-8.
        adamw_lr_ratio: its learning rate, in lr. In [0, inf). Default 1.
        maximize: climb instead of descend.
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.
        RuntimeError: at the step, for complex parameters and sparse gradients, as torch.

    Example:
        >>> import torch
        >>> import descend
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        >>> hidden, last = model[0].parameters(), model[2].parameters()
        >>> groups = [{"params": hidden}, {"params": last, "lr": 3e-4, "use_muon": False}]
        >>> optimizer = descend.Muon(groups, lr=0.02)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
    """

    hyper_keys: ClassVar[Mapping[str, Where]] = {
        **{word: ("ns_coefficients", k) for k, word in enumerate("abc")},
        "adamw_beta1": ("adamw_betas", 0),
        "adamw_beta2": ("adamw_betas", 1),
    }

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        use_muon: bool = True,
        ns_bits: int = 16,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
        adamw_lr_ratio: float = 1.0,
        maximize: bool = False,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "use_muon": use_muon,
            "ns_bits": ns_bits,
            "adamw_betas": adamw_betas,
            "adamw_eps": adamw_eps,
            "adamw_lr_ratio": adamw_lr_ratio,
            "maximize": maximize,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return group["maximize"], group["adjust_lr_fn"], group["use_muon"]

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return _formed(SCALES[group["adjust_lr_fn"]], bool(group["maximize"]))

    def _rule_of(self, group: Mapping[str, Any], p: torch.Tensor) -> Rule:
        if p.is_complex():
            raise RuntimeError("Muon does not support complex parameters")
        return applying(self._rule(group), p.dim() if group["use_muon"] else 0, "")

    def _check(self, group: Mapping[str, Any]) -> None:
        scale, coefficients, bits = group["adjust_lr_fn"], group["ns_coefficients"], group["ns_bits"]
        if scale not in SCALES:
            allowed = '"original", "match_rms_adamw" or None'
            raise UsageError(f"Adjust learning rate function {scale} is not supported; use {allowed}")
        if len(coefficients) != 3:
            raise UsageError(f"ns_coefficients are three numbers, got {coefficients!r}")
        if bits not in (16, 32, 64):
            raise UsageError(f"ns_bits must be 16 (bfloat16), 32 or 64, got {bits!r}")
        super()._check(group)


@cache
def _formed(name: str, maximize: bool) -> Rule:
    return joined(ascent, rules.get(name)) if maximize else rules.get(name)
