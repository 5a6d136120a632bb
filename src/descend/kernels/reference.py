"""The float64 reference: the formula's own Python, run on float64 NumPy arrays. The oracle of every test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..formula import Rule, chance, vocabulary
from ..formula.nodes import Node, is_reduction, walk
from ..formula.vocabulary import Meeting

NAME = "reference"


def initial_states(rule: Rule, p: Any, hypers: Mapping[str, float], place: int = 0) -> dict[str, Any]:
    """The states before the first step: arrays shaped like `p`, its rows or its columns, or numbers.

    `place` is which of the optimizer's parameters it is.
    """
    found: dict[str, Any] = {}
    for state in rule.states:
        if state.init == "place":
            found[state.name] = np.float64(place)
            continue
        if state.init == "p":
            found[state.name] = np.array(p, np.float64)
            continue
        start = hypers[state.init] if isinstance(state.init, str) else state.init
        *outer, rows, columns = np.shape(p) if state.shape in ("rows", "columns") else (1, 1)
        shape = {"element": np.shape(p), "rows": (*outer, rows, 1), "columns": (*outer, 1, columns)}
        if rule.is_flat:
            first, *rest = np.shape(p) or (1,)
            shape |= {"rows": (first, *(1 for _ in rest)), "columns": (1, *rest)}
        height, width = _matrix(p)
        shape |= {"left": (height, height), "right": (width, width)}
        found[state.name] = np.float64(start) if state.scalar else np.full(shape[state.shape], start, float)
    return found


def step(
    rule: Rule, p: Any, g: Any, t: int, states: Mapping[str, Any], hypers: Mapping[str, float]
) -> tuple[Any, dict[str, Any]]:
    """One step of a rule in float64.

    `p` and `g` are arrays of one shape, `t` counts from 1. Returns the new p and the new states; nothing
    is written in place. Matrices are taken whole: no blocks, and no square matrix left out.
    """
    if (rule.has_matrices and np.ndim(p) != 2) or (rule.is_flat and np.ndim(p) > 2):
        rows, columns = _matrix(p)
        shapes = {"element": (rows, columns), "rows": (rows, 1), "columns": (1, columns)}
        flat = {s.name: shapes[s.shape] for s in rule.states if s.shape in shapes and not s.scalar}
        given = {k: np.reshape(v, flat.get(k, np.shape(v))) for k, v in states.items()}
        new, kept = step(rule, np.reshape(p, _matrix(p)), np.reshape(g, _matrix(p)), t, given, hypers)
        return new.reshape(np.shape(p)), {k: np.reshape(v, np.shape(states[k])) for k, v in kept.items()}
    values: dict[str, Any] = {k: np.float64(v) for k, v in hypers.items()}
    values |= {k: np.asarray(v, np.float64) for k, v in states.items()}
    values |= {"p": np.asarray(p, np.float64), "g": np.asarray(g, np.float64), "t": np.float64(t)}
    values |= zip(("rows", "columns"), map(np.float64, _matrix(p)), strict=True)
    with np.errstate(all="ignore"), chance.elements(np.shape(p)):
        if any(formula.takes_update for formula in rule):
            # p before minus p after would lose the digits that an update has below p's last
            new = evaluate(rule.outputs, values)
            return new["p"], {k: new[k] for k in states}
        for formula in rule:
            values |= formula.run(values)
    return values["p"], {k: values[k] for k in states}


def _matrix(p: Any) -> tuple[int, int]:
    """The first dimension and all others together; a vector is one column."""
    rows = np.shape(p)[0] if np.ndim(p) else 1
    return rows, np.size(p) // max(1, rows)


def evaluate(outputs: Mapping[str, Node], values: Mapping[str, Any]) -> dict[str, Any]:
    """Expressions as they were read, before any rewriting, in NumPy at the precision of `values`."""
    done: dict[Node, Any] = {}
    for n in walk(outputs.values()):
        if n.op == "const":
            done[n] = n.number
        elif n.op == "name":
            done[n] = values[n.word]
        else:
            given = [done[a] for a in n.args]
            word = n.op
            if is_reduction(n):
                word, over = n.op.split("_")
                word, given = (f"global_{word}", given) if over == "global" else (word, [*given, over])
            done[n] = (_ARITHMETIC.get(word) or getattr(vocabulary, word))(*given)
    return {word: done[n] for word, n in outputs.items()}


_ARITHMETIC: dict[str, Any] = {
    "key": chance.keys,
    "uniform": lambda key: chance.fractions(float(key), 0, chance.index()),
    "normal": lambda key: chance.gaussian(float(key), chance.index()),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "neg": np.negative,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def step_together(
    rule: Rule | Sequence[Rule],
    ps: Sequence[Any],
    gs: Sequence[Any],
    t: int,
    states: Sequence[Mapping[str, Any]],
    hypers: Mapping[str, float],
) -> list[tuple[Any, dict[str, Any]]]:
    """One step of several tensors whose rule reduces over all of them. As `step`, for each tensor.

    `rule` may be one for each, where parts of a chain leave some tensors out.
    """
    meeting = Meeting(len(ps))
    own = [rule] * len(ps) if isinstance(rule, Rule) else rule

    def one(place: int) -> tuple[Any, dict[str, Any]]:
        Meeting.here.meeting, Meeting.here.place = meeting, place
        try:
            return step(own[place], ps[place], gs[place], t, states[place], hypers)
        except BaseException:
            meeting.barrier.abort()
            raise
        finally:
            Meeting.here.meeting = None

    with ThreadPoolExecutor(len(ps)) as pool:
        return list(pool.map(one, range(len(ps))))
