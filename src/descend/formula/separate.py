"""What is saved where the factors of a product go by row and by column: a pass over memory, and bounds.

Of x = e * a * b, with a number a of every row and b of every column, the mean of x**2 is that of
mean((e * a)**2, "columns") * b**2. Where b waits for sums over all rows, the mean of x**2 takes a pass over
memory of its own; the inner mean, where a waits for its own row alone, is taken while that row is in the
cache.

The two are equal as long as nothing is infinite or lost and, where x is e * min(a * b, k), as a * b nowhere
reaches k but in rows and columns of zeros. Numbers say whether that is so; where it is not, the mean is taken
as it is written. Likewise the bound itself is left out where the largest a and the largest b do not reach it
together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .nodes import Node, const, is_reduction, node, scope, walk

ONE = const(1)

LARGEST = 1e300
"""The largest mean that is believed: others are infinite, or not numbers."""

LOST = 1e-20
"""A square far above the smallest that a float32 keeps, and above the sum of all that it may lose."""

SMALL = 1e-10
"""What is above this is taken for positive, and has a square that is not `LOST`."""

INFINITE = const(math.inf)

Domain = Callable[[Node], str]
Parts = dict[str, Node]


@dataclass(frozen=True)
class Separated:
    """New values in which such a mean is behind a condition.

    `unless` names for each mean as it was written the condition under which nobody wants it; `inner` are the
    means by column that take its place.
    """

    outputs: dict[str, Node]
    unless: dict[Node, Node] = field(default_factory=dict)
    inner: frozenset[Node] = frozenset()


def separated(outputs: Mapping[str, Node], domain: Domain) -> Separated:
    """The new values of a rule with such a mean or sum taken by column first, where it has one.

    (Of several each would take a pass of its own by column, and one may hang on another.) `domain` says what
    a node is one number of, as a `Rewriter` does.
    """
    known = [n for n in walk(outputs.values()) if is_reduction(n)]
    means = [n for n in known if n.op in ("mean_tensor", "sum_tensor")]
    found = {n: parts for n in means if (parts := _by_column(n, domain, known)) is not None}
    if len(found) != 1:
        return Separated(dict(outputs))
    ((mean, (inner, usable, value)),) = found.items()
    done: dict[Node, Node] = {}
    for n in walk(outputs.values()):
        done[n] = Node(n.op, tuple(done[a] for a in n.args), n.value) if n.args else n
        if n == mean:
            done[n] = node("where", usable, value, n)
    new = {word: done[n] for word, n in outputs.items()}
    return Separated(new, {mean: usable}, frozenset([inner]))


def unbounded(found: Separated, domain: Domain) -> dict[str, Node]:
    """The new values of a rule with bounds on products by row and by column only where they can be reached.

    Means as they were written keep theirs, which are reached where those are wanted.
    """
    done: dict[Node, Node] = {}
    for n in walk(found.outputs.values()):
        as_it_is = not n.args or n in found.unless
        done[n] = n if as_it_is else Node(n.op, tuple(done[a] for a in n.args), n.value)
        bounds: list[tuple[Parts, Node]] = []
        if n.op == "minimum" and domain(n) == "element" and "element" not in _split(n, domain, bounds):
            parts, limit = bounds[-1]
            product = next(done[a] for a in n.args if a != limit)
            done[n] = node("where", node("le", _most(parts), limit), product, done[n])
    return {word: done[n] for word, n in found.outputs.items()}


def _most(parts: Parts) -> Node:
    """What the product of such factors comes to at most."""
    most = node("abs", parts.get("scalar", ONE))
    for part in sorted(parts.keys() - {"scalar"}):
        most = node("mul", most, _largest(parts[part]))
    return most


def _by_column(mean: Node, domain: Domain, known: Collection[Node]) -> tuple[Node, Node, Node] | None:
    """The inner mean, whether it may be used, and what it comes to; `known` are the rule's reductions."""
    squared = _root(mean.args[0])
    if squared is None:
        return None
    bounds: list[tuple[Parts, Node]] = []
    parts = _split(squared, domain, bounds)
    if not {"element", "rows", "columns"} <= parts.keys() <= {"element", "rows", "columns", "scalar"}:
        return None
    e, a, b, s = (parts.get(part, ONE) for part in ("element", "rows", "columns", "scalar"))
    waits = {scope(n) for n in _reductions(a)}, {scope(n) for n in _reductions(b)}
    if any(_reductions(e)) or waits[0] != {"rows"} or "columns" not in waits[1]:
        return None
    smallest = node("max_tensor", node("neg", node("abs", b)))
    excesses = [node("sub", const(LOST), _square(smallest))]
    infinite = node("eq", node("maximum", _largest(a), _largest(b)), INFINITE)
    if (empty := _empty(parts, bounds, known)) is not None:
        a, b = (node("where", node("eq", x, INFINITE), const(0), x) for x in (a, b))
        bounds = [({**bounds[0][0], "rows": a, "columns": b}, bounds[0][1])]
    over = mean.op.removesuffix("tensor")
    inner = node(f"{over}columns", _square(node("mul", e, a)))
    if any("columns" in (scope(n), domain(n.args[0])) for n in walk(inner.args) if is_reduction(n)):
        return None
    total = node(f"{over}tensor", node("mul", inner, _square(b)))
    excesses += [node("sub", total, const(LARGEST)), _lost(_largest(b), total)]
    if empty is not None:
        empty += [_lost(limit, total) for _, limit in bounds]
        excesses.append(node("where", infinite, _largest_of(empty), const(0)))
    excesses += [node("sub", _most(bounded), limit) for bounded, limit in bounds]
    return inner, node("le", _largest_of(excesses), const(0)), node("mul", total, _square(s))


