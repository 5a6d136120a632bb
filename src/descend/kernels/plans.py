"""A plan: some parameters of an optimizer that take their step in one launch.

Each plan works in two halves, `prepare` (look, change nothing) and `launch` (change), so that an optimizer
with several plans either takes a whole step or none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ..formula import Program, ScalarProgram, State, chance
from ..formula.vocabulary import WORDS
from . import cpu, torch_ops
from .cpu import counting
from .cpu.gather import FINE, OTHER_GRADIENT, Gatherer

Values = Callable[[dict[str, Any]], tuple[Any, ...]]
"""Reads the hyper-parameters of a rule, in its order, out of a parameter group."""


@dataclass
class Member:
    """One parameter with its group, its state dict, and how many steps it has taken."""

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
        steps = torch.tensor([float(m.count) for m in members], dtype=torch.float32, device="cpu")
        kept = torch.tensor(
            [[float(m.state[s.key]) for m in members] for s in scalars], dtype=torch.float64, device="cpu"
        ).reshape(len(scalars), len(members))
        for i, m in enumerate(members):
            if step_key is not None:
                dict.__setitem__(m.state, step_key, steps[i])
            for k, s in enumerate(scalars):
                dict.__setitem__(m.state, s.key, kept[k, i])
        self.counts = steps.numpy()
        self.kept = kept.numpy()
        self._seen_counts = np.full_like(self.counts, np.nan)
        self._seen_kept = np.full_like(self.kept, np.nan)
        n = len(members)
        self._same, self._count = counting.same(), counting.count()
        self._counts_at = (self.counts.ctypes.data, self._seen_counts.ctypes.data, n)
        self._kept_at = (self.kept.ctypes.data, self._seen_kept.ctypes.data, 2 * self.kept.size)
        self._scalars = program.scalars
        self._names = [s.name for s in scalars]
        self._early = [k for k, s in enumerate(scalars) if s.name in program.scalars.states]
        self._steps: list[float] = []
        self.cohorts: list[tuple[dict[str, Any], Any, int]] = []
        self._several: list[tuple[Any, int]] = []
        self.row_of = np.zeros(len(members), np.int64)

    def sort(self, active: Any = None) -> bool:
        """Bring `cohorts` up to date; whether they were sorted anew. `active` leaves parameters out."""
        if active is None and self._unchanged():
            return False
        keys: dict[tuple[Any, ...], list[int]] = {}
        for i in range(len(self.members)) if active is None else np.flatnonzero(active):
            key = (self._group_of[i], self.counts[i], *self.kept[:, i])
            keys.setdefault(key, []).append(int(i))
        self.cohorts = []
        self.row_of.fill(0)  # of those that take no part, too, a row that there is
        for row, (key, places) in enumerate(keys.items()):
            index = slice(None) if len(places) == len(self.members) else np.array(places)
            self.row_of[index] = row
            self.cohorts.append((self._groups[int(key[0])], index, places[0]))
        self._steps = [float(self.counts[first]) for _, _, first in self.cohorts]
        self._several = [(self.cohorts[row][1], p[0]) for row, p in enumerate(keys.values()) if len(p) > 1]
        return True

    def _unchanged(self) -> bool:
        """Whether all numbers are as the last step left them: someone may have edited them."""
        return bool(self._same(*self._counts_at)) and (not len(self.kept) or bool(self._same(*self._kept_at)))

    def advance(self, active: Any = None) -> list[tuple[Any, ...]]:
        """Count the step and compute every cohort's row, in float64."""
        rows = []
        kept = self.kept.T.tolist() if len(self.kept) else None
        of, hypers = None, tuple[Any, ...]()
        for k, (group, index, first) in enumerate(self.cohorts):
            if group is not of:
                of, hypers = group, self.values(group)
            t = self._steps[k] = self._steps[k] + 1
            row, states = self._scalars(t, *hypers, *(kept[first] if kept else ()))
            rows.append(row)
            for place, value in zip(self._early, states, strict=True):
                self.kept[place, index] = value
        if active is None:
            self._count(*self._counts_at)
            if len(self.kept):
                self._seen_kept[:] = self.kept
        else:
            self.counts[active] += 1
            self._seen_counts.fill(np.nan)
        return rows

    def settle(self, states: Sequence[str], values: Any, active: Any) -> None:
        """Set scalar states that depend on a sum to `values` [n, states]; cohorts that stay alike stay."""
        same = active is None
        for k, name in enumerate(states):
            kept = self.kept[self._names.index(name)]
            np.copyto(kept, values[:, k], where=True if active is None else active)
            same = same and all((kept[index] == kept[first]).all() for index, first in self._several)
        if same:
            self._seen_kept[:] = self.kept


