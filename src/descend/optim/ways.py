"""How a parameter is stepped: what it must have in common with others to share a plan with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UsageError
from ..formula import Keep, Program, Rule, stage
from ..kernels.counters import Member, Values
from ..kernels.matrix import Shape
from ..kernels.matrix_plans import Arena, MatrixCpuPlan, MatrixTorchPlan, shape_of
from ..kernels.plans import CpuPlan, TorchPlan
from ..kernels.staged import StagedCpuPlan, StagedTorchPlan
from .members import cpu_takes, dtypes
from .state import HALF

BATCH = 1 << 24
"""Elements of matrices that one plan takes together: its temporaries are several times as many."""


APART = 1 << 20
"""Bytes of all operands from which a pass more by row and by column costs less than one over all elements."""

LOW = 32
"""Rows, in the mean, below which what is kept of every column costs more than that pass."""

CACHED = 24 << 20
"""Bytes of all operands, at most, that a step is taken to find in the cache where the last one left them."""

UNCACHED = 96 << 20
"""Bytes of all operands beyond which a step finds next to none of them there."""

SPARE = 1 << 30
"""Bytes of temporaries, at most, that are spared for speed."""


@dataclass(frozen=True)
class Way:
    """The program; the types of one CPU kernel's operands, or None for torch operations, and how those go.

    `shape` is the matrix that all parameters are, for a rule that asks for it.
    """

    program: Program
    kernel: tuple[torch.dtype, ...] | None
    traced: bool
    sparse: str
    shape: Shape | None

    @property
    def weight(self) -> int:
        """How much memory a plan's temporaries take beside those of other plans."""
        return 0 if self.shape is None else self.shape.rows * self.shape.columns

    @staticmethod
    def of(member: Member, rule: Rule, hypers: Sequence[Any], sparse: str, alone: bool) -> Way:
        """How a parameter follows a rule; `alone` where no group holds it a second time.

        Raises UsageError where the rule cannot take it.
        """
        p, traced = member.param, bool(member.group.get("differentiable"))
        by_torch = traced or sparse or not alone or not cpu_takes(member, rule)
        if rule.has_matrices and (p.dim() < 2 or p.is_complex()):
            what = "complex numbers" if p.is_complex() else f"the shape {tuple(p.shape)}"
            raise UsageError(
                f"{rule.name} works on real matrices, got a parameter with {what}; leave it to another "
                "optimizer, or give the rule another one for such parameters with rule(…, otherwise=…)"
            )
        words = [h.name for h in rule.hypers]
        asked = rule.has_matrices or rule.shape_words
        shape = shape_of(rule, p, dict(zip(words, hypers, strict=True))) if asked else None
        return Way(stage(rule), None if by_torch else dtypes(member, rule), traced, sparse, shape)

    def plans(
        self, members: Sequence[Member], values: Values, step_key: str | None, private: bool, arena: Arena
    ) -> Iterator[Any]:
        """The plans of parameters that go this way: one, or several where matrices would take much memory."""
        rule = self.program.rule
        if self.shape is not None and rule.shape_words:
            values = _with(values, tuple(float(getattr(self.shape, word)) for word in rule.shape_words))
        if not rule.has_matrices:
            if self.kernel is not None:
                kind = StagedCpuPlan if rule.reduces else CpuPlan
                yield kind(self._program(members), members, values, step_key, private)
            else:
                by_torch = StagedTorchPlan if rule.reduces else TorchPlan
                yield by_torch(self.program, members, values, step_key, self.traced, self.sparse)
            return
        assert self.shape is not None
        if self.program.meets:
            arena = Arena()  # such plans take their passes side by side
        together = max(1, BATCH // max(1, self.shape.rows * self.shape.columns))
        for k in range(0, len(members), together):
            part = members[k : k + together]
            if self.kernel is not None:
                yield MatrixCpuPlan(self.program, part, values, step_key, private, arena)
            else:
                given = (self.program, part, values, step_key, self.traced, self.sparse)
                yield MatrixTorchPlan(*given, arena)

    def _program(self, members: Sequence[Member]) -> Program:
        """The program, as it is best for so much memory.

        Half precision rounds a state that is written and read again, and not a temporary.
        """
        rule = self.program.rule
        each = sum(m.param.numel() * m.param.element_size() for m in members)
        taken = each * sum(domain == "element" for domain in self.program.domains.values())
        if not rule.reduces:
            return self.program
        keep: Keep = "cached" if taken <= CACHED else "least" if taken <= UNCACHED else "past"
        low = sum(m.param.numel() // max(1, len(m.param)) for m in members if m.param.dim() > 1)
        apart = taken >= APART and LOW * low <= sum(m.param.numel() for m in members)
        found = stage(rule, keep, apart)
        if found.kept != self.program.kept:
            # in memory one more temporary is worth its while where it is written past the cache alone
            costly = found.far and (found.past != {*found.kept} or each * len(found.kept) > SPARE)
            if costly or any(dtype in HALF for dtype in self.kernel or ()):
                found = stage(rule, apart=apart)
        same = not found.past and [one.body for one in found.passes] == [
            one.body for one in self.program.passes
        ]
        return self.program if same else found


def _with(values: Values, shape: tuple[float, ...]) -> Values:
    """The hyper-parameters of a group, then the shape of the matrices."""
    return lambda group: (*values(group), *shape)
