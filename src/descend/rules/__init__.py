"""The update rules, one formula file each. A new file here is a new rule; nothing else is registered.

Rules from elsewhere are found by the same names: a file of one's own (`loading`) as `"my_rule.py"`, and what
other packages register (`packages`).
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UsageError, nearest
from ..formula import Rule, in_dialect
from . import loading, packages

_NO_RULES = ("kept", "loading", "packages")
"""The files here that hold no rule."""


@cache
def built_in() -> list[str]:
    """The name of every rule of this package, which is also the name of its file."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_RULES)


def names() -> list[str]:
    """The name of every rule: the built-in ones, and those that other packages register.

    >>> "adam" in names()
    True
    """
    return sorted([*built_in(), *_registered().by_name])


def notices() -> tuple[str, ...]:
    """What is wrong with rules that other packages register, a sentence each."""
    return _registered().notices


def _registered() -> packages.Found:
    return packages.found([*built_in(), "sgd"])  # "sgd" names a class


def get(name: str, dialect: str | None = None) -> Rule:
    """The rule of that name; in the form of "torch", "keras", "optax" or "paper" where a dialect is given.

    The name is a built-in rule's, one that another package registers, or a file's: "my_rule.py", or
    "my_rule.py:name" where it holds several; or several joined by +, with modifiers around one rule:
    "clip_global_norm + adamw".

    >>> print(get("momentum", "keras").formula_text)
    b = momentum * b + lr * g
    p = p - b

    Raises UsageError with the nearest name, or with the dialects that there are; or with what is wrong with
    the file or the package.
    """
    if _is_chain(name):
        whole: Rule = chains().named(name, dialect)
        return whole
    found = _get(name)
    return found if dialect is None else in_dialect(found, dialect)


def chains() -> Any:
    """The module of chains by name, which imports this one."""
    return importlib.import_module("..chains", __name__)


def _is_chain(name: str) -> bool:
    return "+" in name and not (loading.is_file(name) and loading.parts(name)[0].is_file())


def name_of(rule: Rule) -> tuple[str, str | None] | None:
    """The name of a built-in rule and, for a form of it, the dialect; None for a rule from elsewhere.

    >>> name_of(get("nadam", "keras"))
    ('nadam', 'keras')
    """
    name = rule.name.removesuffix(f" ({rule.dialect})")
    if name not in built_in():
        return None
    dialect = rule.dialect if name != rule.name else None
    found = _get(name) if dialect is None else _get(name).dialects.get(dialect)
    return (name, dialect) if found is rule else None


def _get(name: str) -> Rule:
    if name in built_in():
        found = getattr(importlib.import_module(f"{__name__}.{name}"), name)
        assert isinstance(found, Rule)
        return found
    if loading.is_file(name):
        return loading.load(name)
    others = _registered().by_name
    if name in others:
        return packages.load(name, others[name])
    beside = f"; the file of that name is {name}.py" if Path(f"{name}.py").is_file() else ""
    if name in chains().parts():
        raise UsageError(f"{name} is a modifier, which needs a rule beside it, as in '{name} + adamw'")
    raise UsageError(
        f"unknown rule {name!r}{beside or nearest(name, names())}; the rules are {', '.join(names())}"
    )
