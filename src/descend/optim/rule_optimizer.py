"""An optimizer over any rule or bare formula, its hyper-parameters named as in the formula."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, ClassVar

import torch

from .. import rules
from ..errors import UsageError, nearest
from ..formula import Rule, in_dialect, rule_of, stage
from ..formula.chaining import applying
from ..modifiers import ascent
from ..rules import kept, loading
from .base import FormulaOptimizer, Params
from .checks import check_masks
from .parts import DECAYS, joined


class RuleOptimizer(FormulaOptimizer):
    """Base of the classes that `descend.optimizer` makes."""

    the_rule: ClassVar[Rule]
    made_from: ClassVar[tuple[Any, ...]]

    def __init__(
        self,
        params: Params,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        strict: bool = False,
        **hypers: float | torch.Tensor,
    ) -> None:
        rule = self.the_rule
        known = [h.name for h in rule.hypers]
        for name in hypers:
            if name not in known:
                raise UsageError(
                    f"{rule.name} takes no {name!r}{nearest(name, known)}; it takes {', '.join(known)}"
                )
        defaults = {h.name: hypers.get(h.name, h.default) for h in rule.hypers}
        super().__init__(
            params, {**defaults, "maximize": maximize, "differentiable": differentiable}, strict=strict
        )
        check_masks(rule, self.param_groups)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return group["maximize"], group["differentiable"]

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return joined(ascent, self.the_rule) if group["maximize"] else self.the_rule

    def _rule_of(self, group: Mapping[str, Any], p: torch.Tensor) -> Rule:
        rule = self._rule(group)
        return applying(rule, p.dim(), self._place(p)[1]) if rule.is_masked else rule

    def _sparse(self, group: Mapping[str, Any]) -> str:
        return "dense"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # the class was made at run time: pickle looks it up by what it was made from
        given, decay = self.made_from
        if isinstance(given, Rule) and loading.is_own(given):  # of a file that no other process has imported
            text = kept.text_of(given)
            _BY_TEXT.setdefault(text, given)
            return _blank_of_text, (text, decay), self.__getstate__()
        return _blank, self.made_from, self.__getstate__()

    def __deepcopy__(self, memo: dict[int, Any]) -> RuleOptimizer:
        from copy import deepcopy

        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(deepcopy(self.__getstate__(), memo))
        return twin


_BY_TEXT: dict[str, Rule] = {}
"""Rules of files that were pickled here, so that they come back as the same ones."""


def _blank(made_from: Any, decay: str | None) -> RuleOptimizer:
    kind = class_of(rules.get(*made_from) if isinstance(made_from, tuple) else made_from, decay)
    return kind.__new__(kind)


def _blank_of_text(text: str, decay: str | None) -> RuleOptimizer:
    return _blank(_BY_TEXT.get(text) or kept.from_text(text), decay)


def optimizer(
    rule: str | os.PathLike[str] | Rule | Callable[..., Any],
    *,
    decay: str | None = None,
    dialect: str | None = None,
) -> type[FormulaOptimizer]:
    """The optimizer class of a rule: a name of `descend rules`, a file, a Rule, or a bare formula.

    A name that torch.optim has a class for gives that class ("adam" gives `descend.Adam`, and "sgd"
    `descend.SGD`); all others take the rule's hyper-parameters by their names.
    "my_rule.py" is the rule in that file, "my_rule.py:name" one of several.

    `decay` adds weight decay, and its strength as the hyper-parameter `weight_decay`, to a rule: "coupled"
    (L2: p*weight_decay joins the gradient), "decoupled" (p shrinks by lr*weight_decay each step) or
    "independent" (p shrinks by weight_decay each step, whatever lr is).

    `dialect` gives the rule as "torch", "keras" or "optax" compute it or as the "paper" has it, with their
    defaults; its hyper-parameters have the formula's names. docs/dialects.md says how they differ.

    >>> import torch
    >>> def signs(p, g, lr=0.1):
    ...     p = p - lr * sign(g)
    ...     return p
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> opt = optimizer("momentum", decay="independent")([w], lr=0.01, weight_decay=1e-4)
    >>> opt = optimizer("nadam", dialect="keras")([w], beta1=0.95)

    Raises UsageError for an unknown name or dialect, FormulaError for a formula that cannot be read.
    """
    if decay is not None and decay not in DECAYS:
        raise UsageError(f"unknown decay {decay!r}{nearest(decay, DECAYS)}; use one of {', '.join(DECAYS)}")
    if isinstance(rule, os.PathLike):
        rule = os.fspath(rule)
    if isinstance(rule, str):
        from . import BY_SHAPE, CLASSES
        from .adafactor import by_shape

        if decay is None and dialect in (None, "torch") and (rule in CLASSES or rule in BY_SHAPE):
            return CLASSES.get(rule) or BY_SHAPE[rule]
        if rule == "sgd":
            raise UsageError(
                "'sgd' stands for three rules; with a decay or dialect, name one: "
                "gradient_descent, momentum or nesterov"
            )
        if rule == "adafactor" and dialect not in (None, "torch"):  # it has a formula for every shape
            return by_shape(dialect, decay)
        return class_of(rules.get(rule, dialect), decay)
    return class_of(rule if dialect is None else in_dialect(rule_of(rule), dialect), decay)


@cache
def class_of(
    given: Rule | Callable[..., Any], decay: str | None = None, base: type[RuleOptimizer] | None = None
) -> type[RuleOptimizer]:
    """The class that takes a rule's hyper-parameters by their names; one and the same for one rule."""
    found = rule_of(given)
    if decay is not None:
        if any(h.name == "weight_decay" for h in found.hypers):
            raise UsageError(
                f"{found.name} has a weight_decay of its own: set it, and leave decay={decay!r} out"
            )
        found = joined(DECAYS[decay], found)
    stage(found)
    space = {
        "the_rule": found,
        "made_from": ((rules.name_of(given) if isinstance(given, Rule) else None) or given, decay),
        "__doc__": _page(found),
        "__module__": __name__,
    }
    made = type(found.name, (base or RuleOptimizer,), space)
    plain = inspect.Parameter
    made.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            plain("params", plain.POSITIONAL_OR_KEYWORD),
            *(plain(h.name, plain.KEYWORD_ONLY, default=h.default) for h in found.hypers),
            *(
                plain(flag, plain.KEYWORD_ONLY, default=False)
                for flag in ("maximize", "differentiable", "strict")
            ),
        ]
    )
    return made


def _page(rule: Rule) -> str:
    """The class's docstring: the rule's page, its formula, and its hyper-parameters."""
    lines = [rule.doc.strip() or f"An optimizer that follows {rule.name}.", "", "The rule:", ""]
    lines += [f"    {line}" for line in rule.formula_text.splitlines()]
    lines += ["", "Args:", "    params: the parameters, as torch.optim takes them."]
    lines += [
        f"    {h.name}: {h.doc or 'a number'}. In {h.allowed}. Default {h.default:g}." for h in rule.hypers
    ]
    lines += [
        "    maximize: climb instead of descend.",
        "    differentiable: let autograd record the step.",
        "    strict: refuse values that are allowed but make no sense, instead of warning.",
    ]
    return "\n".join(lines)