def _empty(parts: Parts, bounds: list[tuple[Parts, Node]], known: Collection[Node]) -> list[Node] | None:
    """What is above 0 where an infinite factor of a row or column counts; None where such are not left out.

    Divided by the root of its squares, a row of zeros has such a factor. Below a bound that makes 0 * limit,
    which is nothing, if the row is zeros indeed and the other factors are positive numbers. (Squares that
    float32 takes for zeros are `LOST` beside what such a limit makes of them.)
    """
    if len(bounds) != 1:
        return None
    ((bounded, _),) = bounds
    found = [node("sub", const(SMALL), bounded.get("scalar", ONE))]
    for part in ("rows", "columns"):
        factor = parts[part]
        squares = next((n for n in known if scope(n) == part and _root(n.args[0]) == parts["element"]), None)
        if squares is None or bounded.get(part) != factor:
            return None
        left_out = node("where", node("eq", factor, INFINITE), squares, const(0))
        least = node("neg", node("max_tensor", node("neg", factor)))
        found += [node("max_tensor", left_out), node("sub", const(SMALL), least)]
    return found


def _root(n: Node) -> Node | None:
    """What is squared."""
    if n.op == "pow" and n.args[1] == const(2):
        return n.args[0]
    return n.args[0] if n.op == "mul" and n.args[0] == n.args[1] else None


def _split(n: Node, domain: Domain, bounds: list[tuple[Parts, Node]]) -> Parts:
    """A product sorted by what its factors differ by; `bounds` are noted, as if they were never reached."""
    if n.op == "neg":
        return _split(node("mul", const(-1), n.args[0]), domain, bounds)
    if n.op in ("mul", "div") and domain(n) != "scalar":
        parts, other = (_split(x, domain, bounds) for x in n.args)
        for part, factor in other.items():
            own = parts.get(part)
            parts[part] = factor if own is None and n.op == "mul" else node(n.op, own or ONE, factor)
        return parts
    if n.op == "sqrt" and domain(n) != "scalar":
        return {part: node("sqrt", x) for part, x in _split(n.args[0], domain, bounds).items()}
    if n.op == "minimum" and domain(n) == "element":
        for inner, limit in (n.args, n.args[::-1]):
            if domain(limit) == "scalar":
                parts = _split(inner, domain, bounds)
                if "element" not in parts:
                    bounds.append((dict(parts), limit))
                    return parts
    return {domain(n): n}


def _reductions(n: Node) -> Iterator[Node]:
    """The sums in an expression, but those within others."""
    if is_reduction(n):
        yield n
    else:
        for a in n.args:
            yield from _reductions(a)


def _square(n: Node) -> Node:
    return node("pow", n, const(2))


def _largest(n: Node) -> Node:
    return node("max_tensor", node("abs", n))


def _largest_of(values: Iterable[Node]) -> Node:
    return functools.reduce(lambda a, b: node("maximum", a, b), values)


def _lost(x: Node, total: Node) -> Node:
    """What is above 0 where squares that float32 loses, times x**2, may count beside a total."""
    return node("sub", node("mul", const(LOST), _square(x)), total)
