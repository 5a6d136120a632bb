"""Rules whose step starts or ends elsewhere than at p, without the states that a hyper-parameter of 0 idles.

Methods such as Schedule-Free keep a point of their own, step it by any rule, and put another one where the
gradient is taken. One program does both, so that the step sweeps memory once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from .declared import State
from .nodes import Node, const, name, walk
from .rule import Rule


@dataclass(frozen=True, eq=False)
class Detoured(Rule):
    """A rule between formulas that exchange its p for another point; hyper-parameters in `zero` are 0.

    The formulas around it may name the same state.
    """

    zero: tuple[str, ...] = ()
    within: Rule | None = None

    @property
    def inner(self) -> Rule:
        """The rule that the others stand around."""
        assert self.within is not None
        return self.within

    @cached_property
    def states(self) -> tuple[State, ...]:
        """The states of all parts, without those that are idle."""
        every = dict.fromkeys(state for formula in self.formulas for state in formula.states)
        return tuple(state for state in every if state.name not in self._kept_by_none)

    @cached_property
    def _kept_by_none(self) -> frozenset[str]:
        return frozenset(word for hyper in self.zero for word in _idle(self._joined, hyper))

    @cached_property
    def _joined(self) -> Rule:
        return Rule(self.name, self.formulas)

    @cached_property
    def _composed(self) -> tuple[dict[str, Node], dict[Node, str]]:
        outputs, names = self._joined.outputs, self._joined.names
        for hyper in self.zero:
            for word, short in _idle(self._joined, hyper).items():
                known = {outputs[word]: short}
                outputs = {w: _exchanged(n, known) for w, n in outputs.items() if w != word}
                names = {_exchanged(n, known): w for n, w in names.items()}
        return outputs, names


@cache
def detoured(before: Rule, rule: Rule, after: Rule | None, start: str, zero: tuple[str, ...]) -> Rule:
    """`rule` from the point that `before` gives it as p, and `after` it what makes the next p.

    `start` is the state that holds that point; `zero` are hyper-parameters of the rule that are 0.
    """
    formulas = (*before.formulas, *rule.formulas, *(after.formulas if after else ()))
    about = (rule.name, formulas, rule.title, rule.source, rule.doc)
    return Detoured(*about, start=start, zero=zero, within=rule)


@cache
def idle_at_zero(rule: Rule) -> tuple[str, ...]:
    """The hyper-parameters at whose 0 no step reads some state that the step before left.

    >>> from descend import rules
    >>> idle_at_zero(rules.get("adam"))
    ('beta1', 'beta2')
    """
    return tuple(h.name for h in rule.hypers if _idle(rule, h.name))


def _idle(rule: Rule, hyper: str) -> dict[str, Node]:
    """The states that nothing reads where a hyper-parameter is 0, with what their new values come to."""
    found = {}
    for word in (state.name for state in rule.states if not state.scalar):
        new, old = rule.outputs[word], name(word)
        short = _at_zero(new, hyper)
        rest = [_exchanged(n, {new: short}) for w, n in rule.outputs.items() if w != word]
        if old in walk([new]) and old not in walk([short, *rest]):
            found[word] = short
    return found


def _at_zero(root: Node, hyper: str) -> Node:
    """An expression where one of its names is 0, without the terms that vanish."""
    done: dict[Node, Node] = {}
    for n in walk([root]):
        args = tuple(done[a] for a in n.args)
        made = Node(n.op, args, n.value)
        if n == name(hyper) or (n.op == "mul" and const(0) in args):
            made = const(0)
        elif n.op == "mul" and const(1) in args:
            made = args[1] if args[0] == const(1) else args[0]
        elif n.op == "add" and const(0) in args:
            made = args[1] if args[0] == const(0) else args[0]
        elif n.op == "sub" and args[1] == const(0):
            made = args[0]
        done[n] = made
    return done[root]


def _exchanged(root: Node, known: Mapping[Node, Node]) -> Node:
    """`root` with some of its parts exchanged."""
    done: dict[Node, Node] = {}
    for n in walk([root]):
        done[n] = known[n] if n in known else Node(n.op, tuple(done[a] for a in n.args), n.value)
    return done[root]
