"""Chains: formulas around a rule, parts that apply to some parameters only, parts with other names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from typing import Any

from ..errors import UsageError, nearest
from .declared import Hyper, State
from .masks import Mask
from .nodes import walk
from .rule import GIVEN, Formula, Rule, rule_of

Part = Rule | Callable[..., Any]
"""A modifier or a rule: one of `descend.modifiers` or `descend.rules`, or a bare formula."""


def chain(*parts: Part, name: str | None = None) -> Rule:
    """A rule between its modifiers: each part sees p, g and u as the one before left them.

    Parts that change `g` or `p` stand before the rule; parts that change `u` (the rule's update) or only
    keep something of their own stand after it. All of them become one program, so a chain takes no more
    passes over memory than its sums demand. Parts share a hyper-parameter of one name, as `lr`, which then
    has the rule's default; `renamed` keeps them apart, and `only` lets a part apply to some parameters.

    >>> from descend import rules
    >>> def clip(g, top=1.0):
    ...     g = minimum(maximum(g, -top), top)
    ...     return g
    >>> chain(clip, rules.get("adam")).name
    'clip + adam'

    Raises UsageError for no rule or two, a part on the wrong side, or two states of one name; FormulaError
    for a part that cannot be read.
    """
    for part in parts:
        if not isinstance(part, Rule) and not callable(part):
            raise UsageError(f"a chain is made of rules and formulas, not of {part!r}{_meant(part)}")
    given = [rule_of(part) for part in parts]
    joined = tuple(formula for r in given for formula in r.formulas)
    ruling = [k for k, formula in enumerate(joined) if formula.place == "rule"]
    if len(ruling) != 1:
        found = ", ".join(joined[k].name for k in ruling) or "none"
        why = f"a chain holds exactly one rule, a formula from g to p; here: {found}"
        if ruling:
            joined[ruling[1]].reading.source.refuse(
                None, f"{why}. Leave one, or give the parameters two optimizers"
            )
        raise UsageError(f'{why}. Add one, as descend.rules.get("adamw")')
    main = joined[ruling[0]]
    for k, formula in enumerate(joined):
        if formula.place == "before" and k > ruling[0]:
            formula.reading.source.refuse(
                None,
                f"{formula.name!r} changes what {main.name!r} works on; put it before it: "
                f"chain({formula.name}, {main.name})",
            )
        if formula.place == "after" and k < ruling[0]:
            formula.reading.source.refuse(
                None,
                f"{formula.name!r} works on what the rule did; put it after {main.name!r}: "
                f"chain({main.name}, {formula.name})",
            )
    _check_states(joined)
    rule = next(r for r in given if main in r.formulas)
    return Rule(name or " + ".join(r.name for r in given), joined, rule.title, rule.source, rule.doc)


def _meant(part: Any) -> str:
    if isinstance(part, str):
        return f"; a rule by its name is descend.rules.get({part!r}), a modifier descend.modifiers.{part}"
    return ""


def _check_states(formulas: tuple[Formula, ...]) -> None:
    """Two states of one name, or under one key of the state dict, would overwrite each other."""
    names: set[str] = set()
    keys: set[str] = set()
    for formula in formulas:
        for state in formula.states:
            same = (
                f"keep a state {state.name!r}"
                if state.name in names
                else f"keep a state as {state.key!r} in the state dict"
                if state.key in keys
                else ""
            )
            if same:
                raise UsageError(
                    f"two parts of the chain {same}; give one of them another name: "
                    f'renamed({formula.name}, {state.name}="{state.name}_2")'
                )
            names.add(state.name)
            keys.add(state.key)
    for formula in formulas:
        for hyper in formula.hypers:
            if hyper.name in names:
                raise UsageError(
                    f"{hyper.name!r} is a hyper-parameter of {formula.name!r} and a state of another part of "
                    f'the chain; rename it: renamed({formula.name}, {hyper.name}="{hyper.name}_2")'
                )


def only(
    part: Part, *, ndim: int | Collection[int] | None = None, names: str | Collection[str] | None = None
) -> Rule:
    """A modifier that applies to some parameters only; for all others the chain is as if it were not there.

    `ndim` is a number of dimensions or several; `names` a shell pattern of `model.named_parameters()`, or
    several of which one must fit. Given both, both must hold.

    >>> from descend import modifiers, rules
    >>> rule = chain(only(modifiers.decoupled_decay, ndim=2), rules.get("adam"))

    Raises UsageError for no condition, and for a rule: every parameter needs one.
    """
    return _masked(part, Mask.of(ndim, names, out=False))


def except_for(
    part: Part, *, ndim: int | Collection[int] | None = None, names: str | Collection[str] | None = None
) -> Rule:
    """A modifier that leaves some parameters out: those of such dimensions, and those of such names.

    As `only`, turned round: a parameter that fits any condition is left out.

    >>> from descend import modifiers, rules
    >>> rule = chain(except_for(modifiers.decoupled_decay, ndim=(0, 1), names="embed*"), rules.get("adam"))

    Raises UsageError as `only` does.
    """
    return _masked(part, Mask.of(ndim, names, out=True))


def _masked(part: Part, mask: Mask) -> Rule:
    given = rule_of(part)
    for formula in given.formulas:
        if formula.place == "rule":
            raise UsageError(
                f"{formula.name!r} is a rule, and every parameter needs one: mask the modifiers around it, "
                "or give the parameters two optimizers"
            )
        for n in walk(formula.reading.outputs.values()):
            if n.op.endswith("_global"):
                raise UsageError(
                    f"{formula.name!r} sums over all parameters, so it cannot leave some out; "
                    "give those a second optimizer"
                )
    return replace(
        given, formulas=tuple(replace(formula, masks=(*formula.masks, mask)) for formula in given.formulas)
    )


def applying(rule: Rule, ndim: int, name: str) -> Rule:
    """What of a chain applies to a parameter; the same object for the same choice."""
    left = tuple(f for f in rule.formulas if all(mask.lets(ndim, name) for mask in f.masks))
    kept = tuple(part for f in left for part in (f.otherwise if f.otherwise and ndim < 2 else (f,)))
    return rule if kept == rule.formulas else _part_of(rule, kept)


@cache
def _part_of(rule: Rule, kept: tuple[Formula, ...]) -> Rule:
    return replace(rule, formulas=kept)


def renamed(part: Part, **names: str) -> Rule:
    """A part whose hyper-parameters and states bear other names, so that it shares none with its neighbours.

    A renamed state has its new name in the state dict too.

    >>> from descend import modifiers, rules
    >>> each, all_ = modifiers.clip_norm, renamed(modifiers.clip_global_norm, max_norm="all_norm")
    >>> [h.name for h in chain(each, all_, rules.get("momentum")).hypers]
    ['max_norm', 'all_norm', 'lr', 'momentum', 'dampening']

    Raises UsageError for a name that the part does not have, or one that is taken.
    """
    given = rule_of(part)
    known = [x.name for f in given.formulas for x in _own(f)]
    for old, new in names.items():
        if old not in known:
            has = ", ".join(dict.fromkeys(known)) or "none"
            raise UsageError(
                f"{given.name} has no hyper-parameter or state {old!r}{nearest(old, known)}; it has {has}"
            )
        if not isinstance(new, str) or not new.isidentifier():
            raise UsageError(f"renamed({given.name}, {old}={new!r}): the new name must be a plain word")
        if new in GIVEN or new in ("maximize", "differentiable", "strict", "params"):
            raise UsageError(f"renamed({given.name}, {old}={new!r}): {new!r} has a meaning of its own")
    after = [names.get(word, word) for word in dict.fromkeys(known)]
    for word, times in Counter(after).items():
        if times > 1:
            raise UsageError(f"renamed({given.name}, …): two parts of it would be called {word!r}")
    return replace(given, formulas=tuple(_called(f, names) for f in given.formulas))


def _called(formula: Formula, names: dict[str, str]) -> Formula:
    """A formula with other names; those that it was read with are kept beside them."""
    before = {new: old for old, new in formula.called}
    own = {x.name for x in _own(formula)} & set(names)
    called = dict(formula.called) | {before.get(word, word): names[word] for word in own}
    hypers = tuple(replace(h, name=names.get(h.name, h.name)) for h in formula.hypers)
    states = tuple(
        replace(
            s,
            name=names.get(s.name, s.name),
            key=names.get(s.name, s.key),
            init=names.get(s.init, s.init) if isinstance(s.init, str) else s.init,
            block=names.get(s.block, s.block),
            limit=names.get(s.limit, s.limit),
        )
        for s in formula.states
    )
    return replace(formula, hypers=hypers, states=states, called=tuple(sorted(called.items())))


def _own(formula: Formula) -> list[Hyper | State]:
    return [*formula.hypers, *formula.states]
