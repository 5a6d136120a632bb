"""Dialects: the forms that one rule has in torch, in Keras, in optax and in its paper.

    @dialect(torch={}, optax={})
    @rule(title="Momentum", source="Polyak 1964, ...")
    def momentum(p, g, t, b=State(...), lr=Hyper(...), ...):
        ...

    @dialect(momentum, keras={"lr": 0.01}, paper={})
    def lr_inside(p, g, b, lr, momentum):
        b = momentum * b + lr * g
        p = p - b
        return p, b

Over a rule, the decorator says whose form the rule itself is: the first of the names is the rule, the others
are the same formula with the defaults that are given. Over another formula it names a rule and says for whom
that rule reads so; what the formula does not declare anew is declared as in the rule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FunctionType
from typing import Any, cast, overload

from ..errors import FormulaError, UsageError, nearest
from .declared import Hyper, State
from .rule import GIVEN, Formula, Rule

DIALECTS = {"torch": "torch", "keras": "Keras", "optax": "optax", "paper": "the paper"}
"""Whose form of a rule can be asked for, and what each is called."""

Defaults = Mapping[str, float]
Written = Callable[..., Any]


@overload
def dialect(**forms: Defaults) -> Callable[[Rule], Rule]: ...


@overload
def dialect(of: Rule, /, **forms: Defaults) -> Callable[[Written], Rule]: ...


def dialect(of: Rule | None = None, /, **forms: Defaults) -> Callable[[Any], Rule]:
    """Say whose form of a rule a formula is, and with which defaults.

    Raises FormulaError for a name that is none of DIALECTS, an argument that neither the formula nor the rule
    declares, or a default of no hyper-parameter.
    """
    for word in forms:
        if word not in DIALECTS:
            raise FormulaError(
                f"unknown dialect {word!r}{nearest(word, DIALECTS)}; use {', '.join(DIALECTS)}"
            )

    def itself(rule: Rule) -> Rule:
        first, *others = forms
        rule = replace(rule, dialect=first)
        rule.dialects[first] = rule
        for word in others:
            rule.dialects[word] = _form(rule, word, rule.formulas[0], forms[word])
        return rule

    def another(function: Written) -> Rule:
        assert of is not None
        formula = replace(Formula.of(_declared(function, of)), otherwise=of.formulas[0].otherwise)
        for word, defaults in forms.items():
            of.dialects[word] = _form(of, word, formula, defaults)
        return of.dialects[word]

    return itself if of is None else another


def in_dialect(rule: Rule, word: str) -> Rule:
    """The form of a rule in a dialect.

    >>> from descend import rules
    >>> in_dialect(rules.get("adam"), "keras").hyper("eps").default
    1e-07

    Raises UsageError that names the dialects that there are.
    """
    if word in rule.dialects:
        return rule.dialects[word]
    has = ", ".join(one for one in DIALECTS if one in rule.dialects)
    if word in DIALECTS and has:
        raise UsageError(f"{rule.name} has no dialect {word!r}: it has {has}")
    if word in DIALECTS:
        raise UsageError(f"{rule.name} has no dialects: leave dialect={word!r} out")
    raise UsageError(
        f"unknown dialect {word!r}{nearest(word, DIALECTS)}; {rule.name} has {has or 'none: leave it out'}"
    )


def _form(rule: Rule, word: str, formula: Formula, defaults: Defaults) -> Rule:
    known = [h.name for h in formula.hypers]
    for given in defaults:
        if given not in known:
            raise FormulaError(f"{formula.name} has no hyper-parameter {given!r}{nearest(given, known)}")
    hypers = tuple(replace(h, default=defaults.get(h.name, h.default)) for h in formula.hypers)
    title = f"{rule.title} as in {DIALECTS[word]}"
    own = inspect.getdoc(formula.function)
    doc = f"{title}: {own}\n\n{rule.doc}" if own else f"{title}.\n\n{rule.doc}"
    form = replace(formula, name=rule.name, hypers=hypers)
    return replace(rule, name=f"{rule.name} ({word})", formulas=(form,), title=title, doc=doc, dialect=word)


def _declared(function: Written, rule: Rule) -> Written:
    """The function with the rule's own declarations of what it takes and does not declare."""
    parts: list[State | Hyper] = [*rule.states, *rule.hypers]
    known = {part.name: part for part in parts}
    defaults = []
    for word, argument in inspect.signature(function).parameters.items():
        if argument.default is not argument.empty:
            defaults.append(argument.default)
        elif word in known:
            defaults.append(known[word])
        elif word not in GIVEN:
            raise FormulaError(
                f"{function.__name__}: {rule.name} has no {word!r}{nearest(word, known)}; "
                "give it a default: a number, Hyper(…) or State(…)"
            )
    cast(FunctionType, function).__defaults__ = tuple(defaults)
    return function
