"""A plan: some parameters of an optimizer that take their step in one launch.

Each plan works in two halves, `prepare` (look, change nothing) and `launch` (change), so that an optimizer
with several plans either takes a whole step or none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..formula import Program, State
from . import cpu, torch_ops
from .cpu.gather import FINE, OTHER_GRADIENT, Gatherer

Values = Callable[[dict[str, Any]], tuple[Any, ...]]
"""Reads the hyper-parameters of a rule, in its order, out of a parameter group."""


@dataclass
class Member:
    """One parameter with its group, its state dict, and whether its step count stands in that dict."""

    param: torch.Tensor
    group: dict[str, Any]
    state: dict[str, Any]
    count: float


class Counters:
    """Step counts and scalar states of a plan's parameters, each in one array.

    The numbers that a person finds in `opt.state[p]` are views of these arrays, so both are always the
    same. `cohorts` sorts the parameters by (group, count, scalar states): one row of scalars each.
    """

    def __init__(
        self,
        members: Sequence[Member],
        scalars: Sequence[State],
        values: Values,
        program: Program,
        step_key: str | None,
    ) -> None:
        self.members = members
        self.program = program
        self.values = values
        self._groups = {id(m.group): m.group for m in members}
        self._group_of = np.array([id(m.group) for m in members], np.int64)
        steps = torch.tensor([float(m.count) for m in members], dtype=torch.float32)
        kept = torch.tensor(
            [[float(m.state[s.key]) for m in members] for s in scalars], dtype=torch.float64
        ).reshape(len(scalars), len(members))
        for i, m in enumerate(members):
            if step_key is not None:
                dict.__setitem__(m.state, step_key, steps[i])
            for k, s in enumerate(scalars):
                dict.__setitem__(m.state, s.key, kept[k, i])
        self.counts = steps.numpy()
        self.kept = kept.numpy()
        self._seen = b""
        self.cohorts: list[tuple[dict[str, Any], Any, int]] = []
        self.row_of = np.zeros(len(members), np.int64)

    def sort(self, active: Any = None) -> bool:
        """Bring `cohorts` up to date; whether they were sorted anew. `active` leaves parameters out."""
        seen = self.counts.tobytes() + self.kept.tobytes()
        if active is None and seen == self._seen:
            return False
        keys: dict[tuple[Any, ...], list[int]] = {}
        for i in range(len(self.members)) if active is None else np.flatnonzero(active):
            key = (self._group_of[i], self.counts[i], *self.kept[:, i])
            keys.setdefault(key, []).append(int(i))
        self.cohorts = []
        for row, (key, places) in enumerate(keys.items()):
            index = slice(None) if len(places) == len(self.members) else np.array(places)
            self.row_of[index] = row
            self.cohorts.append((self._groups[int(key[0])], index, places[0]))
        return True

    def advance(self, active: Any = None) -> list[tuple[Any, ...]]:
        """Count the step and compute every cohort's row, in float64."""
        rows = []
        for group, index, first in self.cohorts:
            t = float(self.counts[first]) + 1
            row, states = self.program.scalars(t, *self.values(group), *self.kept[:, first].tolist())
            rows.append(row)
            if states:
                self.kept[:, index] = np.reshape(states, (-1, 1))
        if active is None:
            self.counts += 1
            self._seen = self.counts.tobytes() + self.kept.tobytes()
        else:
            self.counts[active] += 1
            self._seen = b""
        return rows


