"""A rule as text that stands by itself: what a run directory or a pickle keeps of a rule of one's own.

`text_of` writes a rule from what was read of it, so that the text needs neither the file it came from nor its
neighbours. `from_text` reads it back without running anything but formulas: a run directory cannot
bring code with it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache
from types import FunctionType
from typing import Any

from ..errors import UsageError
from ..formula import (
    Formula,
    Hyper,
    Rule,
    State,
    chain,
    except_for,
    only,
    renamed,
    rule,
    rule_of,
    vocabulary,
)
from .loading import OWN, read, reading

_MAKERS = {made.__name__: made for made in (Hyper, State, chain, except_for, only, renamed, rule)}
_HELD = ("name", "function", "states", "hypers", "masks", "called", "otherwise")
_PLAIN = (
    ast.Module, ast.ImportFrom, ast.alias, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.Call,
    ast.keyword, ast.Name, ast.Constant, ast.Tuple, ast.UnaryOp, ast.expr_context, ast.unaryop,
)  # fmt: skip
_IN_FORMULAS = (*_PLAIN, ast.Return, ast.Expr, ast.BinOp, ast.Compare, ast.operator, ast.cmpop)


def text_of(rule: Rule) -> str:
    """The rule as a Python file: the same formulas, defaults and ranges, without what they were made from.

    >>> from descend import rules
    >>> print(text_of(rules.get("gradient_descent")).splitlines()[0])
    # The rule gradient_descent, as descend keeps it.

    Raises UsageError for a rule with parts that text cannot hold.
    """
    _check_fields(rule, ("name", "formulas", "title", "source", "doc", "dialect", "dialects"), rule.name)
    main = next((f for f in rule if f.place == "rule"), rule.formulas[0])
    single = len(rule.formulas) == 1 and rule.name.isidentifier()
    text = _Text([], [])
    parts = [
        text.add(f, rule.name if single else f.name, rule if f is main else Rule(f.name, (f,))) for f in rule
    ]
    bodies, names = text.bodies, text.names
    if len(parts) > 1 or not single:
        bodies.append(f"{_fresh('whole', names)} = chain({', '.join(parts)}, name={rule.name!r})")
    elif parts[0] not in names:
        bodies.append(f"{_fresh('whole', names)} = {parts[0]}")
    called = set(re.findall(r"\b([^\W\d]\w*)\(", "\n".join(bodies)))
    makers = sorted((called - set(names)) & set(_MAKERS))
    words = sorted(called & set(_words()))
    head = [f"# The rule {rule.name}, as descend keeps it.", ""]
    head += [f"from descend.formula import {', '.join(makers)}"] if makers else []
    head += [f"from descend.formula.vocabulary import {', '.join(words)}"] if words else []
    return "\n".join(head) + "\n\n\n" + "\n\n\n".join(bodies) + "\n"


@cache
def from_text(text: str, file: str = "<a kept rule>") -> Rule:
    """The rule that `text_of` wrote; one and the same for one text.

    Raises UsageError for anything else: nothing but formulas is ever run.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{file}: is not a rule as descend keeps it: {error}") from None
    _refuse_code(tree, file)
    space: dict[str, Any] = {"__name__": f"{OWN}kept"}
    with reading(file, text.encode()):
        exec(compile(text, file, "exec", dont_inherit=True), space)
        last = tree.body[-1] if tree.body else None
        name = last.name if isinstance(last, ast.FunctionDef) else None
        if isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name):
            name = last.targets[0].id
        made = space.get(name or "")
        if not isinstance(made, (Rule, FunctionType)):
            raise UsageError(f"{file}: is not a rule as descend keeps it: its last lines define none")
        found = rule_of(made)
        read(found)
    return found


def _check_fields(part: Any, known: Iterable[str], name: str) -> None:
    """Something that a later version of rules carries and this text does not must not be lost silently."""
    for one in fields(part):
        if one.name not in known and getattr(part, one.name) != _default(one):
            raise UsageError(f"the rule {name} has {one.name}, which a text of it cannot hold")


