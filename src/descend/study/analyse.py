"""`descend analyse`: what a rule's formula says of it, and whether running it agrees."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..formula import Rule, rule_of, stage
from ..formula.nodes import is_reduction, scope, walk
from ..formula.nodes import name as leaf
from ..formula.vocabulary import MATRIX, RANDOM, REDUCTIONS, WORDS
from .analyse_algebra import FirstStep, Linear, Underivable, first_step, linear
from .analyse_limits import Coincidence, coincidences
from .analyse_runs import GRADIENTS, SMALL, Quadratic, descents, first_steps, on_quadratics, scaled, turned
from .analyse_symmetry import MIXED, Degree, Degrees, Parity, permutes, rotates, shifts
from .analyse_trial import defaults
from .costs import state_bytes

_DECAYS = ("weight_decay", "lambd")
_STEP = {0.0: "the same step", 1.0: "c times the step", -1.0: "1/c of the step", None: "neither"}
_EDGE = 0.01
_ROUNDINGS = 1e-9
"""Differences below this share of a step are those of float64."""


@dataclass(frozen=True)
class Invariance:
    """One change of scale or coordinates: what the formula says comes of it, and what running found.

    `derived` is empty where the formula was not read for it; `apart` is how far the steps were from `found`,
    as a share of the largest; `note` what else belongs to it.
    """

    what: str
    derived: str
    found: str
    apart: float
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Whether formula and running say the same."""
        return self.derived in ("", self.found)


