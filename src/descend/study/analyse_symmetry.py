"""Invariances, read off a formula: how every part of it scales, and whether it knows its coordinates.

Each reading is a small type system: the leaves have a type, an operation makes one of its arguments' types,
and the states' types are found by going round until they stay. What keeps a division or a root from zero
(`eps`) is left out where it is added to something of another degree.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from ..formula import Rule
from ..formula.nodes import COMPARISON, MATRIX, Node, is_reduction, scope, walk
from .analyse_trial import defaults, evaluate, guards

ZERO = "zero"
"""The type of what is zero: it has any degree."""
MIXED = "mixed"
"""The type of what has none."""

Degree = float | str


class Degrees:
    """The power of c by which each part of a rule grows when p grows by c**p and g by c**g.

    Hyper-parameters are at their defaults, those in `without` at zero.
    """

    def __init__(self, rule: Rule, p: float, g: float, without: Collection[str] = ()) -> None:
        self.rule, self.guards = rule, set(guards(rule))
        hypers = {**defaults(rule), **dict.fromkeys(without, 0.0)}
        self.leaves: dict[str, Degree] = {word: ZERO for word, value in hypers.items() if value == 0}
        self.leaves |= {"p": p, "g": g}
        first: dict[str, Degree] = {}
        for s in rule.states:
            start = hypers.get(s.init, 0.0) if isinstance(s.init, str) else s.init
            guarded = isinstance(s.init, str) and s.init in self.guards
            first[s.name] = p if s.init == "p" else ZERO if guarded or start == 0 else 0.0
        self.leaves |= first
        for _ in range(4 * len(rule.states) + 2):
            self.done = self._all()
            new = {word: self._joined(first[word], self.done[rule.outputs[word]]) for word in first}
            known = {word: degree for word, degree in new.items() if degree != MIXED}
            if all(self.leaves[word] == degree for word, degree in known.items()):
                break
            # what had no degree while others were still unknown is tried again
            self.leaves |= {**first, **known}
        else:
            known = {}
        self.leaves |= {word: MIXED for word in first if word not in known}
        self.done = self._all()

    def _all(self) -> dict[Node, Degree]:
        done: dict[Node, Degree] = {}
        for n in walk(self.rule.outputs.values()):
            done[n] = self._one(n, done)
        return done

    def of_change(self) -> Degree:
        """The degree of p after the step less p before it."""
        found: Degree = ZERO
        for part in change(self.rule):
            found = self._joined(found, self._one_deep(part))
        return found

    def _one_deep(self, n: Node) -> Degree:
        for inner in walk([n]):
            if inner not in self.done:
                self.done[inner] = self._one(inner, self.done)
        return self.done[n]

    def _one(self, n: Node, done: Mapping[Node, Degree]) -> Degree:
        if n.op == "const":
            return ZERO if n.number == 0 else 0.0
        if n.op == "name":
            return self.leaves.get(n.word, 0.0)
        given = [done[a] for a in n.args]
        if n.op in ("add", "sub", "minimum", "maximum"):
            return self._summed(n, given)
        if n.op in COMPARISON:
            return MIXED if self._summed(n, given) == MIXED else 0.0
        if n.op == "where":
            if n.args[0].op == "eq" and ZERO in (done[a] for a in n.args[0].args):
                return given[2]  # what holds where something happens to be zero says nothing of the rest
            return MIXED if given[0] == MIXED else self._joined(given[1], given[2])
        if MIXED in given:
            return MIXED
        numbers = [0.0 if isinstance(x, str) else x for x in given]
        if n.op == "mul":
            return ZERO if ZERO in given else numbers[0] + numbers[1]
        if n.op == "div":
            return ZERO if given[0] == ZERO else numbers[0] - numbers[1]
        if n.op == "pow":
            if n.args[1].op == "const":
                return ZERO if given[0] == ZERO else numbers[0] * n.args[1].number
            return 0.0 if numbers == [0.0, 0.0] else MIXED
        if n.op == "sqrt":
            return given[0] if given[0] == ZERO else numbers[0] / 2
        if n.op == "sign":
            return 0.0 if given[0] != ZERO else ZERO
        if n.op in ("neg", "abs", "transpose") or is_reduction(n):
            return given[0]
        if n.op in MATRIX:
            return self._matrix(n, given, numbers)
        return 0.0 if all(x == 0.0 for x in numbers) else MIXED

    def _matrix(self, n: Node, given: list[Degree], numbers: list[float]) -> Degree:
        if n.op == "matmul":
            return ZERO if ZERO in given else numbers[0] + numbers[1]
        if n.op == "every":
            return self._joined(given[2], given[3])
        if n.op == "inverse_root" and n.args[1].op == "const":
            return -numbers[0] / n.args[1].number
        return 0.0 if n.op in ("newton_schulz", "eigenbasis") else MIXED

    def _summed(self, n: Node, given: list[Degree]) -> Degree:
        for k in (0, 1):
            if given[k] != given[1 - k] and given[1 - k] != ZERO and self._is_guard(n.args[k]):
                return given[1 - k]
        return self._joined(*given)

    def _is_guard(self, n: Node) -> bool:
        if n.op == "mul":
            return any(map(self._is_guard, n.args))
        names = [leaf.word for leaf in walk([n]) if leaf.op == "name"]
        return bool(names) and set(names) <= self.guards

    def _joined(self, x: Degree, y: Degree) -> Degree:
        return y if x == ZERO else x if y == ZERO or x == y else MIXED


def change(rule: Rule) -> list[Node]:
    """What is added to p or subtracted from it, where the rule says so; else p itself, old and new."""
    parts, n = [], rule.outputs["p"]
    while n.op in ("add", "sub"):
        parts.append(n.args[1])
        n = n.args[0]
    if n.op == "name" and n.word == "p":
        return parts
    return [*parts, n, Node("name", (), "p")]


class Parity(Degrees):
    """Whether each part turns its sign with p and g: degree 1 if so, 0 if not."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule, 1.0, 1.0)

    def _one(self, n: Node, done: Mapping[Node, Degree]) -> Degree:
        given = [done[a] for a in n.args]
        if n.op in ("minimum", "maximum"):
            return self._bounded(n, done)
        if n.op in COMPARISON:
            to_zero = ZERO in given and n.op in ("eq", "ne")
            return 0.0 if to_zero or all(x in (0.0, ZERO) for x in given) else MIXED
        if n.op == "abs" and given[0] == 1.0:
            return 0.0
        if n.op in ("sign", "newton_schulz"):
            return given[0]
        if n.op.startswith("max_") and given[0] == 1.0:
            return MIXED
        found = super()._one(n, done)
        if isinstance(found, str):
            return found
        return found % 2 if found == int(found) else MIXED

    def _bounded(self, n: Node, done: Mapping[Node, Degree]) -> Degree:
        """min(max(x, -a), a) turns with x; max(x, -x) does not."""
        if _opposite(*n.args):
            return 0.0
        for inner, bound in (n.args, n.args[::-1]):
            if {inner.op, n.op} == {"minimum", "maximum"}:
                for x, other in (inner.args, inner.args[::-1]):
                    if done[x] == 1.0 and _opposite(other, bound):
                        return 1.0
        return 0.0 if all(done[a] in (0.0, ZERO) for a in n.args) else MIXED


