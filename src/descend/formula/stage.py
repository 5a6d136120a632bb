"""Staging: a rule's expressions, sorted by what each part depends on.

- hyper-parameters, `t` and scalar state only: `ScalarProgram`, run on the host in float64 once per
  distinct (group, step, scalar state); what the elements need of it is a *row* of scalars;
- elements: `Program.body`, straight-line code that reads and writes every element once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from .nodes import Node, text, walk
from .rewrite import Rewriter
from .rule import Rule


@dataclass(frozen=True, eq=False)
class ScalarProgram:
    """What the host computes in float64 once per row.

    `arguments` are the names it takes, in order; `row` the scalars that the elements need; `states` the
    new scalar states.
    """

    arguments: tuple[str, ...]
    row: tuple[Node, ...]
    states: dict[str, Node]

    @cached_property
    def source(self) -> str:
        """The program as Python."""
        counts: dict[Node, int] = {}
        roots = [*self.row, *self.states.values()]
        for n in walk(roots):
            for a in n.args:
                counts[a] = counts.get(a, 0) + 1
        for root in roots:
            counts[root] = counts.get(root, 0) + 1
        names: dict[Node, str] = {}
        lines = []
        for n in walk(roots):
            if n.args and counts[n] > 1:
                label = f"x{len(names)}"
                lines.append(f"    {label} = {_python(n, names)}")
                names[n] = label
        row = "".join(f"{_python(n, names)}, " for n in self.row)
        states = "".join(f"{_python(n, names)}, " for n in self.states.values())
        head = f"def scalars({', '.join(self.arguments)}):"
        return "\n".join([head, *lines, f"    return ({row}), ({states})"])

    @cached_property
    def _functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        made = []
        for module in (_MATH, _NUMPY):
            space: dict[str, Any] = dict(module)
            exec(compile(self.source, "<scalars>", "exec"), space)
            made.append(space["scalars"])
        return made[0], made[1]

    def __call__(self, *values: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The row and the new scalar states, in float64; division by zero gives infinity or NaN."""
        try:
            row, states = self._functions[0](*values)
        except (ArithmeticError, ValueError):
            with np.errstate(all="ignore"):
                row, states = self._functions[1](*map(np.float64, values))
        return row, states


@dataclass(frozen=True, eq=False)
class Program:
    """A staged rule of one pass: what the kernels run.

    `operands` are the per-element names, p and g first; `written` the operands that change, with their
    new values; `body` every element operation in order; `labels` names for parts, the author's where
    they survive.
    """

    rule: Rule
    operands: tuple[str, ...]
    scalars: ScalarProgram
    body: tuple[Node, ...]
    written: dict[str, Node]
    labels: dict[Node, str]

    @cached_property
    def row_index(self) -> dict[Node, int]:
        """Where in a row each scalar stands."""
        return {n: i for i, n in enumerate(self.scalars.row)}

    @property
    def bytes_moved(self) -> int:
        """Values read and written per element: what the step costs where memory is the limit."""
        return len(self.operands) + len(self.written)

    def __str__(self) -> str:
        lines = ["# once per (group, step), on the host in float64", self.scalars.source]
        lines += ["", f"# per element: reads {', '.join(self.operands)}; writes {', '.join(self.written)}"]
        names: dict[Node, str] = {n: f"s[{i}]" for n, i in self.row_index.items()}
        for n in self.body:
            lines.append(f"{self.labels[n]} = {text(n, names)}")
            names[n] = self.labels[n]
        lines += [f"{word} <- {names.get(n, text(n, names))}" for word, n in self.written.items()]
        return "\n".join(lines)


@cache
def stage(rule: Rule) -> Program:
    """Sort the expressions of a rule into a scalar program and one pass over the elements.

    Raises FormulaError where the formula cannot be read.
    """
    scalar_states = [s.name for s in rule.states if s.scalar]
    element_states = [s.name for s in rule.states if not s.scalar]
    operands = ("p", "g", *element_states)
    rewrite = Rewriter(frozenset(operands))
    outputs = rule.outputs
    for word in scalar_states:
        if rewrite.is_element(outputs[word]):
            rule.formulas[-1].reading.source.refuse(
                None,
                f"{word!r} is one number for a whole parameter, but its new value differs by element",
            )
    written = {word: rewrite(outputs[word]) for word in ("p", *element_states)}
    body: list[Node] = []
    row: dict[Node, None] = {}
    for n in walk_elements(written.values(), rewrite):
        if rewrite.is_element(n):
            if n.args:
                body.append(n)
        elif n.op != "const":
            row[n] = None
    labels: dict[Node, str] = {}
    for given, word in rule.names.items():
        labels.setdefault(rewrite(given), word)
    taken = set(operands)
    final: dict[Node, str] = {}
    for n in body:
        label = labels.get(n, "x")
        k = 1
        unique = label if n in labels and label not in taken else f"{label}_{k}"
        while unique in taken:
            k += 1
            unique = f"{label}_{k}"
        taken.add(unique)
        final[n] = unique
    arguments = ("t", *(h.name for h in rule.hypers), *scalar_states)
    scalars = ScalarProgram(arguments, tuple(row), {w: outputs[w] for w in scalar_states})
    return Program(rule, operands, scalars, tuple(body), written, final)


def walk_elements(roots: Any, rewrite: Rewriter) -> Any:
    """Every element node below `roots`, and the scalars that they use, but not what is inside a scalar."""
    seen: set[Node] = set()

    def visit(n: Node) -> Any:
        if n in seen:
            return
        seen.add(n)
        if rewrite.is_element(n):
            for a in n.args:
                yield from visit(a)
        yield n

    for root in roots:
        yield from visit(root)


def _python(n: Node, names: dict[Node, str]) -> str:
    if n in names:
        return names[n]
    if n.op == "where":
        return (
            f"({_python(n.args[1], names)} if {_python(n.args[0], names)} else {_python(n.args[2], names)})"
        )
    if n.args and n.op not in ("add", "sub", "mul", "div", "pow", "neg", "lt", "le", "gt", "ge", "eq", "ne"):
        return f"{n.op}({', '.join(_python(a, names) for a in n.args)})"
    parts = {a: f"({_python(a, names)})" if a.args and a not in names else _python(a, names) for a in n.args}
    return text(n, {**names, **parts})


def _sign(x: float) -> float:
    return math.copysign(1.0, x) if x != 0 and x == x else x


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
    "floor": math.floor,
    "minimum": _minimum,
    "maximum": _maximum,
}
_NUMPY: dict[str, Any] = {**{word: getattr(np, word) for word in _MATH}}