class CpuPlan:
    """Parameters of one program and one set of dtypes, stepped by one launch of the CPU kernel.

    `private`: nobody but the optimizer holds the states. `temporaries` are the program's, one tensor a
    parameter; `squares` says how many numbers the square matrices of every parameter hold.
    """

    backend = cpu.NAME

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        values: Values,
        step_key: str | None,
        private: bool = False,
        temporaries: Sequence[list[torch.Tensor]] = (),
        squares: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        rule = program.rule
        self.params = [m.param for m in members]
        element = [s for s in rule.states if not s.scalar]
        states = [[m.state[s.key] for m in members] for s in element]
        columns = [*states, *temporaries]
        gradients = [p.grad for p in self.params]
        first = members[0]
        operands = [
            first.param,
            first.param if first.param.grad is None else first.param.grad,
            *(c[0] for c in columns),
        ]
        self.kernel = cpu.kernel(program, tuple(cpu.storage_name(x.dtype) for x in operands))
        pairs = [2 if p.is_complex() else 1 for p in self.params]
        self.program = program
        sizes = [p.numel() * k for p, k in zip(self.params, pairs, strict=True)]
        self.table = cpu.Table(self.kernel, sizes, cpu.matrices(program, self.params), squares)
        self.gatherer = Gatherer(self.params, gradients, columns, private)
        self.counters = Counters(members, [s for s in rule.states if s.scalar], values, program, step_key)
        self.width = len(program.scalars.row)
        shown = [] if private else states  # of what nobody has seen, nobody asks for the version
        self._written = [*self.params, *(s for column in shown for s in column)]
        self._k = 1 + len(shown)
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
        active = self.active()
        if active is None or active.any():
            self.fill_rows(active)
            self.table.launch(active)
        self.touched(active)

    def active(self) -> Any:
        """Which parameters have a gradient in this step [n]; None for all."""
        if self.gatherer.missing == 0:
            return None
        # an empty tensor has no address but takes part
        empty = np.array([p.numel() == 0 and p.grad is not None for p in self.params])
        return (self.gatherer.addresses[:, 1] != 0) | empty

    def fill_rows(self, active: Any) -> None:
        """Count the step and write the first pass's scalars where the kernel reads them."""
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

    def touched(self, active: Any) -> None:
        """Tell autograd what was written."""
        self.gatherer.write_back()
        if active is None:
            torch._C._increment_version(self._written)
            return
        n = len(self.params)
        places = np.flatnonzero(active).tolist()
        torch._C._increment_version([self._written[j * n + i] for j in range(self._k) for i in places])