def _opposite(x: Node, y: Node) -> bool:
    if x.op == y.op == "const":
        return x.number == -y.number
    return Node("neg", (x,)) == y or Node("neg", (y,)) == x


def rotates(rule: Rule) -> bool:
    """Whether the formula keeps to lengths and angles: vectors added, and multiplied by what all share."""
    kinds = {"p": "vector", "g": "vector"} | {s.name: "vector" for s in rule.states if not s.scalar}
    for s in rule.states:
        if not s.scalar and (s.shape != "element" or s.init not in ("p", 0.0)):
            kinds[s.name] = "other"
    for _ in range(len(rule.states) + 1):
        done: dict[Node, str] = {}
        for n in walk(rule.outputs.values()):
            done[n] = _kind(n, [done[a] for a in n.args], kinds)
        kinds |= {s.name: done[rule.outputs[s.name]] for s in rule.states if not s.scalar}
    return done[rule.outputs["p"]] == "vector"


def _kind(n: Node, given: list[str], kinds: Mapping[str, str]) -> str:
    if not n.args:
        return kinds.get(n.word, "number") if n.op == "name" else "number"
    if all(x == "number" for x in given):
        return "number"
    if n.op in ("add", "sub") and given == ["vector", "vector"]:
        return "vector"
    if n.op == "neg" or (n.op == "where" and given[0] == "number" and given[1] == given[2]):
        return given[-1]
    if n.op == "mul" and sorted(given) == ["number", "vector"]:
        return "vector"
    if n.op == "mul" and given == ["vector", "vector"]:
        return "product"
    if n.op == "pow" and given[0] == "vector" and n.args[1].op == "const" and n.args[1].number == 2:
        return "product"
    if n.op == "mul" and sorted(given) == ["number", "product"]:
        return "product"
    if n.op == "div" and given[1] == "number":
        return given[0]
    if n.op in ("add", "sub") and given == ["product", "product"]:
        return "product"
    if given == ["product"] and is_reduction(n) and n.op[:3] != "max" and scope(n) in ("tensor", "global"):
        return "number"
    return "other"


