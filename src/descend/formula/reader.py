"""Reads a formula: Python source of one function -> an expression for every name it returns.

Only the source is read; the function is not run. What the reader does not accept it answers with
file, line, the line itself and what to write instead.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from ..errors import FormulaError, nearest
from .advice import INSTEAD, usage, written_as
from .nodes import (
    ARITHMETIC,
    COMPARISON,
    Node,
    const,
    is_random,
    is_reduction,
    name,
    node,
    scope,
    substitute,
    walk,
)
from .vocabulary import MATRIX, RANDOM, REDUCTIONS, WORDS

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
}
_COMPARE: dict[type[ast.AST], str] = {
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}
ALLOWED = "assignments, + - * / **, comparisons inside where(), and the words " + " ".join(
    [*WORDS, *RANDOM, *REDUCTIONS, *MATRIX]
)


@dataclass(frozen=True)
class Source:
    """The text of a formula and where it stands; `first` is the line number of its first line."""

    text: str
    file: str
    first: int

    def refuse(self, at: ast.AST | None, why: str) -> NoReturn:
        """Raise a FormulaError that points at a place in the source (its first line for None)."""
        row = getattr(at, "lineno", 1)
        column = getattr(at, "col_offset", 0)
        lines = self.text.splitlines()
        shown = lines[row - 1] if row <= len(lines) else ""
        raise FormulaError(f"{self.file}:{self.first + row - 1}: {why}\n    {shown}\n    {' ' * column}^")


@dataclass(frozen=True)
class Reading:
    """What was read: the outputs by name, and the names of the parts as the author gave them.

    `assigned` is the last line that gave each name its value.
    """

    outputs: dict[str, Node]
    names: dict[Node, str]
    lines: tuple[str, ...]
    source: Source
    assigned: dict[str, ast.AST]

    def refuse(self, why: str, word: str = "") -> NoReturn:
        """Raise a FormulaError that points at the line where a name got its value, or at the first."""
        self.source.refuse(self.assigned.get(word), why)

    def renamed(self, names: Mapping[str, str]) -> Reading:
        """The same with other names for some arguments."""
        leaves = {old: name(new) for old, new in names.items()}
        outputs = {names.get(word, word): substitute(n, leaves) for word, n in self.outputs.items()}
        known = {substitute(n, leaves): word for n, word in self.names.items()}
        assigned = {names.get(word, word): at for word, at in self.assigned.items()}
        return replace(self, outputs=outputs, names=known, assigned=assigned)


_KNOWN: WeakKeyDictionary[Callable[..., Any], Source] = WeakKeyDictionary()
"""The text of every function that was read."""


def source_of(function: Callable[..., Any]) -> Source:
    """The text of a function written in a file or a notebook cell.

    Raises FormulaError where Python keeps no source (`exec`, a plain interactive prompt).
    """
    try:
        if function in _KNOWN:  # its file may have changed since it was read
            return _KNOWN[function]
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or "<unknown>"
    except (OSError, TypeError) as error:
        raise FormulaError(
            f"the source of {getattr(function, '__name__', function)!r} cannot be found; "
            "write the formula in a file or a notebook cell"
        ) from error
    return _KNOWN.setdefault(function, Source(textwrap.dedent("".join(lines)), file, first))


def read_function(function: Callable[..., Any], arguments: Mapping[str, str]) -> Reading:
    """Read a formula's body.

    `arguments` gives the kind of every argument: "element", "state", "number" (a state that is one number
    for a whole parameter) or "scalar".
    Raises FormulaError for everything outside the subset.
    """
    source = source_of(function)
    try:
        tree = ast.parse(source.text)
    except SyntaxError as error:  # a lambda in the middle of an expression
        raise FormulaError(f"{source.file}:{source.first}: write the formula as a `def`") from error
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        source.refuse(definition, "write the formula as a `def`")
    body = definition.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    if not body or not isinstance(body[-1], ast.Return):
        source.refuse(definition, f"the last line must return what changed: return p{_states(arguments)}")
    values = {word: name(word) for word in arguments}
    names: dict[Node, str] = {}
    assigned: dict[str, ast.AST] = {}
    for statement in body[:-1]:
        target, value = _assignment(statement, source)
        if target in ("g", "t") or arguments.get(target) == "scalar":
            if target != "g":
                given = target in ("t", "rows", "columns")
                instead = "" if given else "; a state, which can, has no default, or State(…)"
                source.refuse(
                    statement, f"{target!r} is given to the formula and cannot be assigned{instead}"
                )
        elif target in {**WORDS, **RANDOM, **REDUCTIONS, **MATRIX}:
            source.refuse(statement, f"{target!r} is a word of the vocabulary and cannot be assigned")
        values[target] = Expressions(source, values, arguments).read(value)
        assigned[target] = statement
        names.setdefault(values[target], target)
    returned = _returned(body[-1], source)
    for word, at in returned.items():
        if word not in values:
            source.refuse(at, f"{word!r} is returned but never assigned")
    first = body[0].lineno - 1
    last = (body[-1].end_lineno or body[-1].lineno) - 1
    lines = textwrap.dedent("\n".join(source.text.splitlines()[first:last])).splitlines()
    return Reading({word: values[word] for word in returned}, names, tuple(lines), source, assigned)


def read_expression(written: str, allowed: list[str] | None = None) -> tuple[Node, list[str]]:
    """Read one expression; its free names are its variables, in order of first appearance.

    Raises FormulaError; with `allowed`, for any other variable too.
    """
    source = Source(written.strip(), "expression", 1)
    try:
        tree = ast.parse(source.text, mode="eval")
    except SyntaxError as error:
        raise FormulaError(
            f"{written!r} is not an expression ({error.msg}); write for example x**2 + 10*y**2"
        ) from error
    found: list[str] = []
    for part in ast.walk(tree):
        if isinstance(part, ast.Name) and part.id not in WORDS and part.id not in found:
            found.append(part.id)
    found.sort(
        key=lambda word: min(n.col_offset for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == word)
    )
    for word in found:
        if allowed is not None and word not in allowed:
            raise FormulaError(f"unknown name {word!r} in {written!r}; allowed: {', '.join(allowed)}")
    return Expressions(source, {w: name(w) for w in found}).read(tree.body), found


def _states(arguments: Mapping[str, str]) -> str:
    return "".join(f", {word}" for word, kind in arguments.items() if kind in ("state", "number"))


def _assignment(statement: ast.stmt, source: Source) -> tuple[str, ast.expr]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        if isinstance(target, ast.Name):
            return target.id, statement.value
        source.refuse(statement, "assign to one plain name at a time")
    if isinstance(statement, ast.Return):
        source.refuse(statement, "only the last line returns")
    source.refuse(statement, _not_part(statement))


def _not_part(at: ast.AST) -> str:
    what, instead = INSTEAD.get(type(at), (repr(type(at).__name__.lower()), f"allowed are {ALLOWED}"))
    return f"{what} is not part of a formula; {instead}"


def _returned(statement: ast.stmt, source: Source) -> dict[str, ast.AST]:
    assert isinstance(statement, ast.Return)
    value = statement.value
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    found: dict[str, ast.AST] = {}
    for part in parts:
        if not isinstance(part, ast.Name):
            source.refuse(part or statement, "return names, as in: return p, m, v")
        if part.id in found:
            source.refuse(part, f"{part.id!r} is returned twice")
        found[part.id] = part
    return found


class Expressions:
    """Reads expressions in which `values` says what each name stands for.

    `kinds` gives the kind of every argument, as in `read_function`; without it the words are those of one
    element only.
    """

    def __init__(
        self, source: Source, values: Mapping[str, Node], kinds: Mapping[str, str] | None = None
    ) -> None:
        self.source = source
        self.values = values
        self.kinds = kinds or {}
        more = {**RANDOM, **dict.fromkeys(REDUCTIONS, 1), **MATRIX}
        self.words = WORDS if kinds is None else {**WORDS, **more}

    def read(self, at: ast.expr) -> Node:
        """The node of an expression; FormulaError for anything outside the subset."""
        if isinstance(at, ast.Constant):
            return self._constant(at)
        if isinstance(at, ast.Name):
            return self._name(at)
        if isinstance(at, ast.BinOp):
            op = _BINARY.get(type(at.op))
            if isinstance(at.op, ast.MatMult):
                self.source.refuse(at, f"`@` is not part of a formula{written_as('mm')}")
            if op is None:
                self.source.refuse(at, f"this operator is not part of a formula; allowed are {ALLOWED}")
            return node(op, self._number(at.left), self._number(at.right))
        if isinstance(at, ast.UnaryOp):
            return self._unary(at)
        if isinstance(at, ast.Compare):
            if len(at.ops) != 1:
                self.source.refuse(at, "write a < b < c as two comparisons, one where() inside another")
            op = _COMPARE.get(type(at.ops[0]))
            if op is None:
                self.source.refuse(at, f"compare with one of {' '.join(COMPARISON.values())}")
            return node(op, self._number(at.left), self._number(at.comparators[0]))
        if isinstance(at, ast.Call):
            return self._call(at)
        if isinstance(at, ast.Attribute) and written_as(at.attr):
            self.source.refuse(at, f".{at.attr} is not part of a formula{written_as(at.attr)}")
        self.source.refuse(at, _not_part(at))

    def _number(self, at: ast.expr) -> Node:
        found = self.read(at)
        if found.is_condition:
            self.source.refuse(at, "a comparison is not a number; choose with where(condition, x, y)")
        return found

    def _constant(self, at: ast.Constant) -> Node:
        if isinstance(at.value, bool) or not isinstance(at.value, (int, float)):
            self.source.refuse(at, f"{at.value!r} is not a number")
        if at.value - at.value != 0:
            self.source.refuse(at, "the number is too large")
        return const(at.value)

    def _name(self, at: ast.Name) -> Node:
        if at.id in self.values:
            return self.values[at.id]
        if at.id in self.words:
            self.source.refuse(at, f"{at.id!r} takes {self.words[at.id]} argument(s): {at.id}(…)")
        known = [*self.values, *self.words]
        self.source.refuse(
            at, f"unknown name {at.id!r}{nearest(at.id, known)}; a state or hyper-parameter is an argument"
        )

    def _unary(self, at: ast.UnaryOp) -> Node:
        if not isinstance(at.op, (ast.USub, ast.UAdd)):
            self.source.refuse(at, "this operator is not part of a formula; turn the comparison round")
        value = self._number(at.operand)
        if isinstance(at.op, ast.USub):
            return const(-value.number) if value.op == "const" else node("neg", value)
        return value

    def _call(self, at: ast.Call) -> Node:
        if not isinstance(at.func, ast.Name):
            if isinstance(at.func, ast.Attribute) and at.func.attr in self.words:
                self.source.refuse(at, f"write the word alone: {at.func.attr}(…)")
            if isinstance(at.func, ast.Attribute) and written_as(at.func.attr):
                self.source.refuse(at, f"no word is called {at.func.attr!r}{written_as(at.func.attr)}")
            self.source.refuse(at, f"only words of the vocabulary are called: {' '.join(self.words)}")
        word = at.func.id
        if word not in self.words:
            if written_as(word):
                self.source.refuse(at, f"unknown word {word!r}{written_as(word)}")
            self.source.refuse(
                at, f"unknown word {word!r}{nearest(word, self.words)}; the words are {' '.join(self.words)}"
            )
        if word in REDUCTIONS and word in self.words:
            return self._reduction(at, word)
        if word in RANDOM and word in self.words:
            return self._random(at, word)
        if (
            len(at.args) != self.words[word]
            or at.keywords
            or any(isinstance(a, ast.Starred) for a in at.args)
        ):
            self.source.refuse(at, f"{word!r} takes {self.words[word]} plain argument(s): {usage(word)}")
        if word == "where":
            condition = self.read(at.args[0])
            if not condition.is_condition:
                self.source.refuse(at.args[0], "where() chooses by a comparison, as in where(t == 1, x, y)")
            return node("where", condition, self._number(at.args[1]), self._number(at.args[2]))
        return node(word, *(self._number(a) for a in at.args))

    def _reduction(self, at: ast.Call, word: str) -> Node:
        scopes = REDUCTIONS[word]
        over = scopes[0]
        if len(at.args) == 2 and isinstance(at.args[1], ast.Constant):
            over = str(at.args[1].value)
        plain = not at.keywords and len(at.args) == (1 if over == scopes[0] else 2)
        if not plain or over not in scopes:
            said = f', {word}(x, "rows") or {word}(x, "columns")' if len(scopes) > 1 else ""
            if word == "max" and len(at.args) == 2:
                said += "; the larger of two is maximum(x, y)"
            self.source.refuse(at, f"write {word}(x){said}")
        x = self._number(at.args[0])
        if not self._differs(x):
            self.source.refuse(
                at, f"{word}() goes over elements, and this is one number for all of them; leave {word}() out"
            )
        kind = word.removeprefix("global_")
        if kind == "norm":
            return node("sqrt", node(f"sum_{over}", node("mul", x, x)))
        return node(f"{kind}_{over}", x)

    def _random(self, at: ast.Call, word: str) -> Node:
        if len(at.args) != RANDOM[word] or at.keywords:
            self.source.refuse(
                at,
                f"write {word}(seed, t, k): a hyper-parameter, the step, and the parameter's number, "
                'which is the state k=State("place", init="place", scalar=True)',
            )
        given = [self._number(a) for a in at.args]
        for argument, n in zip(at.args, given, strict=True):
            if self._differs(n) or any(is_reduction(part) for part in walk([n])):
                self.source.refuse(
                    argument,
                    f"{word}() is decided by numbers known before the step: a seed, t, and the "
                    "parameter's number; every element has a random number of its own as it is",
                )
        return node(word, node("key", *given))

    def _differs(self, n: Node) -> bool:
        """Whether a value differs within a tensor."""
        if n.op == "name":
            return self.kinds.get(n.word) in ("element", "state")
        if is_reduction(n):
            return scope(n) in ("rows", "columns")
        return is_random(n) or any(self._differs(a) for a in n.args)


assert set(ARITHMETIC) == set(_BINARY.values())