class TorchPlan:
    """Parameters stepped one by one with torch operations: any device, layout or subclass.

    With `traced` autograd records the step, and hyper-parameters that are tensors stay tensors. `sparse` says
    how to take a sparse gradient: "touched" steps the entries that it holds and leaves the others and their
    states alone, "dense" fills it up with zeros.
    """

    backend = torch_ops.NAME

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        values: Values,
        step_key: str | None,
        traced: bool = False,
        sparse: str = "",
    ) -> None:
        self.program = program
        self.members = members
        self.values = values
        self.step_key = step_key
        self.traced = traced
        self.sparse = sparse
        self.scalar_keys = [s.key for s in program.rule.states if s.scalar]
        self.element_keys = {s.name: s.key for s in program.rule.states if not s.scalar}
        for m in members:
            if step_key is not None:
                dict.__setitem__(m.state, step_key, _number(m.state.get(step_key, 0.0), torch.float32))
            for key in self.scalar_keys:
                if not traced:
                    dict.__setitem__(m.state, key, _number(m.state[key], torch.float64))
        self._looks = [_look(m.param) for m in members]

    def prepare(self) -> bool:
        """Whether the parameters are of the kind that they were; torch looks after addresses itself."""
        return all(_look(m.param) == look for m, look in zip(self.members, self._looks, strict=True))

    def launch(self) -> None:
        """Take the step."""
        with torch.set_grad_enabled(self.traced):
            for m in self.members:
                if m.param.grad is not None:
                    self._one(m, m.param.grad)

    def count(self, m: Member) -> float:
        """How many steps a parameter has taken."""
        return float(m.state[self.step_key]) if self.step_key is not None else m.count

    def counted(self, m: Member) -> None:
        """One more."""
        m.count += 1
        if self.step_key is not None:
            m.state[self.step_key] += 1

    def _one(self, m: Member, g: torch.Tensor) -> None:
        p = m.param
        t = self.count(m)
        scalars = self.program.scalars
        values = (*self.values(m.group), *(m.state[key] for key in self.scalar_keys))
        if self.traced:
            row, states = _traced_scalars(scalars)(t + 1, *map(_exact, values))
            row = tuple(bool(x) if _is_condition(x) else x for x in row)
        else:
            row, states = scalars(t + 1, *map(float, values))
        operands = {"p": p, "g": g, **{name: m.state[key] for name, key in self.element_keys.items()}}
        if g.layout != torch.strided and self.sparse == "touched":
            new = {}
            touched_step(self.program, row, operands)
        else:
            operands["g"] = g if g.layout == torch.strided else g.to_dense()
            if self.traced:  # what autograd keeps of p must not be overwritten
                operands["p"] = p.clone()
            new = _step(self.program, row, operands)
            p.copy_(new.pop("p"))
        for name, value in new.items():
            if self.traced:
                dict.__setitem__(m.state, self.element_keys[name], value)
            else:
                m.state[self.element_keys[name]].copy_(value)
        for key, number in zip(self.scalar_keys, states, strict=True):
            if self.traced:
                dict.__setitem__(m.state, key, number)
            else:
                m.state[key].fill_(number)
        self.counted(m)


@cache
def _traced_scalars(scalars: ScalarProgram) -> Callable[..., Any]:
    """The host's part of a step over tensors, so that gradients of hyper-parameters pass through it."""
    space: dict[str, Any] = {word: _word(word) for word in WORDS if hasattr(torch, word)}
    space["key"] = lambda *given: chance.key(*map(float, given))
    exec(compile(scalars.source, "<scalars in torch>", "exec"), space)
    made: Callable[..., Any] = space["scalars"]
    return made


def _word(word: str) -> Callable[..., Any]:
    function = getattr(torch, word)
    return lambda *given: function(*(torch.as_tensor(x, dtype=torch.float64) for x in given))


def _exact(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) else float(value)


def _is_condition(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bool


def _number(value: Any, dtype: torch.dtype) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.tensor(float(value), dtype=dtype, device="cpu")


def _look(p: torch.Tensor) -> tuple[Any, ...]:
    """What of a parameter and its gradient decides how it is stepped."""
    g = p.grad
    return (
        p.dtype,
        p.device,
        p.shape,
        p.stride() if p.layout == torch.strided else p.layout,
        g is None or g.layout,
    )


def _step(
    program: Program, row: tuple[Any, ...], operands: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """New p and states; complex numbers are pairs of reals."""
    if not operands["p"].is_complex():
        return torch_ops.step(program, row, operands)
    pairs = {word: torch.view_as_real(x.resolve_conj()) for word, x in operands.items()}
    new = torch_ops.step(program, row, pairs)
    return {word: torch.view_as_complex(value.contiguous()) for word, value in new.items()}


def touched_step(program: Program, row: tuple[Any, ...], operands: dict[str, torch.Tensor]) -> None:
    """Step only the entries that a sparse gradient holds; the others and their states stay as they are."""
    g = operands["g"].coalesce()
    index = tuple(g.indices())
    touched = {word: g.values() if word == "g" else x[index] for word, x in operands.items()}
    for word, value in _step(program, row, touched).items():
        operands[word].index_put_(index, value)


assert ctypes.sizeof(ctypes.c_void_p) == 8, "descend needs a 64-bit Python"