def permutes(rule: Rule) -> str:
    """What may change places without a difference: "elements", or whole "rows and columns"."""
    nodes = list(walk(rule.outputs.values()))
    if any(n.op in ("uniform", "normal") for n in nodes):
        return "nothing"
    by_side = any(is_reduction(n) and scope(n) in ("rows", "columns") for n in nodes)
    return "rows and columns" if rule.has_matrices or by_side else "elements"


def shifts(rule: Rule) -> bool:
    """Whether only differences of points matter: p enters with weights that cancel."""
    values = {k: np.float64(v) for k, v in defaults(rule).items()}
    weights: dict[str, float | None] = {"p": 1.0, "g": 0.0}
    weights |= {s.name: 1.0 if s.init == "p" else 0.0 for s in rule.states}
    values |= {"t": np.float64(7.0), "rows": np.float64(3.0), "columns": np.float64(4.0)}
    values |= {s.name: np.float64(0.5) for s in rule.states if s.scalar}
    done: dict[Node, float | None] = {}
    for n in walk(rule.outputs.values()):
        done[n] = _weight(n, done, weights, values)
    new = {word: done[n] for word, n in rule.outputs.items()}
    return all(
        found is not None and abs(found - (weights[word] or 0.0)) < 1e-12
        for word, found in new.items()
        if word == "p" or feeds(rule, word)
    )


def feeds(rule: Rule, word: str) -> bool:
    """Whether a state has a part in what p becomes, now or later."""
    found, todo = set[str](), ["p"]
    while todo:
        for n in walk([rule.outputs[todo.pop()]]):
            if n.op == "name" and n.word in rule.outputs and n.word not in found:
                found.add(n.word)
                todo.append(n.word)
    return word in found


def _weight(
    n: Node,
    done: Mapping[Node, float | None],
    weights: Mapping[str, float | None],
    values: Mapping[str, float],
) -> float | None:
    """How far a part moves, in shifts of p; None where that is no fixed number."""
    if not n.args:
        return weights.get(n.word, 0.0) if n.op == "name" else 0.0
    given = [done[a] for a in n.args]
    if all(x == 0.0 for x in given):
        return 0.0
    if None in given:
        return None
    x, *more = (y or 0.0 for y in given)
    if n.op in ("add", "sub"):
        return x + more[0] if n.op == "add" else x - more[0]
    if n.op == "neg":
        return -x
    if n.op in ("mul", "div"):
        place = 1 if n.op == "mul" and given[0] == 0.0 else 0
        factor = _value(n.args[1 - place], values)
        moved = given[place] or 0.0
        if factor is None or given[1 - place] != 0.0:
            return None
        return moved * factor if n.op == "mul" else moved / factor
    if n.op == "where" and given[0] == 0.0 and given[1] == given[2]:
        return given[1]
    return None


def _value(n: Node, values: Mapping[str, float]) -> float | None:
    """A number of the host, at the defaults."""
    names = [leaf.word for leaf in walk([n]) if leaf.op == "name"]
    if any(word not in values for word in names) or any(is_reduction(x) for x in walk([n])):
        return None
    with np.errstate(all="ignore"):
        return float(evaluate({"": n}, values)[""])