@dataclass(frozen=True)
class Analysis:
    """What is known of a rule; `str` is the page that `descend analyse` prints."""

    rule: Rule
    first: FirstStep | None
    first_why: str
    moved: Any
    stable: Linear | None
    stable_why: str
    holds: tuple[bool, bool] | None
    quadratic: Quadratic | None
    invariances: tuple[Invariance, ...]
    coincides: tuple[Coincidence, ...]

    @cached_property
    def words(self) -> list[str]:
        """The words of the vocabulary in the formula."""
        known = [*WORDS, *REDUCTIONS, *MATRIX, *RANDOM]
        lines = "\n".join(line for formula in self.rule.formulas for line in formula.reading.lines)
        return [word for word in known if re.search(rf"\b{word}\(", lines)]

    @cached_property
    def sums(self) -> list[str]:
        """Over what the formula sums or takes the largest."""
        scopes = {scope(n) for n in walk(self.rule.outputs.values()) if is_reduction(n)}
        names = {"tensor": "a tensor", "rows": "each row", "columns": "each column", "global": "all tensors"}
        return [said for word, said in names.items() if word in scopes]

    def __str__(self) -> str:
        rule = self.rule
        head = f"{rule.title or rule.name}" + (f" ({rule.source})" if rule.source else "")
        parts = [
            ("", [head, "", *(f"    {line}" for line in rule.formula_text.splitlines())]),
            ("The first step", self._first()),
            ("Rate x curvature: the stable range of lr*h on the quadratic h/2 * p**2", self._stable()),
            ("What a change of scale or coordinates does to the step", self._scales()),
            ("Memory", self._memory()),
            ("The same steps as another rule", self._limits()),
        ]
        return "\n\n".join("\n".join([*([title] if title else []), *lines]) for title, lines in parts)

    def _first(self) -> list[str]:
        lr = defaults(self.rule).get("lr", 1.0)
        shown = (0, len(GRADIENTS) // 2, -1)
        first, *more = (f"{_short(abs(self.moved[k]) / lr)} at {GRADIENTS[k]:g}" for k in shown)
        found = f"|step| / lr = {first.replace(' at ', ' at |g| = ')}, {', '.join(more)} (p = 1)"
        if self.first is None:
            return [f"  formula  not derived: {self.first_why}", f"  running  {found}"]
        said = [self.first.formula, f"for large g by {self.first.limit}" if self.first.limit else ""]
        zero = f" (with {', '.join(self.first.zero)} = 0)" if self.first.zero else ""
        said[0] = f"by {said[0]}" if said[0] else ""
        lines = [
            f"  formula  p falls {', '.join(filter(None, said)) or 'by a formula too long to print'}{zero}"
        ]
        apart = self.first_apart
        if apart is not None:
            found += f": {'' if apart < SMALL else 'NOT '}as the formula says"
        return [*lines, f"  running  {found}"]

    @property
    def first_apart(self) -> float | None:
        """How far the first step, run, is from its formula, as a share; None where they were not compared."""
        if self.first is None or self.first.values is None:
            return None
        size = np.maximum(np.abs(self.moved), 1e-15 / SMALL)
        return float(np.max(np.abs(self.moved + self.first.values) / size))

    def _stable(self) -> list[str]:
        if self.stable is not None:
            one, zero = self.stable, self.stable.zero
            closed = one.formula if not re.fullmatch(r"[\d.]*", one.formula) else ""
            formula = f"0 < lr*h < {closed + ' = ' if closed else ''}"
            notes = [f"with {', '.join(zero)} = 0"] if zero else []
            notes += [] if one.of_product else ["at the default lr: it is not of the product alone"]
            notes += [f"while {', '.join(one.changing)} is as at the start"] if one.changing else []
            said = f"  formula  {formula}{one.limit:.6g}{' (' + '; '.join(notes) + ')' if notes else ''}"
            inside, outside = self.holds or (False, False)
            found = f"at {1 - _EDGE:g} of it p {'shrinks' if inside else 'GROWS'}, at {1 + _EDGE:g} it "
            return [said, f"  running  {found}{'grows' if outside else 'SHRINKS'}"]
        q = self.quadratic
        assert q is not None
        span = f"from {q.least:g} to {q.most:g}"
        if q.limit is not None:
            found = f"found by running: from lr*h = {q.limit:.4g} on p ends 1000 times as far away, or more"
        else:
            found = f"found by running: no limit, for lr*h {span}"
        lines = [f"  formula  not derived: {self.stable_why}", f"  running  {found} ({q.steps} steps)"]
        ends = [f"goes round in a cycle of {_span(*q.cycles)} lr"] if q.cycles else []
        ends += ["still falls"] if q.falls else []
        return [*lines, *([f"           in the end p {' or '.join(ends)}"] if ends else [])]

    def _scales(self) -> list[str]:
        rows = [("", "formula", "running")]
        for one in self.invariances:
            found = one.found + (f" (to {one.apart:.0e})" if SMALL > one.apart > _ROUNDINGS else "")
            found += "" if one.agrees else "   <- not what the formula says"
            rows.append((one.what, one.derived or "-", found))
        wide = [max(len(row[k]) for row in rows) for k in (0, 1)]
        lines = [f"  {a:{wide[0]}}  {b:{wide[1]}}  {c}" for a, b, c in rows]
        notes = [f"  {one.what}: {one.note}" for one in self.invariances if one.note]
        given = [
            s.name for s in self.rule.states if s.init != "p" and self.rule.outputs[s.name] == leaf(s.name)
        ]
        notes += [f"  {word} is the user's to write; here it stays as it starts" for word in given]
        return [*lines, *notes]

    def _memory(self) -> list[str]:
        program = stage(self.rule)
        states = ", ".join(s.name for s in self.rule.states if not s.scalar)
        numbers = ", ".join(s.name for s in self.rule.states if s.scalar)
        sweeps = program.sweeps
        return [
            f"  state   {state_bytes(self.rule)} bytes for an element of a float32 parameter"
            + (f": {states}" if states else "")
            + (f"; and for a whole parameter {numbers}" if numbers else ""),
            f"  passes  {sweeps} over the elements, which move {program.bytes_moved} values of each",
            f"  sums    {'over ' + ', '.join(self.sums) if self.sums else 'none'}"
            + ("; and words for whole matrices" if self.rule.has_matrices else ""),
            f"  words   {' '.join(self.words) or 'none but + - * / **'}",
        ]

    def _limits(self) -> list[str]:
        if self.rule.has_matrices:
            return ["  not looked for: the rule works on whole matrices"]
        if not self.coincides:
            return ["  none found, with at most two hyper-parameters at 0, at 1 or at an end of their ranges"]
        return [f"  {one}" for one in self.coincides]


def analyse(rule: str | Rule | Callable[..., Any]) -> Analysis:
    """Read a rule's properties from its formula, and check each by running the float64 reference.

    `rule` is a name of `descend rules`, the name of a file with a formula, a rule, a chain or a bare formula.
    Everything is at the default hyper-parameters. It takes a second or a few.

    >>> found = analyse("gradient_descent")
    >>> found.first.formula, found.stable.limit
    ('lr*g', 2.0)
    >>> print(found.coincides[0])
    adadelta where its rho = 1

    Raises UsageError for an unknown name, FormulaError for a formula that cannot be read.
    """
    from .. import rules

    given = rules.get(rule) if isinstance(rule, str) else rule_of(rule)
    stage(given)  # refuses what is no rule
    first, first_why = _tried(lambda: first_step(given, GRADIENTS))
    stable, stable_why = _tried(lambda: linear(given))
    return Analysis(
        given,
        first,
        first_why,
        first_steps(given),
        stable,
        stable_why,
        None if stable is None else _edges(given, stable.limit),
        on_quadratics(given) if stable is None else None,
        tuple(_invariances(given)),
        tuple(coincidences(given, map(rules.get, rules.names()))),
    )


def _tried(derive: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return derive(), ""
    except Underivable as why:
        return None, str(why)


def _edges(rule: Rule, limit: float) -> tuple[bool, bool]:
    """Whether p shrinks just inside the stable range, and grows just outside."""
    grew, falls, size = descents(rule, np.array([1 - _EDGE, 1 + _EDGE]) * limit, 4000)
    return bool(falls[0]), bool(grew[1] or size[1] > 20)


def _invariances(rule: Rule) -> list[Invariance]:
    found = [
        _scale(rule, "the loss times c (g to c*g)", 0.0, 1.0),
        _scale(rule, "the parameters times c (g to g/c)", 1.0, -1.0),
    ]
    places = permutes(rule)
    turns: list[tuple[str, str, str, bool | None]] = [
        ("p and g to -p and -g", "sign", "the step turns too", Parity(rule).of_change() == 1.0),
        ("all coordinates rotated", "rotation", "the step turns too", rotates(rule)),
        ("all elements change places", "elements", "the step does too", places == "elements"),
        ("rows and columns change places", "rows and columns", "the step does too", places != "nothing"),
    ]
    if rule.has_matrices:
        turns.append(("rotated by rows and by columns", "sides", "the step turns too", None))
    turns.append(("p shifted", "shift", "the same step", shifts(rule)))
    for what, how, said, derived in turns:
        apart = turned(rule, how)
        if how == "rows and columns" and places == "elements":
            continue
        same = said if apart < SMALL else "another step"
        found.append(
            Invariance(what, "" if derived is None else said if derived else "another step", same, apart)
        )
    return found


def _scale(rule: Rule, what: str, p: float, g: float) -> Invariance:
    answer = scaled(rule, p, g)
    derived = _said(Degrees(rule, p, g).of_change())
    note = "what is left comes from eps, and shrinks with it" if answer.of_guards else ""
    decays = tuple(h.name for h in rule.hypers if h.name in _DECAYS and h.default != 0)
    if decays and answer.factor is None:
        without = _said(Degrees(rule, p, g, decays).of_change())
        run = _STEP[scaled(rule, p, g, decays).factor]
        if run == without and run != "neither":
            note = f"without {', '.join(decays)} {run}"
    return Invariance(what, derived, _STEP[answer.factor], answer.apart, note)


def _said(degree: Degree) -> str:
    return "neither" if degree == MIXED or isinstance(degree, str) else _STEP.get(degree, "neither")


def _short(value: float) -> str:
    return f"{value:.3g}"


def _span(low: float, high: float) -> str:
    return _short(low) if _short(low) == _short(high) else f"{_short(low)} to {_short(high)}"
