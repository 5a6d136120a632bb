"""A plan: some parameters of an optimizer that take their step in one launch.

Each plan works in two halves, `prepare` (look, change nothing) and `launch` (change), so that an optimizer
with several plans either takes a whole step or none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from ..formula import Program, ScalarProgram, chance
from ..formula.vocabulary import WORDS
from . import cpu, torch_ops
from .counters import Counters, Member, Values
from .cpu.gather import FINE, OTHER_GRADIENT, Gatherer, native
from .cpu.replay import Notes


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

    def notes(self, keys: Mapping[str, Any]) -> Notes | None:
        """What a replay of the last step needs, or None where it cannot be one.

        `keys` says where a group keeps hyper-parameters under another name than their own.
        """
        launched = self.table.words()
        if not launched or not self.gatherer.is_quick or self.gatherer.missing:
            return None
        counted, arguments, alive = self.counters.notes([*self.program.final.states])
        found = native()
        assert found is not None
        written = [id(x) + found.cell for x in self._written if not x.is_inference()]  # those have no version
        cells = (ctypes.c_int64 * len(written))(*written)
        own = {
            "rows": ctypes.addressof(self._rows),
            "row_width": self.width,
            "written": ctypes.addressof(cells),
            "written_count": len(written),
        }
        return Notes(
            {**launched, **self.gatherer.words(), **counted, **own},
            self.program.scalars,
            arguments,
            [group for group, _, _ in self.counters.cohorts],
            [keys.get(h.name, h.name) for h in self.program.rule.hypers],
            (self, alive, cells, self._rows),
        )

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

    def notes(self, keys: Mapping[str, Any]) -> None:
        """No replay: torch takes this step."""

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
