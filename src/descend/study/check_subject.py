"""What the checks of a rule work on: optimizers of it over seeded tensors, and the reference beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..formula import Hyper, Program, Rule, stage
from ..formula.nodes import is_reduction, scope, walk
from ..kernels import reference
from ..kernels.cpu.team import SHARE
from ..optim.base import FormulaOptimizer
from ..optim.rule_optimizer import RuleOptimizer, class_of

Shape = tuple[int, ...]
States = list[tuple[Any, dict[str, Any]]]
"""Of every tensor p, and its states by name, as float64 arrays."""

ABOVE_CHUNKS = 2 * SHARE + 5
"""Elements of a tensor that two threads share, with a rest that fills no vector."""


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        area: what was looked at, in a word or two.
        word: "holds", "fails", or "note" for something to know that is neither.
        said: what was found, a sentence with numbers.
        advice: what to do about it; empty where there is nothing to do.
        table: rows of a table below the sentence, the first of them its head.
    """

    area: str
    word: str
    said: str
    advice: str = ""
    table: tuple[tuple[str, ...], ...] = ()


def holds(area: str, said: str) -> Finding:
    """A finding that is as it should be."""
    return Finding(area, "holds", said)


def fails(area: str, said: str, advice: str) -> Finding:
    """A finding that is a mistake."""
    return Finding(area, "fails", said, advice)


def note(area: str, said: str, advice: str = "", table: Sequence[Sequence[str]] = ()) -> Finding:
    """A finding to know of."""
    return Finding(area, "note", said, advice, tuple(tuple(row) for row in table))


class ByTorch(torch.nn.Parameter):
    """A parameter that the compiled kernels leave to torch's own operations."""


