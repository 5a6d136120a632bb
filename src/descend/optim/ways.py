"""How a parameter is stepped: what it must have in common with others to share a plan with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UsageError
from ..formula import Program, Rule, stage
from ..kernels.matrix import Shape
from ..kernels.matrix_plans import MatrixCpuPlan, MatrixTorchPlan, shape_of
from ..kernels.plans import CpuPlan, Member, TorchPlan, Values
from ..kernels.staged import StagedCpuPlan, StagedTorchPlan
from .members import cpu_takes, dtypes

Plan = CpuPlan | TorchPlan


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

    def plan(self, members: Sequence[Member], values: Values, step_key: str | None, private: bool) -> Any:
        """The plan of parameters that go this way."""
        rule = self.program.rule
        if self.shape is not None and rule.shape_words:
            values = _with(values, tuple(float(getattr(self.shape, word)) for word in rule.shape_words))
        if self.kernel is not None:
            kind = MatrixCpuPlan if rule.has_matrices else StagedCpuPlan if rule.reduces else CpuPlan
            return kind(self.program, members, values, step_key, private)
        by_torch = MatrixTorchPlan if rule.has_matrices else StagedTorchPlan if rule.reduces else TorchPlan
        return by_torch(self.program, members, values, step_key, self.traced, self.sparse)


def _with(values: Values, shape: tuple[float, ...]) -> Values:
    """The hyper-parameters of a group, then the shape of the matrices."""
    return lambda group: (*values(group), *shape)
