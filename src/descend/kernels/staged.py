"""Plans of rules that sum over tensors: several passes, with the host's float64 arithmetic between them.

A plan takes all its passes in one launch. A sum over all tensors goes over all plans of an optimizer, so
several such plans take every pass together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import UsageError
from ..formula import Pass, Program
from ..formula.nodes import Node, scope
from . import torch_ops
from .counters import Member, Values
from .cpu.replay import Notes
from .matrix import vector_shape
from .memory import empty_beside
from .plans import CpuPlan, TorchPlan


class StagedPlan(Protocol):
    """What the passes of a step ask of a plan."""

    program: Program
    counts: dict[str, Any]
    """Elements, rows and columns of every parameter that takes part [n], zero for the others."""

    def launch(self) -> None:
        """Take the step alone."""

    def begin(self) -> None:
        """Look which parameters take part, count the step, and compute the first pass's scalars."""

    def sweep(self, number: int) -> list[Any]:
        """Run a pass: an array [n] for every reduction that is one number a tensor."""

    def learn(self, values: list[Any]) -> None:
        """Take in what the passes so far have summed up."""

    def finish(self) -> None:
        """Write the scalar states that depend on a sum."""


def launch_together(plans: Sequence[StagedPlan]) -> None:
    """One step of several plans: those that sum over all tensors pass by pass, the others one by one."""
    summing = [plan for plan in plans if plan.program.meets]
    if len(summing) > 1:
        launch_by_passes(summing)
    for plan in plans:
        if len(summing) < 2 or plan not in summing:
            plan.launch()


def launch_by_passes(plans: Sequence[StagedPlan]) -> None:
    """One step of several plans, every pass of all before the next."""
    order = rounds(tuple(plan.program for plan in plans))
    for plan in plans:
        plan.begin()
    for together in order:
        sums = [plans[i].sweep(number) for i, number in together]
        counts = [plans[i].counts for i, _ in together]
        joined = join([plans[i].program.passes[number] for i, number in together], sums, counts)
        for (i, _), values in zip(together, joined, strict=True):
            plans[i].learn(values)
    for plan in plans:
        plan.finish()


@cache
def rounds(programs: tuple[Program, ...]) -> list[list[tuple[int, int]]]:
    """The passes of several programs in order, as (program, pass): those that run side by side.

    A part that some parameters leave out may put the sum over all tensors into another pass; the programs
    wait there for each other.
    Raises UsageError where programs sum over all tensors in different ways.
    """
    meets = [program.meets for program in programs]
    if len({len(places) for places in meets if places}) > 1:
        raise UsageError(
            "parameters whose rules sum over all tensors in different passes cannot share an optimizer"
        )
    order: list[list[tuple[int, int]]] = []
    at = [0] * len(programs)
    while any(k < len(program.passes) for k, program in zip(at, programs, strict=True)):
        free = [i for i, k in enumerate(at) if k < len(programs[i].passes) and k not in meets[i]]
        going = free or [i for i, k in enumerate(at) if k in meets[i]]
        order.append([(i, at[i]) for i in going])
        for i in going:
            at[i] += 1
    return order


def join(
    passes: Sequence[Pass], sums: Sequence[list[Any]], counts: Sequence[dict[str, Any]]
) -> list[list[Any]]:
    """What the next passes may use: sums over all tensors joined over all plans, in the order of the tensors.

    `sums` holds, for every plan, an array [n] for each reduction that is one number a tensor.
    Raises UsageError where plans sum over all tensors in different ways.
    """
    own = [[n for n in one.reductions if scope(n) in ("tensor", "global")] for one in passes]
    shared = [[k for k, n in enumerate(nodes) if scope(n) == "global"] for nodes in own]
    asking = [places for places in shared if places]
    if any(len(places) != len(asking[0]) for places in asking):
        raise UsageError(
            "parameter groups whose rules sum over all tensors differently cannot share an optimizer"
        )
    found = [list(values) for values in sums]
    with np.errstate(all="ignore"):
        taking = [i for i, places in enumerate(shared) if places]
        for k in range(len(asking[0]) if asking else 0):
            parts = [sums[i][shared[i][k]] for i in taking]
            first = own[taking[0]][shared[taking[0]][k]]
            if first.op.startswith("max"):
                total = np.max([part.max(initial=-np.inf) for part in parts])
            else:
                total = _added(np.array([_added(part) for part in parts]))
            if first.op.startswith("mean"):
                total = total / np.sum([counts[i][passes[i].domain].sum() for i in taking])
            for i in taking:
                found[i][shared[i][k]] = total
    return found


