"""Plans of rules that work on whole matrices: torch's routines between the passes, one plan a shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..formula import Program, Rule
from ..formula.matrices import Routine
from . import matrix, steady
from .counters import Member, Values
from .cpu.products import Piece
from .matrix import Shape
from .staged import StagedCpuPlan, StagedTorchPlan


def shape_of(rule: Rule, p: torch.Tensor, hypers: Mapping[str, Any]) -> Shape:
    """A parameter as the matrix that a rule sees, with the bounds that its hyper-parameters set."""
    bounds = {
        kind: next((float(hypers[getattr(s, kind)]) for s in rule.states if getattr(s, kind)), None)
        for kind in ("block", "limit")
    }
    return Shape.of(p, **bounds)


class Arena:
    """Memory for the temporaries of plans that take their steps one after the other."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def take(self, sizes: Sequence[torch.Size], like: torch.Tensor) -> list[torch.Tensor]:
        """Tensors of these sizes, all of which start where a cache line does; `like` says type and device."""
        rooms = [-(-size.numel() // _LINE) * _LINE for size in sizes]
        fits = (self._memory.dtype, self._memory.device) == (like.dtype, like.device)
        if not fits or self._memory.numel() < sum(rooms):
            self._memory = like.new_empty(sum(rooms))
        parts = torch.split(self._memory[: sum(rooms)], rooms)
        return [part[: size.numel()].view(size) for part, size in zip(parts, sizes, strict=True)]


_LINE = 16
"""Elements between two places where a temporary may start."""


@dataclass(frozen=True)
class _Due:
    """A word to be done now, with its numbers, for some parameters."""

    routine: Routine
    numbers: tuple[float, ...]
    places: list[int]

    @property
    def squares(self) -> bool:
        """Whether it multiplies a matrix by its own transpose."""
        (x, turned), *others = self.routine.arguments
        return others == [(x, not turned)]


def _groups(due: Sequence[_Due]) -> Iterator[list[_Due]]:
    """Words of one kind that can be done together: products in any order, others where none needs another."""
    group: list[_Due] = []
    for one in due:
        op = one.routine.op
        waits = {word for word, _ in one.routine.arguments} & {other.routine.out for other in group}
        if group and (op != group[0].routine.op or (waits and op != "matmul")):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _product(x: torch.Tensor | None, y: torch.Tensor | None, symmetric: bool) -> torch.Tensor | None:
    """x @ y; None stands for identities."""
    return y if x is None else x if y is None else steady.matmul(x, y, symmetric)


class Workshop:
    """The temporaries of some parameters of one shape, and the routines that run on all of them at once.

    A temporary is one tensor for all parameters, so a routine takes and leaves it without a copy.
    """

    def __init__(self, program: Program, members: Sequence[Member], values: Values, arena: Arena) -> None:
        rule, first = program.rule, members[0]
        hypers = dict(zip((h.name for h in rule.hypers), values(first.group), strict=False))
        self.program, self.members, self.values = program, members, values
        self.shape = shape_of(rule, first.param, hypers)
        self.device = first.param.device
        self.dtype = torch.float64 if first.param.dtype == torch.float64 else torch.float32
        each = [self.shape.size(program.domains[word]) for word in program.temporaries]
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        taken = arena.take([torch.Size([len(members), *size]) for size in each], like)
        self.stacks = dict(zip(program.temporaries, taken, strict=True))
        self.keys = {s.name: s.key for s in rule.states if not s.scalar}

    def temporary(self, word: str, i: int) -> torch.Tensor:
        """A parameter's part of a temporary, shaped like the parameter where it is one number an element."""
        part = self.stacks[word][i]
        return part.view(self.members[i].param.shape) if self.program.domains[word] == "element" else part

    @property
    def squares(self) -> dict[str, list[int]]:
        """How many numbers the square matrices of every parameter hold."""
        return {d: [self.shape.size(d).numel()] * len(self.members) for d in ("left", "right")}

    @torch.no_grad()
    def run(
        self, number: int, active: Sequence[int], counts: Sequence[float], kept: Sequence[Sequence[float]]
    ) -> None:
        """Everything that stands before a pass, or after the last one.

        `counts` are the steps, from 1, and `kept` the scalar states before this step, of each in `active`.
        """
        due = [due for r in self.program.routines[number] for due in self._due(r, active, counts, kept)]
        for group in _groups(due):
            if group[0].routine.op == "matmul":
                self._multiply(group)
            else:
                self._make(group)

    def _due(
        self,
        routine: Routine,
        active: Sequence[int],
        counts: Sequence[float],
        kept: Sequence[Sequence[float]],
    ) -> list[_Due]:
        """A word for the parameters whose turn it is, those with equal numbers together."""
        if not (active and self.shape.has(self.program.domains[routine.out])):
            return []
        if not routine.numbers.row:
            return [_Due(routine, (), list(active))]
        together: dict[tuple[float, ...], list[int]] = {}
        for i, t, scalars in zip(active, counts, kept, strict=True):
            numbers, _ = routine.numbers(t, *map(float, self.values(self.members[i].group)), *scalars)
            if not routine.repeats or (t - 1) % numbers[-1] == 0:
                together.setdefault(numbers[:-1] if routine.repeats else numbers, []).append(i)
        return [_Due(routine, numbers, places) for numbers, places in together.items()]

    def _multiply(self, group: Sequence[_Due]) -> None:
        """Products, in one launch where they take and leave whole temporaries."""
        given = [word for one in group for word, _ in one.routine.arguments]
        whole = all(self._together(one.routine.out, one.places) for one in group)
        if self.device.type != "cpu" or not whole or not all(map(self._has, given)):
            for one in group:
                for kind in self.shape.kinds:
                    x, y = self._given(one, kind)
                    made = _product(x, y, one.squares)
                    if made is not None:
                        self._leave(one.routine.out, made, one.places, kind)
            return
        stages: list[list[Piece]] = [[] for _ in group]
        made_in: dict[str, int] = {}
        (kind,) = self.shape.kinds
        for one in group:
            out = one.routine.out
            made_in[out] = max(made_in.get(word, -1) for word, _ in one.routine.arguments) + 1
            x, y = self._given(one, kind)
            stages[made_in[out]] += steady.pieces(self.stacks[out], x, y, symmetric=one.squares)
        steady.run(stages)

    def _make(self, group: Sequence[_Due]) -> None:
        """What words make that are no products, all at once."""
        cases = [(one, kind, self._given(one, kind)) for one in group for kind in self.shape.kinds]
        cases = [case for case in cases if all(x is not None for x in case[2])]
        made = matrix.made([(one.routine.op, given, one.numbers) for one, _, given in cases])
        for (one, kind, _), result in zip(cases, made, strict=True):
            self._leave(one.routine.out, result, one.places, kind)

    def _has(self, word: str) -> bool:
        return self.shape.has(self.program.domains[word])

    def _together(self, word: str, places: list[int]) -> bool:
        """Whether an operand of these parameters lies in one tensor, as it is."""
        return word in self.stacks and self.shape.is_whole and len(places) == len(self.members)

    def _given(self, one: _Due, kind: list[int]) -> list[Any]:
        """The arguments of a word [parameters x blocks, height, width]; None where they are left out."""
        return [self._gathered(word, turned, one.places, kind) for word, turned in one.routine.arguments]

    def _gathered(self, word: str, turned: bool, places: list[int], kind: list[int]) -> torch.Tensor | None:
        if not self._has(word):
            return None
        domain = self.program.domains[word]
        if self._together(word, places):
            x = self.stacks[word]
        else:
            blocks = [self.shape.blocks(self._operand(word, i), domain)[k] for i in places for k in kind]
            x = torch.stack(blocks) if len(blocks) > 1 else blocks[0][None]
        x = x.to(self.dtype)
        return x.mT if turned else x

    def _leave(self, word: str, made: torch.Tensor, places: list[int], kind: list[int]) -> None:
        if self._together(word, places):
            self.stacks[word].copy_(made)
            return
        domain, found = self.program.domains[word], iter(made)
        for i in places:
            operand = self._operand(word, i)
            whole = operand.contiguous()  # of another order in memory, a block is no view
            blocks = self.shape.blocks(whole, domain)
            for k in kind:
                blocks[k].copy_(next(found))
            if whole is not operand:
                operand.copy_(whole)

    def _operand(self, word: str, i: int) -> torch.Tensor:
        if word in self.stacks:
            return self.stacks[word][i]
        p, g = self.members[i].param, self.members[i].param.grad
        if word == "p":
            return p.detach()
        if word == "g":
            assert g is not None
            return g if g.layout == torch.strided else g.to_dense()
        kept: torch.Tensor = self.members[i].state[self.keys[word]]
        return kept


class MatrixCpuPlan(StagedCpuPlan):
    """Parameters of one shape: the CPU kernel for the passes, torch's routines between them."""

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        values: Values,
        step_key: str | None,
        private: bool,
        arena: Arena,
    ) -> None:
        self.work = Workshop(program, members, values, arena)
        held = [[self.work.temporary(w, i) for i in range(len(members))] for w in program.temporaries]
        super().__init__(program, members, values, step_key, private, held, self.work.squares)

    def begin(self) -> None:
        """Look which parameters take part, and count their step, which may change the scalar states."""
        self._kept = self.counters.kept.copy()
        super().begin()

    def _between(self, number: int) -> None:
        everyone = range(len(self.params))
        active = [*everyone] if self._active is None else self._active.nonzero()[0].tolist()
        counts, kept = self.counters.counts[active], self._kept[:, active].T
        self.work.run(number, active, counts.tolist(), kept.tolist())

    def sweep(self, number: int) -> list[Any]:
        """Run what stands before a pass, and the pass."""
        self._between(number)
        return super().sweep(number)

    def finish(self) -> None:
        """Run what follows the last pass, and write the scalar states that depend on a sum."""
        self._between(len(self.program.passes))
        super().finish()


class MatrixTorchPlan(StagedTorchPlan):
    """Parameters of one shape, on any device: torch operations and torch's routines."""

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        values: Values,
        step_key: str | None,
        traced: bool,
        sparse: str,
        arena: Arena,
    ) -> None:
        super().__init__(program, members, values, step_key, traced, sparse)
        self.work = Workshop(program, members, values, arena)

    @property
    def _own_temporaries(self) -> tuple[str, ...]:
        return ()

    def begin(self) -> None:
        """Look which parameters take part, and count their step."""
        super().begin()
        place = {id(m): i for i, m in enumerate(self.members)}
        self._places = [place[id(m)] for m in self._active]
        for i, operands in zip(self._places, self._operands, strict=True):
            operands |= {word: self.work.temporary(word, i) for word in self.program.temporaries}
        self.counts |= {
            domain: self.counts["element"] * 0 + each[0] for domain, each in self.work.squares.items()
        }

    def _between(self, number: int) -> None:
        kept = [[float(m.state[key]) for key in self.scalar_keys] for m in self._active]
        self.work.run(number, self._places, [self.count(m) + 1 for m in self._active], kept)

    def sweep(self, number: int) -> list[Any]:
        """Run what stands before a pass, and the pass."""
        self._between(number)
        return super().sweep(number)

    def finish(self) -> None:
        """Run what follows the last pass, and write the scalar states and the count."""
        self._between(len(self.program.passes))
        super().finish()
