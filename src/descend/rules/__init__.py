"""The update rules, one formula file each. A new file here is a new rule; nothing else is registered."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ..errors import UsageError, nearest
from ..formula import Rule


@cache
def names() -> list[str]:
    """The name of every rule, which is also the name of its file.

    >>> "adam" in names()
    True
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Rule:
    """The rule of that name. Raises UsageError with the nearest name."""
    if name not in names():
        raise UsageError(f"unknown rule {name!r}{nearest(name, names())}; the rules are {', '.join(names())}")
    found = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    assert isinstance(found, Rule)
    return found