def _added(values: Any) -> Any:
    """The sum, from the first to the last, as the kernels add."""
    return np.add.accumulate(values)[-1] if len(values) else 0.0


class _Host:
    """The host's part of later passes: their scalars as arrays over the parameters, in float64.

    `first` are the scalars of the first pass, an array over the parameters for each.
    """

    def __init__(self, program: Program, first: Any) -> None:
        self.program = program
        self.arguments = tuple(first)
        self.known: list[Any] = []

    def rows(self, number: int, n: int) -> Any:
        """The scalars of a later pass, [n, scalars]."""
        row, _ = self.program.passes[number].scalars.vector(*self.arguments, *self.known)
        return np.stack([np.broadcast_to(x, n) for x in row], 1) if row else np.zeros((n, 0))

    def states(self, n: int) -> Any:
        """The new scalar states that depend on a sum, [states, n]."""
        _, states = self.program.final.vector(*self.arguments, *self.known)
        return np.stack([np.broadcast_to(x, n) for x in states])


def temporary(program: Program, word: str, p: torch.Tensor) -> torch.Tensor:
    """Room for an operand that lives only during a step, in the precision that a parameter is computed in."""
    dtype = torch.float32 if p.dtype in (torch.float16, torch.bfloat16) else p.dtype
    domain = program.domains[word]
    if domain == "element":
        return empty_beside(p, len(program.rule.states) + program.temporaries.index(word), dtype)
    return torch.empty(vector_shape(p, domain, program.rule.is_flat), dtype=dtype, device=p.device)


class StagedCpuPlan(CpuPlan):
    """Parameters of one program and one set of dtypes, stepped by the CPU kernel."""

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        values: Values,
        step_key: str | None,
        private: bool = False,
        temporaries: Sequence[list[torch.Tensor]] | None = None,
        squares: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        if temporaries is None:
            temporaries = [[temporary(program, w, m.param) for m in members] for w in program.temporaries]
        super().__init__(program, members, values, step_key, private, temporaries, squares)

    def notes(self, keys: Mapping[str, Any]) -> Notes | None:
        """What a replay of the last step needs; None where torch's routines stand between the passes."""
        return None if any(self.program.routines) else super().notes(keys)

    def launch(self) -> None:
        """Take the step: in one launch, but where torch's routines stand between the passes."""
        if any(self.program.routines):
            launch_by_passes([self])
            return
        active = self.active()
        if active is None or active.any():
            self.fill_rows(active)
            self.table.launch(active)
            self._settle(active)
        self.touched(active)

    def _settle(self, active: Any) -> None:
        if self.program.final.states:
            self.counters.settle([*self.program.final.states], self.table.states, active)

    def begin(self) -> None:
        """Look which parameters take part, count the step, and compute the first pass's scalars."""
        self._active = self.active()
        took = 1 if self._active is None else self._active
        self.counts = {domain: extent * took for domain, extent in self.table.extents.items()}
        self.fill_rows(self._active)

    def sweep(self, number: int) -> list[Any]:
        """Run a pass: an array [n] for every reduction that is one number a tensor."""
        self._number = number
        return self.table.launch_pass(number, self._active)

    def learn(self, values: list[Any]) -> None:
        """Take in what a pass has summed up."""
        self.table.learn(self._number, values)

    def finish(self) -> None:
        """Write the scalar states that depend on a sum."""
        self.table.finish()
        self._settle(self._active)
        self.touched(self._active)