@dataclass(frozen=True)
class Subject:
    """A rule under test; `quick` asks for fewer types, shapes and steps."""

    rule: Rule
    quick: bool = False

    @cached_property
    def program(self) -> Program:
        """The staged formula."""
        return stage(self.rule)

    @cached_property
    def kind(self) -> type[RuleOptimizer]:
        """The optimizer class, with the hyper-parameters by their names."""
        return class_of(self.rule)

    @cached_property
    def defaults(self) -> dict[str, float]:
        """Every hyper-parameter at its default."""
        return {h.name: h.default for h in self.rule.hypers}

    @cached_property
    def needs_matrix(self) -> bool:
        """Whether a parameter must have rows and columns."""
        shaped = any(s.shape != "element" and not s.scalar for s in self.rule.states)
        summed = any(scope(n) in ("rows", "columns") for n in self._reductions)
        return self.rule.kind == "matrix" or shaped or summed

    @cached_property
    def is_global(self) -> bool:
        """Whether the rule sums over all tensors together."""
        return any(scope(n) == "global" for n in self._reductions)

    @cached_property
    def _reductions(self) -> list[Any]:
        return [n for n in walk(self.rule.outputs.values()) if is_reduction(n)]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Small shapes that suit the rule."""
        if self.needs_matrix:
            return (6, 4), (5, 5), (3, 17), (4, 3, 2, 2)
        return (), (1,), (7,), (33, 5), (4, 3, 3, 3)

    @property
    def shape(self) -> Shape:
        """One small shape that suits the rule."""
        return (6, 4) if self.needs_matrix else (24,)

    @property
    def large(self) -> tuple[Shape, ...]:
        """Shapes of several chunks and odd sizes."""
        if self.rule.kind == "matrix":
            return (64, 48), (33, 65)
        return ((150, 1001), (64, 64)) if self.needs_matrix else ((150, 1001), (ABOVE_CHUNKS,), (7,))

    def run(
        self,
        shapes: Sequence[Shape],
        dtype: torch.dtype = torch.float32,
        hypers: Mapping[str, Any] | None = None,
        by_torch: bool = False,
        change: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> Run:
        """An optimizer of the rule over fresh parameters; `change` gives each another layout."""
        random = torch.Generator().manual_seed(0)
        make = ByTorch if by_torch else torch.nn.Parameter
        values = [_normal(shape, dtype, random) for shape in shapes]
        params = [make(value if change is None else change(value)) for value in values]
        return Run(self, params, random, self.kind(params, **(hypers or {})))


def _normal(shape: Shape, dtype: torch.dtype, random: torch.Generator) -> torch.Tensor:
    return torch.randn(
        shape, dtype=torch.complex128 if dtype.is_complex else torch.float64, generator=random
    ).to(dtype)


@dataclass
class Run:
    """Parameters on their way: an optimizer of the rule, and what the reference needs beside it."""

    subject: Subject
    params: list[Any]
    random: torch.Generator
    optimizer: FormulaOptimizer
    steps: int = 0

    def draw(self) -> None:
        """Fresh normal gradients, in the layout of their parameters."""
        for p in self.params:
            p.grad = torch.empty_like(p.detach()).as_subclass(torch.Tensor)
            p.grad.copy_(_normal(tuple(p.shape), p.dtype, self.random))

    def step(self) -> None:
        """One step with the gradients as they are."""
        self.optimizer.step()
        self.steps += 1

    def go(self, steps: int) -> Run:
        """So many steps with fresh gradients."""
        for _ in range(steps):
            self.draw()
            self.step()
        return self

    def state(self, p: Any) -> Mapping[str, Any]:
        """The states of a parameter under the names of the formula."""
        kept = self.optimizer.state[p]
        return {s.name: kept[s.key] for s in self.subject.rule.states if s.key in kept}

    def tensors(self) -> Iterator[torch.Tensor]:
        """Every parameter, and every state of it."""
        for p in self.params:
            yield p.detach().as_subclass(torch.Tensor)
            for value in self.state(p).values():
                yield torch.as_tensor(value).detach().as_subclass(torch.Tensor)

    def same_bits(self, other: Run) -> bool:
        """Whether all parameters and states are those of another run, NaN and all."""
        mine, theirs = list(self.tensors()), list(other.tensors())
        return len(mine) == len(theirs) and all(_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    def finite(self) -> bool:
        """Whether all parameters and states are finite."""
        return all(bool(torch.isfinite(x).all()) for x in self.tensors())

    def snapshot(self) -> States:
        """Each parameter and its states as float64 arrays, for the reference."""
        rule, group = self.subject.rule, self.optimizer.param_groups[0]
        hypers = {h.name: float(group[h.name]) for h in rule.hypers}
        found = []
        for place, p in enumerate(self.params):
            value = wide(p)
            first = reference.initial_states(rule, value, hypers, place)
            now = self.state(p) if self.steps else {}
            found.append(
                (value, {w: wide(now[w]).reshape(np.shape(x)) if w in now else x for w, x in first.items()})
            )
        return found

    def expected(self, before: States, gradients: Sequence[Any] | None = None) -> States:
        """What the reference makes of these parameters and states, with the gradients that are there now."""
        group = self.optimizer.param_groups[0]
        hypers = {h.name: float(group[h.name]) for h in self.subject.rule.hypers}
        t, rule = self.steps + 1, self.subject.rule
        gradients = [wide(p.grad) for p in self.params] if gradients is None else gradients
        if self.subject.is_global and len(self.params) > 1:
            ps, states = [p for p, _ in before], [s for _, s in before]
            return reference.step_together(rule, ps, gradients, t, states, hypers)
        return [reference.step(rule, p, g, t, s, hypers) for (p, s), g in zip(before, gradients, strict=True)]


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def wide(x: Any) -> Any:
    """A tensor or number as a float64 array; complex numbers as pairs."""
    if not isinstance(x, torch.Tensor):
        return np.asarray(x, np.float64)
    plain = x.detach().as_subclass(torch.Tensor).resolve_conj()
    return np.array((torch.view_as_real(plain) if plain.is_complex() else plain).double().numpy())


def ends(hyper: Hyper) -> list[float]:
    """Values at, or just inside, the ends of the range of a hyper-parameter; 1000 where there is no end."""
    written = hyper.allowed
    size = max(1.0, abs(hyper.default))
    low = -1e3 * size if math.isinf(hyper.low) else hyper.low
    high = 1e3 * size if math.isinf(hyper.high) else hyper.high
    span = high - low
    low = low if written[0] == "[" or math.isinf(hyper.low) else low + 1e-6 * min(span, size)
    high = high if written[-1] == "]" or math.isinf(hyper.high) else high - 1e-6 * min(span, size)
    return [low, high]


def another(hyper: Hyper, gently: bool = False) -> float:
    """A value of a hyper-parameter that is not its default, well inside its range; near it where asked."""
    value = hyper.default
    tried: tuple[float, ...] = (0.98 * value, 1.02 * value) if gently else ()
    tried += (
        0.5 * value,
        2 * value,
        0.5 * (value + hyper.high),
        0.5 * (value + hyper.low),
        0.1,
        -0.1,
        1.0,
        2.0,
    )
    for new in tried:
        if new != value and math.isfinite(new) and _allowed(hyper, new):
            return float(new)
    return value


def _allowed(hyper: Hyper, value: float) -> bool:
    try:
        return hyper.check(value) is None
    except ValueError:
        return False