class CpuPlan:
    """Parameters of one program and one set of dtypes, stepped by one launch of the CPU kernel."""

    backend = cpu.NAME

    def __init__(
        self, program: Program, members: Sequence[Member], values: Values, step_key: str | None
    ) -> None:
        rule = program.rule
        self.params = [m.param for m in members]
        element = [s for s in rule.states if not s.scalar]
        columns = [[m.state[s.key] for m in members] for s in element]
        gradients = [p.grad for p in self.params]
        first = members[0]
        operands = [
            first.param,
            first.param if first.param.grad is None else first.param.grad,
            *(c[0] for c in columns),
        ]
        self.kernel = cpu.kernel(program, tuple(cpu.storage_name(x.dtype) for x in operands))
        pairs = [2 if p.is_complex() else 1 for p in self.params]
        self.table = cpu.Table(self.kernel, [p.numel() * k for p, k in zip(self.params, pairs, strict=True)])
        self.gatherer = Gatherer(self.params, gradients, columns)
        self.counters = Counters(members, [s for s in rule.states if s.scalar], values, program, step_key)
        self.width = len(program.scalars.row)
        self._written = [*self.params, *(s for column in columns for s in column)]
        self._k = 1 + len(columns)
        self._rows = self.kernel.rows(1)
        self._bound = False

    def prepare(self) -> bool:
        """Read all addresses; False when something changed that needs a new plan."""
        answer = self.gatherer.read()
        if answer == OTHER_GRADIENT:
            answer = self.gatherer.read_slowly()
        return answer == FINE

    def launch(self) -> None:
        """Take the step."""
        missing = self.gatherer.missing
        if missing == len(self.params):
            return
        active = None if missing == 0 else self.gatherer.addresses[:, 1] != 0
        if active is not None:  # an empty tensor has no address but takes part
            active |= np.array([p.numel() == 0 and p.grad is not None for p in self.params])
        sorted_anew = self.counters.sort(active)
        rows = self.counters.advance(active)
        if sorted_anew or not self._bound:
            self._rows = self.kernel.rows(len(rows))
            self.table.bind(self.gatherer.addresses, self._rows, self.counters.row_of)
            self._bound = True
        if len(rows) == 1:
            self._rows[0 : self.width] = rows[0]
        else:
            self._rows[0 : self.width * len(rows)] = [x for row in rows for x in row]
        if active is None:
            self.table.launch()
            torch.autograd.graph.increment_version(self._written)
        else:
            self.table.launch_some(active)
            n = len(self.params)
            torch.autograd.graph.increment_version(
                [self._written[j * n + int(i)] for j in range(self._k) for i in np.flatnonzero(active)]
            )


class TorchPlan:
    """Parameters stepped one by one with torch operations: any device, layout or subclass."""

    backend = torch_ops.NAME

    def __init__(
        self, program: Program, members: Sequence[Member], values: Values, step_key: str | None
    ) -> None:
        self.program = program
        self.members = members
        self.counters = Counters(
            members, [s for s in program.rule.states if s.scalar], values, program, step_key
        )
        self.params = [m.param for m in members]

    def prepare(self) -> bool:
        """Nothing can have moved that torch does not look after itself."""
        return all(
            m.state[s.key].shape == m.param.shape
            for m in self.members
            for s in self.program.rule.states
            if not s.scalar
        )

    def launch(self) -> None:
        """Take the step."""
        active = np.array([p.grad is not None for p in self.params])
        if not active.any():
            return
        self.counters.sort(active)
        rows = self.counters.advance(active)
        differentiable = bool(self.members[0].group.get("differentiable"))
        with torch.set_grad_enabled(differentiable):
            for i in np.flatnonzero(active):
                self._one(self.members[int(i)], rows[self.counters.row_of[i]], differentiable)

    def _one(self, member: Member, row: tuple[Any, ...], differentiable: bool) -> None:
        p, g = member.param, member.param.grad
        assert g is not None
        keys = {s.name: s.key for s in self.program.rule.states if not s.scalar}
        operands = {"p": p, "g": g, **{name: member.state[key] for name, key in keys.items()}}
        if p.is_complex():
            operands = {word: torch.view_as_real(x.resolve_conj()) for word, x in operands.items()}
        if g.layout == torch.sparse_coo:
            sparse_step(self.program, row, operands)
            return
        new = torch_ops.step(self.program, row, operands)
        for word, value in new.items():
            value = torch.view_as_complex(value) if p.is_complex() else value
            if word == "p":
                p.copy_(value)
            elif differentiable:
                dict.__setitem__(member.state, keys[word], value)
            else:
                member.state[keys[word]].copy_(value)


def sparse_step(program: Program, row: tuple[Any, ...], operands: dict[str, torch.Tensor]) -> None:
    """Step only the entries that a sparse gradient holds; the others and their states stay as they are."""
    g = operands["g"].coalesce()
    index = tuple(g.indices())
    touched = {word: g.values() if word == "g" else x[index] for word, x in operands.items()}
    for word, value in torch_ops.step(program, row, touched).items():
        operands[word].index_put_(index, value)


assert ctypes.sizeof(ctypes.c_void_p) == 8, "descend needs a 64-bit Python"
