"""Adafactor, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import rules
from ..errors import UsageError
from ..formula import Rule
from ..modifiers import ascent
from .base import FormulaOptimizer, Params
from .checks import Where
from .parts import DECAYS, joined
from .rule_optimizer import RuleOptimizer, class_of


class Adafactor(FormulaOptimizer):
    """Adafactor keeps of a matrix's squared gradients only an average by row and one by column.

    Vectors and numbers follow the rule `adafactor_vector`, matrices `adafactor`, and tensors of more
    dimensions `adafactor_stack`, which factors their last two.

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: largest relative step. In [0, inf). Default 0.01.
        beta2_decay: power of t by which the averages come to rest. In (-inf, 0]. Default -0.8.
        eps: the pair (eps1, eps2). Default (None, 0.001).
            eps1: smallest root of v; None for the epsilon of the parameter's type. In [0, inf).
            eps2: smallest root mean square that a tensor is taken to have. In [0, inf).
        d: root mean square above which an update is clipped. In [1, inf). Default 1.
        weight_decay: share of p removed each step, times lr. In [0, inf). Default 0.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        maximize: climb instead of descend.
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.
        RuntimeError: at the step, for complex parameters and sparse gradients, as torch.

    Example:
        >>> import torch
        >>> import descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.Adafactor(model.parameters(), lr=0.01)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
    """

    hyper_keys: ClassVar[Mapping[str, Where]] = {"eps1": ("eps", 0), "eps2": ("eps", 1)}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return bool(group["maximize"])

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return _typed("adafactor", torch.float32, group["maximize"])

    def _rule_of(self, group: Mapping[str, Any], p: Tensor) -> Rule:
        if p.is_complex():
            raise RuntimeError("Adafactor does not support complex parameters")
        return _typed(_FOR_DIMENSIONS[min(p.dim(), 3)], p.dtype, group["maximize"])

    def _values(self, rule: Rule, exact: bool = False) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
        """As in the base; where eps1 is None, the epsilon of the type that the rule is for."""
        plain = super()._values(rule, exact)
        least = torch.finfo(_TYPES[rule.inner]).eps

        def read(group: dict[str, Any]) -> tuple[Any, ...]:
            eps1, eps2 = group["eps"]
            return plain({**group, "eps": (least, eps2)} if eps1 is None else group)

        return read

    def _check(self, group: Mapping[str, Any]) -> None:
        eps1, eps2 = group["eps"]
        limits = (
            (eps1 is None or eps1 >= 0, f"epsilon1 should be >= 0 or None but is: {eps1}"),
            (eps2 >= 0, f"epsilon2 should be >= 0 but is: {eps2}"),
            (group["beta2_decay"] <= 0, f"beta2_decay should be <= 0 but is: {group['beta2_decay']}"),
            (group["d"] >= 1, f"Clipping threshold d should be >= 1 but is: {group['d']}"),
        )
        for holds, otherwise in limits:
            if not holds:
                raise UsageError(otherwise)
        super()._check({**group, "eps": (0.0 if eps1 is None else eps1, eps2)})


_FOR_DIMENSIONS = ("adafactor_vector", "adafactor_vector", "adafactor", "adafactor_stack")

_TYPES: dict[Rule, torch.dtype] = {}
"""The type of parameter that a rule was made for."""


@cache
def _typed(name: str, dtype: torch.dtype, maximize: bool) -> Rule:
    """A rule for parameters of one type, so that they share a plan with no others."""
    plain = rules.get(name)
    made = replace(joined(ascent, plain) if maximize else plain)
    _TYPES[made] = dtype
    return made


class ByShape(RuleOptimizer):
    """Base of the classes of Adafactor in a dialect, which choose the formula by a parameter's shape."""

    def _rule_of(self, group: Mapping[str, Any], p: Tensor) -> Rule:
        _, decay, dialect = self.made_from
        name = _FOR_DIMENSIONS[min(p.dim(), 3)]
        rule = rules.get(_optax_s(p.shape) if dialect == "optax" else name, dialect)
        parts = [*([ascent] if group["maximize"] else []), *([DECAYS[decay]] if decay else [])]
        return joined(*parts, rule)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _blank, self.made_from[1:], self.__getstate__()


def _blank(decay: str | None, dialect: str) -> RuleOptimizer:
    kind = by_shape(dialect, decay)
    return kind.__new__(kind)


@cache
def by_shape(dialect: str, decay: str | None = None) -> type[RuleOptimizer]:
    """The class of Adafactor in a dialect other than torch's."""
    made = class_of(rules.get("adafactor", dialect), decay, ByShape)
    made.made_from = (*made.made_from, dialect)
    return made


def _optax_s(shape: Sequence[int]) -> str:
    """What optax does with a shape: it factors the two largest dimensions if both are 128 or more."""
    order = sorted(range(len(shape)), key=lambda k: shape[k])
    if len(shape) < 2 or shape[order[-2]] < 128:
        return "adafactor_vector"
    if {*order[-2:]} != {len(shape) - 2, len(shape) - 1}:
        raise UsageError(
            f"optax's Adafactor factors the two largest dimensions of a tensor of shape {tuple(shape)}, "
            'and here only the last two can be: leave it out, or take dialect="keras"'
        )
    return _FOR_DIMENSIONS[min(len(shape), 3)]