class StagedTorchPlan(TorchPlan):
    """Parameters stepped one by one with torch operations, pass by pass."""

    @property
    def _own_temporaries(self) -> tuple[str, ...]:
        return self.program.temporaries

    def launch(self) -> None:
        """Take the step."""
        launch_by_passes([self])

    def begin(self) -> None:
        """Look which parameters take part, and count their step."""
        if self.traced:
            name = self.program.rule.name
            raise UsageError(
                f"{name} sums over tensors and has no differentiable form; leave differentiable out"
            )
        self._active = [m for m in self.members if m.param.grad is not None]
        self._operands = [self._computable(m) for m in self._active]
        for operands in self._operands:
            operands |= {w: temporary(self.program, w, operands["p"]) for w in self._own_temporaries}
        self._vectors: list[dict[Node, torch.Tensor]] = [{} for _ in self._active]
        shapes = [operands["p"].shape for operands in self._operands]
        extents = {
            "element": [s.numel() for s in shapes],
            "rows": [s[:-1].numel() for s in shapes],
            "columns": [s.numel() // max(1, s[-2:-1].numel()) for s in shapes],
        }
        if self.program.rule.is_flat:
            extents["rows"] = [s[0] if len(s) > 1 else 1 for s in shapes]
            extents["columns"] = [s.numel() // max(1, s[0] if len(s) > 1 else 1) for s in shapes]
        self.counts = {domain: np.array(found, np.float64) for domain, found in extents.items()}
        t = [self.count(m) + 1 for m in self._active]
        hypers = [tuple(map(float, self.values(m.group))) for m in self._active]
        kept = [tuple(float(m.state[key]) for key in self.scalar_keys) for m in self._active]
        scalars = self.program.scalars
        self._first = [
            scalars(*given) for given in ((a, *b, *c) for a, b, c in zip(t, hypers, kept, strict=True))
        ]
        rows = np.array([row for row, _ in self._first], np.float64)
        self._host = _Host(self.program, rows.reshape(len(rows), len(scalars.row)).T)

    def _computable(self, m: Member) -> dict[str, torch.Tensor]:
        """The operands as dense real tensors; p and the states are views of what the person holds."""
        g = m.param.grad
        assert g is not None
        operands = {"p": m.param.detach(), "g": g if g.layout == torch.strided else g.to_dense()}
        operands |= {name: m.state[key] for name, key in self.element_keys.items()}
        if m.param.is_complex():
            return {word: torch.view_as_real(x.resolve_conj()) for word, x in operands.items()}
        return operands

    @torch.no_grad()
    def sweep(self, number: int) -> list[Any]:
        """Run a pass: an array [n] for every reduction that is one number a tensor."""
        own = [n for n in self.program.passes[number].reductions if scope(n) in ("tensor", "global")]
        n = len(self._active)
        rows = self._host.rows(number, n).tolist() if number else [row for row, _ in self._first]
        sums = np.zeros((len(own), n))
        for i, operands in enumerate(self._operands):
            new, found = torch_ops.run_pass(self.program, number, tuple(rows[i]), operands, self._vectors[i])
            for word, value in new.items():
                operands[word].copy_(value)
            for k, reduction in enumerate(own):
                sums[k, i] = float(found.pop(reduction))
            self._vectors[i] |= found
        return list(sums)

    def learn(self, values: list[Any]) -> None:
        """Take in what a pass has summed up."""
        self._host.known += values

    @torch.no_grad()
    def finish(self) -> None:
        """Write the scalar states and the count."""
        names = {s.name: s.key for s in self.program.rule.states if s.scalar}
        for m, (_, states) in zip(self._active, self._first, strict=True):
            for name, value in zip(self.program.scalars.states, states, strict=True):
                m.state[names[name]].fill_(value)
        if self.program.final.states:
            for name, new in zip(
                self.program.final.states, self._host.states(len(self._active)), strict=True
            ):
                for m, value in zip(self._active, new.tolist(), strict=True):
                    m.state[names[name]].fill_(value)
        for m in self._active:
            self.counted(m)
