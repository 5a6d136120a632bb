"""What of a rule the host computes: everything that is one number for a whole parameter, in float64."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import chance
from .nodes import ARITHMETIC, COMPARISON, Node, name, text


@dataclass(frozen=True, eq=False)
class ScalarProgram:
    """The scalars that one pass needs, and the scalar states that are new after it.

    `arguments` are the names it takes, in order; `first` the scalars that follow them, computed before the
    first pass; `reductions` the sums of earlier passes after those; `row` the scalars that the elements need;
    `states` the new scalar states. The row of a first pass holds all that later ones need of it, at its end.
    """

    arguments: tuple[str, ...]
    row: tuple[Node, ...]
    states: dict[str, Node]
    reductions: tuple[Node, ...] = ()
    first: tuple[Node, ...] = ()

    @cached_property
    def late(self) -> tuple[Node, ...]:
        """What of the row was not computed before the first pass."""
        return tuple(n for n in self.row if n not in self.first)

    @cached_property
    def known(self) -> dict[Node, str]:
        """A name for every value that is handed in, besides the arguments."""
        sums = {n: f"r{i}" for i, n in enumerate(self.reductions)}
        return {n: f"s{i}" for i, n in enumerate(self.first)} | sums

    @cached_property
    def source(self) -> str:
        """The program as Python over numbers."""
        return self._written(choose="({1} if {0} else {2})")

    @property
    def roots(self) -> tuple[Node, ...]:
        """All that is asked for."""
        return *self.row, *self.states.values()

    @cached_property
    def shared(self) -> dict[Node, None]:
        """What is used more than once, in an order in which it can be computed."""
        order = below(self.roots, self.known)
        counts = Counter([*self.roots, *(a for n in order for a in n.args)])
        return dict.fromkeys(n for n in order if n.args and counts[n] > 1)

    def _written(self, choose: str) -> str:
        names = dict(self.known)
        lines: list[str] = []
        for n in self.shared:
            label = f"x{len(lines)}"
            lines.append(f"    {label} = {_python(n, names, choose)}")
            names[n] = label
        row = "".join(f"{_python(n, names, choose)}, " for n in self.row)
        states = "".join(f"{_python(n, names, choose)}, " for n in self.states.values())
        given = [*self.arguments, *self.known.values()]
        return "\n".join([f"def scalars({', '.join(given)}):", *lines, f"    return ({row}), ({states})"])

    def _compiled(self, source: str, words: dict[str, Any]) -> Callable[..., Any]:
        space = dict(words)
        exec(compile(source, "<scalars>", "exec"), space)
        made: Callable[..., Any] = space["scalars"]
        return made

    @cached_property
    def _numbers(self) -> Callable[..., Any]:
        return self._compiled(self.source, _MATH)

    @cached_property
    def _careful(self) -> Callable[..., Any]:
        return self._compiled(self.source, _NUMPY)

    @cached_property
    def _arrays(self) -> Callable[..., Any]:
        return self._compiled(self._written(choose="where({0}, {1}, {2})"), _NUMPY)

    @cached_property
    def _takes_roots(self) -> bool:
        """Whether a number is raised to a power that may be broken."""
        powers = [n.args[1] for n in below([*self.row, *self.states.values()], ()) if n.op == "pow"]
        return any(n != name("t") and not (n.op == "const" and n.number.is_integer()) for n in powers)

    def __call__(self, *values: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The row and the new scalar states; division by zero gives infinity or NaN."""
        try:
            row, states = self._numbers(*values)
            if self._takes_roots and complex in map(type, (*row, *states)):
                raise ValueError("a root of a negative number, which Python makes complex")
        except (ArithmeticError, ValueError, TypeError):
            with np.errstate(all="ignore"):
                row, states = self._careful(*map(np.float64, values))
        return row, states

    def vector(self, *values: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """As a call, for many parameters at once: every value is a float64 array [n] or a number."""
        with np.errstate(all="ignore"):
            row, states = self._arrays(*values)
        return row, states


def below(roots: Iterable[Node], known: Collection[Node]) -> list[Node]:
    """Every node below `roots`, arguments first, without looking inside the known ones."""
    found: dict[Node, None] = {}

    def visit(n: Node) -> None:
        if n in found or n in known:
            return
        for a in n.args:
            visit(a)
        found[n] = None

    for root in roots:
        visit(root)
    return list(found)


def _python(n: Node, names: dict[Node, str], choose: str) -> str:
    if n in names:
        return names[n]
    if n.op == "const":
        return repr(n.number)  # a whole number of Python's has no negative zero
    if n.op == "where":
        return choose.format(*(_python(a, names, choose) for a in n.args))
    if n.args and n.op not in ARITHMETIC and n.op not in COMPARISON and n.op != "neg":
        return f"{n.op}({', '.join(_python(a, names, choose) for a in n.args)})"
    parts = {a: f"({_python(a, names, choose)})" for a in n.args if a.args and a not in names}
    return text(n, {**names, **parts})


def _sign(x: float) -> float:
    return math.copysign(1.0, x) if x != 0 and x == x else x


def _floor(x: float) -> float:
    return math.copysign(math.floor(x), x)


def _minimum(x: float, y: float) -> float:
    return x if x < y or x != x else y


def _maximum(x: float, y: float) -> float:
    return x if x > y or x != x else y


_MATH: dict[str, Any] = {
    "sqrt": math.sqrt,
    "abs": abs,
    "sign": _sign,
    "exp": math.exp,
    "log": math.log,
    "tanh": math.tanh,
    "sin": math.sin,
    "cos": math.cos,
    "floor": _floor,
    "minimum": _minimum,
    "maximum": _maximum,
}
_NUMPY: dict[str, Any] = {word: getattr(np, word) for word in [*_MATH, "where"]}
_MATH |= {"key": chance.key, "mod": math.fmod}
_NUMPY |= {"key": chance.keys, "mod": np.fmod}
