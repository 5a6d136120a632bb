"""Many runs of a rule side by side: the float64 reference over a batch of hyper-parameters and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..formula import Rule, chance
from ..formula.nodes import Node, is_random, is_reduction, scope, walk
from ..kernels import reference

GUARDS = ("eps", "initial_accumulator_value")
"""How the names of hyper-parameters begin that only keep a division or a root from zero."""


def defaults(rule: Rule) -> dict[str, float]:
    """Every hyper-parameter at its default."""
    return {h.name: h.default for h in rule.hypers}


def guards(rule: Rule) -> list[str]:
    """The hyper-parameters that only keep a division or a root from zero."""
    return [h.name for h in rule.hypers if h.name.startswith(GUARDS)]


class Trial:
    """A rule on parameters [runs, rows, columns], each with hyper-parameters of its own.

    `hypers` are numbers or arrays [runs]. A sum over a tensor, or over all tensors, goes over one run.
    """

    def __init__(self, rule: Rule, p: Any, hypers: Mapping[str, Any]) -> None:
        self.rule, self.t = rule, 0
        self.p = np.array(p, np.float64)
        self.runs = len(self.p)
        self.hypers = {k: np.broadcast_to(np.asarray(v, np.float64), self.runs) for k, v in hypers.items()}
        one_by_one = rule.has_matrices or any(is_random(n) for n in walk(rule.outputs.values()))
        self._run = None if one_by_one else compiled(rule.outputs)
        each = [reference.initial_states(rule, p, self._of(k)) for k, p in enumerate(self.p)]
        self.states = {word: np.stack([one[word] for one in each]) for word in (each[0] if each else {})}

    def _of(self, run: int) -> dict[str, float]:
        return {k: float(v[run]) for k, v in self.hypers.items()}

    def step(self, g: Any) -> Any:
        """The parameters after one step along gradients [runs, rows, columns]."""
        self.t += 1
        g = np.broadcast_to(np.asarray(g, np.float64), self.p.shape)
        if self._run is None:
            self._each(g)
        else:
            self._all(g, self._run)
        return self.p

    def _each(self, g: Any) -> None:
        new = [
            reference.step(self.rule, p, g[k], self.t, {w: s[k] for w, s in self.states.items()}, self._of(k))
            for k, p in enumerate(self.p)
        ]
        self.p = np.stack([p for p, _ in new])
        self.states = {word: np.stack([states[word] for _, states in new]) for word in self.states}

    def _all(self, g: Any, run: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        def spread(x: Any) -> Any:
            return x[:, None, None] if np.ndim(x) == 1 else x

        values = {k: spread(v) for k, v in [*self.hypers.items(), *self.states.items()]}
        rows, columns = map(np.float64, self.p.shape[1:])
        values |= {"p": self.p, "g": g, "t": np.float64(self.t), "rows": rows, "columns": columns}
        with np.errstate(all="ignore"):
            new = run(values)
        self.p = np.broadcast_to(new["p"], self.p.shape)
        for word, old in self.states.items():
            flat = np.broadcast_to(new[word], spread(old).shape)
            self.states[word] = flat.reshape(old.shape)


def evaluate(outputs: Mapping[str, Node], values: Mapping[str, Any]) -> dict[str, Any]:
    """Expressions of elements and sums over batches [runs, rows, columns], as they were read."""
    return compiled(outputs)(values)


def compiled(outputs: Mapping[str, Node]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """`evaluate` of some expressions, for many values."""
    nodes = list(walk(outputs.values()))
    place = {n: k for k, n in enumerate(nodes)}
    plan = [(*_operation(n), [place[a] for a in n.args]) for n in nodes]
    ends = {word: place[n] for word, n in outputs.items()}

    def run(values: Mapping[str, Any]) -> dict[str, Any]:
        done: list[Any] = []
        for kind, what, given in plan:
            if kind == "name":
                done.append(values[what])
            elif kind == "const":
                done.append(what)
            else:
                done.append(what(*(done[k] for k in given)))
        return {word: done[k] for word, k in ends.items()}

    return run


def _operation(n: Node) -> tuple[str, Any]:
    if n.op in ("const", "name"):
        return n.op, n.value
    join = _JOIN.get(n.op.split("_")[0]) if is_reduction(n) else None
    if join is None:
        return "call", _OPERATIONS[n.op]
    axes = {"rows": (-1,), "columns": (-2,)}.get(scope(n), (-2, -1))

    def joined(x: Any) -> Any:
        whole = np.broadcast_to(x, np.broadcast_shapes(np.shape(x), (1, 1)))
        return join(whole, axis=axes, keepdims=True)

    return "call", joined


_JOIN: dict[str, Any] = {"sum": np.sum, "mean": np.mean, "max": np.max}
_OPERATIONS: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power,
    "neg": np.negative, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal, "sqrt": np.sqrt, "abs": np.abs, "sign": np.sign, "exp": np.exp,
    "log": np.log, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "floor": np.floor,
    "minimum": np.minimum, "maximum": np.maximum, "where": np.where, "key": chance.keys,
}  # fmt: skip
