"""From a rule's name, a class or a function to an optimizer over a model's parameters, and back to words."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import rules
from ..errors import UsageError, nearest
from ..formula import Rule as Formulas
from ..optim import optimizer
from . import own_rule
from .own_rule import Keeping

Rule = str | os.PathLike[str] | Formulas | torch.optim.Optimizer | Callable[..., Any]
"""A name, a file, a Rule or a bare formula; an optimizer, or what makes one from parameters."""

# How to take a step, not which: left out of a configuration.
_HOW = ("params", "maximize", "foreach", "capturable", "differentiable", "fused")


@dataclass(frozen=True)
class Choice:
    """Something that was decided for the user: what, to which value, and why."""

    what: str
    value: Any
    why: str

    def table(self) -> dict[str, Any]:
        """As `config.toml` holds it."""
        return {"what": self.what, "value": self.value, "why": self.why}


@dataclass
class Made:
    """An optimizer with its name and its hyper-parameters as they are, by the names of the rule."""

    optimizer: torch.optim.Optimizer
    name: str
    hypers: dict[str, Any]
    choices: list[Choice] = field(default_factory=list)
    keeping: Keeping | None = None
    """What a run directory keeps of a rule of one's own."""

    @property
    def files(self) -> dict[str, bytes]:
        """What the run directory holds of the rule."""
        return self.keeping.files if self.keeping else {}

    @property
    def lr(self) -> float:
        """The learning rate at the start."""
        return float(self.hypers.get("lr", math.nan))


def check_rate(lr: Any) -> float | None:
    """The learning rate as a float, None as None.

    Raises:
        UsageError: no finite number from 0.
    """
    if lr is None:
        return None
    number = isinstance(lr, (int, float)) and not isinstance(lr, bool)
    if not number or not math.isfinite(lr) or lr < 0:
        raise UsageError(f"lr={lr!r}: the learning rate must be a finite number from 0, such as 0.01")
    return float(lr)


def factory(rule: Any, dialect: str | None = None) -> tuple[Callable[..., torch.optim.Optimizer], str]:
    """The class or function that makes the optimizer, and what to call it.

    A name is one of `descend.rules.names()`, a file as `my_rule.py` or `my_rule.py:name`, or a torch class as
    `torch.optim.RMSprop`. `dialect` says whose form of the rule is wanted.

    Raises:
        UsageError: no such rule or dialect, or nothing that makes optimizers.
    """
    if dialect is not None and not own_rule.is_formula(rule) and not _is_name(rule):
        raise UsageError(f"dialect={dialect!r} is for rules of descend; {rule!r} is none")
    if isinstance(rule, os.PathLike):
        rule = os.fspath(rule)
    if isinstance(rule, str):
        if rule.startswith("own:"):
            raise UsageError(
                f"the rule {rule.removeprefix('own:')} was given in Python; its run keeps it as rule.py: "
                "name that file, as in --rule RUN/rule.py"
            )
        if rule.startswith("torch.optim."):
            name = rule.removeprefix("torch.optim.")
            found = getattr(torch.optim, name, None)
            if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
                raise UsageError(f"rule {rule!r}: torch.optim has no optimizer of this name")
            return found, rule
        return optimizer(rule, dialect=dialect), own_rule.whole_name(rule)
    if own_rule.is_formula(rule):
        made = optimizer(rule, dialect=dialect)
        return made, f"own:{made.__name__}"
    if callable(rule) and not isinstance(rule, torch.optim.Optimizer):
        if isinstance(rule, type) and rule.__module__.startswith("torch.optim."):
            return rule, f"torch.optim.{rule.__name__}"
        return rule, f"own:{getattr(rule, '__name__', type(rule).__name__)}"
    raise UsageError(
        f"rule {rule!r}: give a name of `descend rules`, a file such as my_rule.py, a Rule or a formula of p "
        "and g, a torch.optim.Optimizer, or a function that makes one from parameters"
    )


