"""Chains by the names of their parts: "clip_global_norm + adamw + cautious"."""

from __future__ import annotations

from functools import cache

from . import modifiers, rules
from .errors import UsageError, nearest
from .formula import Rule, chain


@cache
def parts() -> dict[str, Rule]:
    """The modifiers by name.

    >>> "clip_value" in parts()
    True
    """
    return {part.name: part for part in vars(modifiers).values() if isinstance(part, Rule)}


def named(text: str, dialect: str | None = None) -> Rule:
    """The chain of which `text` names the parts in order, with + between them; one object for one chain.

    A part is a modifier of `descend.modifiers`, or a rule as `descend.rules.get` takes it; `dialect` is the
    rule's.

    >>> named("clip_value + adam").name
    'clip_value + adam'

    Raises UsageError for an unknown name, and for parts that make no chain.
    """
    words = [word.strip() for word in text.split("+")]
    if not all(words):
        raise UsageError(f"{text!r}: a part is missing beside a +; write it as in 'clip_value + adamw'")
    return _chained(tuple(words), dialect)


@cache
def _chained(words: tuple[str, ...], dialect: str | None) -> Rule:
    return chain(*(_part(word, dialect) for word in words), name=" + ".join(words))


def _part(word: str, dialect: str | None) -> Rule:
    if word in parts():
        return parts()[word]
    if rules.loading.is_file(word) or word in rules.names():
        return rules.get(word, dialect)
    known = [*parts(), *rules.names()]
    raise UsageError(
        f"unknown part {word!r} of a chain{nearest(word, known)}; the modifiers are {', '.join(parts())}; "
        f"the rules are {', '.join(rules.names())}"
    )
