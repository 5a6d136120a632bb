"""What an optimizer refuses: values out of range, misspelt group keys, states that belong elsewhere."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import torch

from .. import rules
from ..errors import UsageError
from ..formula import Hyper, Range, Rule

Where = str | tuple[str, int]
"""Where a group keeps a hyper-parameter: under a key, or at a place of a tuple under a key."""

_WORDS = {"lr": "learning rate", "eps": "epsilon value"}


def raw(group: Mapping[str, Any], where: Where) -> Any:
    """The value of a hyper-parameter as it stands in a group."""
    return group[where] if isinstance(where, str) else group[where[0]][where[1]]


def check_values(
    group: Mapping[str, Any], hypers: Iterable[Hyper], keys: Mapping[str, Where], strict: bool
) -> None:
    """Every hyper-parameter of a group against its range, in torch's words.

    Raises UsageError for values outside the allowed range, and under `strict` for those that are allowed but
    make no sense; these only warn otherwise.
    """
    for hyper in hypers:
        where = keys.get(hyper.name, hyper.name)
        given = raw(group, where)
        if isinstance(given, torch.Tensor) and given.numel() != 1:
            name = where if isinstance(where, str) else f"{where[0]}[{where[1]}]"
            raise UsageError(f"Tensor {name} must be 1-element")
        value = float(given.detach() if isinstance(given, torch.Tensor) else given)
        if not Range(hyper.allowed).holds(value):
            if isinstance(where, tuple):
                what = f"{where[0].removesuffix('s')} parameter at index {where[1]}"
            else:
                what = _WORDS.get(where, f"{where} value")
            raise UsageError(f"Invalid {what}: {given}; it must lie in {hyper.allowed}")
        doubt = hyper.check(value)
        if doubt and strict:
            raise UsageError(doubt)
        if doubt:
            warnings.warn(doubt, stacklevel=_caller())


def _caller() -> int:
    """The `stacklevel` of the line outside this library and torch that made the optimizer."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ("descend", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def check_keys(group: Mapping[str, Any], known: Collection[str], name: str) -> None:
    """Refuse a group key within a letter or two of a known one; other unknown keys pass, as in torch.

    Raises UsageError that names the key which was probably meant.
    """
    for key in group:
        if key in known or key in ("params", "param_names") or not isinstance(key, str):
            continue
        for meant in known:
            if _distance(key.lower(), meant) <= (1 if min(len(key), len(meant)) < 4 else 2):
                raise UsageError(
                    f"unknown key {key!r} in a parameter group of {name} (did you mean {meant!r}?); "
                    "keys that resemble none of the optimizer's pass"
                )


def check_masks(rule: Rule, groups: Iterable[Mapping[str, Any]]) -> None:
    """Refuse parts of a chain that go by names where there are none, or none that fits.

    Raises UsageError that says how to give names, or names the parameters that are nearly meant.
    """
    for formula in rule.formulas:
        for pattern in (pattern for mask in formula.masks for pattern in mask.names):
            names = [name for group in groups for name in group.get("param_names", ())]
            if not names:
                raise UsageError(
                    f"{formula.name!r} goes by the names of parameters ({pattern!r}), and these have none: "
                    "give model.named_parameters() instead of model.parameters()"
                )
            check_pattern(pattern, names, f"for {formula.name!r}")


def check_pattern(pattern: str, names: Collection[str], what: str) -> None:
    """Refuse a pattern that fits none of the names."""
    if not any(fnmatchcase(name, pattern) for name in names):
        near = get_close_matches(pattern, names, n=3, cutoff=0.3) or list(names)[:3]
        raise UsageError(
            f"no parameter has a name like {pattern!r} ({what}); there are, for example, {', '.join(near)}"
        )


def _distance(a: str, b: str) -> int:
    """How many letters must be added, dropped, changed or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            best = min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, earlier[j - 2] + 1)
            row.append(best)
    return row[-1]


def check_saved_groups(
    groups: list[dict[str, Any]], saved: list[dict[str, Any]], needed: Collection[str], name: str
) -> None:
    """Refuse parameter groups of another number, size or rule (torch's own words for the first two)."""
    if len(groups) != len(saved):
        raise UsageError("loaded state dict has a different number of parameter groups")
    for k, (group, other) in enumerate(zip(groups, saved, strict=True)):
        if len(group["params"]) != len(other["params"]):
            raise UsageError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's "
                f"group: group {k} has {len(group['params'])} parameters here, {len(other['params'])} there"
            )
        missing = [key for key in needed if key not in other]
        if missing:
            has = ", ".join(key for key in other if key not in ("params", "param_names"))
            raise UsageError(
                f"this state dict is not one of {name}: its parameter group {k} has no {missing[0]!r}; "
                f"it has {has}. Load it into the class that saved it"
            )


def check_saved_state(
    p: torch.Tensor,
    state: Mapping[str, Any],
    elements: Mapping[str, torch.Size],
    scalars: Collection[str],
    name: str,
) -> None:
    """Refuse a parameter's saved state of another rule or of another shape than `elements` says."""
    own = {*elements, *scalars, "step"}
    foreign = [key for key in state if key in _state_keys() and key not in own]
    if foreign:
        keeps = ", ".join(map(repr, [*elements, *scalars])) or "nothing"
        raise UsageError(
            f"this state dict is not one of {name}: it holds {', '.join(map(repr, foreign))}, "
            f"{name} keeps {keeps}. Load it into the class that saved it"
        )
    for key, value in state.items():
        if key in elements and isinstance(value, torch.Tensor) and value.shape != elements[key]:
            raise UsageError(
                f"the saved state {key!r} has shape {tuple(value.shape)}, its parameter {tuple(p.shape)}: "
                "the state dict belongs to another model, or its parameters are in another order"
            )


@cache
def _state_keys() -> frozenset[str]:
    """What the rules call their states: none of these is another tool's own."""
    known = [form for rule in map(rules.get, rules.built_in()) for form in (rule, *rule.dialects.values())]
    return frozenset(state.key for form in known for state in form.states)