def _default(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default


@dataclass
class _Text:
    """Definitions as they are written down, and the names that they take."""

    bodies: list[str]
    names: list[str]

    def add(self, formula: Formula, name: str, about: Rule, as_rule: bool = False) -> str:
        """Write down a formula, before it what stands in for it; what it is called in a chain.

        `about` has its title, source and page; `as_rule` writes it as a rule where it has none.
        """
        _check_fields(formula, _HELD, formula.name)
        others = [self.add(f, f.name, Rule(f.name, (f,)), as_rule=True) for f in formula.otherwise]
        otherwise = f"chain({', '.join(others)})" if len(others) > 1 else "".join(others)
        self.names.append(_fresh(name, self.names))
        name = self.names[-1]
        self.bodies.append(_definition(formula, name, about, otherwise, as_rule))
        return _part(formula, name)


def _part(formula: Formula, name: str) -> str:
    """A formula in its chain: under other names, and for some parameters only."""
    if formula.called:
        name = f"renamed({name}, {', '.join(f'{old}={new!r}' for old, new in formula.called)})"
    for mask in formula.masks:
        asked = [f"ndim={tuple(sorted(mask.ndim))!r}"] if mask.ndim is not None else []
        asked += [f"names={mask.names!r}"] if mask.names else []
        name = f"{'except_for' if mask.out else 'only'}({name}, {', '.join(asked)})"
    return name


def _as_written(formula: Formula) -> dict[str, State | Hyper]:
    """The states and hyper-parameters under the names that the source has for them."""
    before = {new: old for old, new in formula.called}
    keys = {state.name: state.key for state in Formula.of(formula.function).states}
    found: dict[str, State | Hyper] = {h.name: h for h in formula.hypers}
    for state in formula.states:
        found[state.name] = replace(
            state,
            key=keys[before[state.name]] if state.name in before else state.key,
            init=before.get(state.init, state.init) if isinstance(state.init, str) else state.init,
            block=before.get(state.block, state.block),
            limit=before.get(state.limit, state.limit),
        )
    return {before.get(word, word): part for word, part in found.items()}


def _definition(formula: Formula, name: str, about: Rule, otherwise: str, as_rule: bool) -> str:
    known = _as_written(formula)
    arguments = inspect.signature(formula.function).parameters
    lines = [f"    {word}{_made(known[word]) if word in known else ''}," for word in arguments]
    head: list[str] = []
    page: list[str] = []
    if as_rule or about.title or about.source or about.doc or otherwise:
        quoted = f'"""{about.doc}"""'.replace("\n", "\n    ")
        plain = not set("\\\r\t\f") & set(about.doc) and '"""' not in about.doc and about.doc[-1:] != '"'
        plain = plain and inspect.cleandoc(quoted[3:-3]) == about.doc
        more = "" if plain else f", doc={about.doc!r}"
        more += f", otherwise={otherwise}" if otherwise else ""
        head = [f"@rule(title={_literal(about.title)}, source={_literal(about.source)}{more})"]
        page = [f"    {quoted}"] if plain and about.doc else []
    body = [f"    {line}".rstrip() for line in formula.reading.lines]
    written = Formula.of(formula.function).reading.outputs
    returned = f"    return {', '.join(written)}"
    return "\n".join([*head, f"def {name}(", *lines, "):", *page, *body, returned])


def _made(part: State | Hyper) -> str:
    """How a state or a hyper-parameter is declared, with what is not as it would be anyway."""
    given = [
        f"{one.name}={_literal(value)}"
        for one in fields(part)
        if one.name != "name" and (value := getattr(part, one.name)) != _default(one)
    ]
    return f"={type(part).__name__}({', '.join(given)})"


def _literal(value: Any) -> str:
    """A number or text as Python reads it; 1e999 is how an infinity is written without a name."""
    if isinstance(value, str) and value.isprintable() and not set('"\\') & set(value):
        return f'"{value}"'
    return repr(value).replace("inf", "1e999") if isinstance(value, float) else repr(value)


def _fresh(name: str, taken: Iterable[str]) -> str:
    stem, k = name, 1
    while name in taken or name in _MAKERS:
        k += 1
        name = f"{stem}_{k}"
    return name


def _words() -> list[str]:
    return [*vocabulary.WORDS, *vocabulary.RANDOM, *vocabulary.REDUCTIONS, *vocabulary.MATRIX]


def _refuse_code(tree: ast.Module, file: str) -> None:
    """Only formulas: no attribute, no index, no call but of the words and of what declares."""
    defined = {at.name for at in tree.body if isinstance(at, ast.FunctionDef)}
    known = {*_words(), *_MAKERS}
    bodies = [s for at in tree.body if isinstance(at, ast.FunctionDef) for s in at.body]
    inside = {part for statement in bodies for part in ast.walk(statement)}
    for at in ast.walk(tree):
        allowed = isinstance(at, _IN_FORMULAS if at in inside else _PLAIN)
        if isinstance(at, ast.ImportFrom):
            allowed = at.module in ("descend.formula", "descend.formula.vocabulary") and not at.level
            allowed = allowed and all(one.name in known and one.asname is None for one in at.names)
        if isinstance(at, ast.Call):
            allowed = isinstance(at.func, ast.Name) and at.func.id in known - defined
        if isinstance(at, ast.FunctionDef):
            allowed = at not in inside
        if not allowed:
            raise UsageError(f"{file}:{getattr(at, 'lineno', 1)}: is not a rule as descend keeps it")
