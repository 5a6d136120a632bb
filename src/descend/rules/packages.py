"""Rules of other packages: what they register in the entry-point group `descend.rules`.

    [project.entry-points."descend.rules"]
    mine = "my_package.rules:mine"

Nothing is looked for until a name is asked for that is no built-in rule's, and a package is imported only
when its own rule is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import FunctionType

from ..errors import UsageError
from ..formula import Rule, rule_of

GROUP = "descend.rules"


@dataclass(frozen=True)
class Found:
    """What is registered: by the name of each rule its entry points, and what is wrong with others."""

    by_name: dict[str, tuple[EntryPoint, ...]]
    notices: tuple[str, ...]


def found(taken: Collection[str]) -> Found:
    """All that is registered; a built-in rule's name, in `taken`, stays the built-in's, with a notice."""
    return _found(frozenset(taken))


@cache
def _found(taken: frozenset[str]) -> Found:
    by_name: dict[str, tuple[EntryPoint, ...]] = {}
    notices = []
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        if entry.name in taken:
            notices.append(
                f"{package(entry)} registers a rule {entry.name!r}, which is the name of a built-in rule: "
                "the built-in is used; the package must give its own another name"
            )
        elif not entry.name.isidentifier():
            notices.append(
                f"{package(entry)} registers a rule {entry.name!r}; a rule's name must be a plain word"
            )
        elif entry not in by_name.get(entry.name, ()):
            by_name[entry.name] = (*by_name.get(entry.name, ()), entry)
    return Found(by_name, tuple(notices))


def package(entry: EntryPoint) -> str:
    """The package that registered something, with its version."""
    return (
        f"the package {entry.dist.name} {entry.dist.version}"
        if entry.dist
        else f"the package of {entry.value}"
    )


@cache
def load(name: str, entries: tuple[EntryPoint, ...]) -> Rule:
    """The registered rule, under the name it is registered by.

    Raises UsageError that names the package: two register it, it cannot be imported, or it is no rule.
    """
    if len(entries) > 1:
        both = " and ".join(package(entry) for entry in entries)
        raise UsageError(f"the rule {name!r} is registered by {both}: uninstall one of them")
    entry = entries[0]
    try:
        made = entry.load()
    except Exception as error:
        raise UsageError(
            f"the rule {name!r} of {package(entry)} cannot be loaded from {entry.value}: "
            f"{type(error).__name__}: {error}. Update or uninstall that package"
        ) from error
    if not isinstance(made, (Rule, FunctionType)):
        raise UsageError(
            f"the rule {name!r} of {package(entry)} is a {type(made).__name__} ({entry.value}); "
            "an entry point of descend.rules must name a Rule or a bare formula"
        )
    rule = rule_of(made)
    return rule if rule.name == name else replace(rule, name=name)