def make(rule: Rule, parameters: Sequence[Tensor], lr: float | None, hypers: Mapping[str, Any]) -> Made:
    """An optimizer over `parameters`, with `lr` and `hypers` where they are given.

    Among the hyper-parameters may be the "dialect" of the rule.

    Raises:
        UsageError: an unknown rule or hyper-parameter, a value out of range, or an optimizer of other
            parameters.
    """
    lr = check_rate(lr)
    if isinstance(rule, torch.optim.Optimizer):
        if lr is not None or hypers:
            raise UsageError("an optimizer brings its own hyper-parameters: set lr and the others on it")
        _check_own(rule, parameters)
        return Made(rule, f"own:{type(rule).__name__}", _read(rule, None))
    rule, dialect = _in_words(rule, hypers.get("dialect"))
    maker, name = factory(rule, dialect)
    given = {key: value for key, value in hypers.items() if key != "dialect"}
    arguments = _folded(maker, {**({} if lr is None else {"lr": lr}), **given})
    _check_names(maker, name, arguments)
    try:
        made = maker(parameters, **arguments)
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(f"rule {name}: {error}") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise UsageError(f"rule {name} made a {type(made).__name__}, not a torch.optim.Optimizer")
    _check_own(made, parameters)
    spoken = {} if dialect is None else {"dialect": dialect}
    found = Made(made, name, {**spoken, **_read(made, maker)}, keeping=own_rule.keeping(maker, name))
    if lr is None and not math.isnan(found.lr):
        whose = name if dialect is None else f"{name} ({dialect})"
        found.choices.append(Choice("learning rate", found.lr, f"the default of {whose}"))
    return found


def _is_name(rule: Any) -> bool:
    return isinstance(rule, (str, os.PathLike)) and not str(rule).startswith("torch.optim.")


def _in_words(rule: Rule, dialect: Any) -> tuple[Rule, Any]:
    """A built-in rule in a dialect as its name and the dialect, so that a run can name both."""
    known = rules.name_of(rule) if isinstance(rule, Formulas) else None
    return known if known and known[1] else (rule, dialect)


def _folded(maker: Any, given: dict[str, Any]) -> dict[str, Any]:
    """`beta1` and `beta2` as the pair `betas`, for the classes that have it so."""
    keys: Mapping[str, Any] = getattr(maker, "hyper_keys", {})
    folded: dict[str, Any] = {}
    for name, value in given.items():
        where = keys.get(name, name)
        if isinstance(where, str):
            folded[where] = value
            continue
        key, place = where
        pair = list(folded.get(key) or inspect.signature(maker).parameters[key].default)
        pair[place] = value
        folded[key] = tuple(pair)
    return folded


def _arguments(maker: Any) -> list[str] | None:
    """The names that a class or function takes; None for any."""
    try:
        parameters = inspect.signature(maker).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return [key for key in parameters if key != "params"]


def _check_names(maker: Any, name: str, arguments: Iterable[str]) -> None:
    known = _arguments(maker)
    for key in arguments:
        if known is not None and key not in known:
            raise UsageError(
                f"rule {name} takes no {key!r}{nearest(key, known)}; it takes {', '.join(known)}"
            )


def _check_own(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held <= {id(p) for p in parameters}:
        raise UsageError(
            "the optimizer holds parameters that are not the model's: make it from model.parameters()"
        )


def _read(optimizer: torch.optim.Optimizer, maker: Any) -> dict[str, Any]:
    """The hyper-parameters of the first group as plain numbers, under the rule's own names where it has some.

    Only those that `maker` takes again, so that a configuration can be run again.
    """
    group = optimizer.param_groups[0]
    keys: Mapping[str, Any] = getattr(optimizer, "hyper_keys", {})
    taken = None if maker is None else _arguments(maker)
    found: dict[str, Any] = {}
    folded = set()
    for name, where in keys.items():
        key, place = (where, None) if isinstance(where, str) else where
        found[name] = group[key] if place is None else group[key][place]
        folded.add(key)
    for key, value in group.items():
        if key in folded or key in _HOW or key.startswith("initial_") or (taken and key not in taken):
            continue
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, (bool, int, float, str)):
            found[key] = value
        elif isinstance(value, (tuple, list)) and all(isinstance(v, (bool, int, float)) for v in value):
            found[key] = list(value)
    return {"lr": found.pop("lr"), **found} if "lr" in found else found
