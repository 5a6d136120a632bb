"""The work of a launch as a table of chunks, and what the passes of one step leave for each other."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...formula.nodes import Node, scope
from .driver import DOMAINS
from .glue import ALONE, FIELDS, Records
from .schedule import ORDER, Order, Schedule
from .team import SHARE, thread_number

if TYPE_CHECKING:
    from . import Kernel

_AT = {name: k for k, name in enumerate(FIELDS)}
_ARRIVED, _EPOCH, _MODE, _ORDER = _AT["arrived"], _AT["epoch"], _AT["mode"], _AT[ORDER[0]]


class Table:
    """The chunks of a set of tensors, and the buffers that a launch reads.

    `sizes` are the tensors' element counts (twice that for complex ones); `shapes` their rows and columns,
    for a program that asks for those; `squares` how many numbers the square matrices of theirs hold.
    """

    def __init__(
        self,
        kernel: Kernel,
        sizes: Sequence[int],
        shapes: Sequence[tuple[int, int]] = (),
        squares: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.kernel = kernel
        program = kernel.program
        self.extents = {"element": np.asarray(sizes, np.int64)}
        if shapes:
            self.extents |= dict(zip(("rows", "columns"), np.asarray(shapes, np.int64).T, strict=True))
        self.extents |= {domain: np.asarray(each, np.int64) for domain, each in (squares or {}).items()}
        n = len(sizes)
        self._schedule = Schedule(program, self.extents)
        self._passes = tuple(range(len(program.passes)))
        self._pointed: Order | None = None
        self._threads = 0
        self._records = Records(program)
        self._epoch = ctypes.c_int64()
        self._kept = self._buffers(n)
        self._ctx: Any = (ctypes.c_int64 * len(FIELDS))()
        self._at = ctypes.addressof(self._ctx)
        for name, buffer in self._kept.items():
            self._ctx[_AT[name]] = buffer.ctypes.data
        self._ctx[_AT["tensors"]] = n
        self._ctx[_AT["rest"]] = rest()
        self._ctx[_AT["which"]] = thread_number()
        self._taken: bytes | None = b""
        self._take(None)

    def _buffers(self, n: int) -> dict[str, Any]:
        """What the passes leave for each other."""
        program = self.kernel.program
        extents = np.stack([self.extents.get(domain, np.zeros(n, np.int64)) for domain in DOMAINS])
        self._vectors = [np.zeros(int(self.extents[scope(v)].sum())) for v in program.vectors]
        vectors = np.zeros((n, max(1, len(program.vectors))), np.int64)
        for k, v in enumerate(program.vectors):
            extent = self.extents[scope(v)]
            vectors[:, k] = self._vectors[k].ctypes.data + 8 * (np.cumsum(extent) - extent)
        # in torch's memory, where vectors of sums do not lie across two cache lines
        scratch = torch.zeros(self._schedule.scratch, dtype=torch.float64, device="cpu").numpy()
        several = len(program.passes) * (n + 1)
        return {
            "extents": extents,
            "totals": extents.sum(1),
            "sums": np.zeros(self._schedule.sums + 1),
            "vectors": vectors,
            "scratch": scratch,
            "records": np.zeros((n, self._records.width)),
            "all": np.zeros(len(self._records.sums) + 1),
            "joins": np.zeros(self._schedule.joins, np.int64),
            "left": np.zeros(several, np.int64),
            "done": np.zeros(several, np.int64),
        }

    def bind(self, addresses: Any, rows: Any, row_of: Any) -> None:
        """Set what every launch reads: addresses [n, operands], the rows, and each tensor's row [n]."""
        self._bound = (addresses, rows, row_of)
        self._ctx[_AT["addresses"]] = addresses.ctypes.data
        self._ctx[_AT["rows"]] = ctypes.addressof(rows)
        self._ctx[_AT["lines"]] = row_of.ctypes.data

    def launch(self, active: Any = None, threads: int | None = None) -> None:
        """Run all passes over all tensors, or over those that the mask `active` [n] names."""
        if active is not None or self._taken is not None:
            self._take(active)
        self._epoch.value += 1
        self._run(self._passes, self._epoch.value, threads)

    def launch_pass(self, number: int, active: Any = None, threads: int | None = None) -> list[Any]:
        """Run one pass of several; every tensor's sums [n], one array for each that is one number a tensor.

        What it needs of passes before it is in the table, but sums over all tensors, which `learn` sets.
        """
        self._take(active)
        if number:
            self.kernel.between(self._at, number)
        self._run((number,), 0, threads)
        return [self._found(n, active) for n in self._own(number)]

    def learn(self, number: int, values: Sequence[Any]) -> None:
        """Take in what a pass has summed up: the sums over all tensors are not this table's alone."""
        for n, value in zip(self._own(number), values, strict=True):
            if scope(n) == "global":
                self._kept["all"][self._records.sums[n]] = value

    def finish(self) -> None:
        """Compute the new scalar states after the last of passes that were run one by one."""
        self.kernel.between(self._at, len(self.kernel.program.passes))

    def words(self) -> dict[str, int]:
        """What a replay of the last launch needs; nothing where it was not of all tensors in one call."""
        order, team, threads = self._pointed, self.kernel.team, self._threads
        work, orders = self._orders.get(self._passes, (0, {}))
        if self._taken is not None or order is None or orders.get(threads) is not order:
            return {}
        if threads > 1 and not team.parallel:
            return {}
        late = self._records.starts[len(self._passes)]
        return {
            **dict(zip(("next", "starts", "starts_bytes"), order.anew, strict=True)),
            "table": self._at,
            "epoch": ctypes.addressof(self._epoch),
            "mode": self.kernel.mode_at,
            "run": team.address,
            "threads": threads,
            "parallel": team.parallel,
            "release": threads > 1 or work >= SHARE,
            "record_width": self._records.width,
            "late": self._kept["records"].ctypes.data + 8 * late,
        }

    @property
    def states(self) -> Any:
        """The new scalar states that depend on a sum [n, states]."""
        return self._kept["records"][:, self._records.starts[len(self.kernel.program.passes)] :]

    def _take(self, active: Any) -> None:
        """Note which tensors take part."""
        taken = None if active is None else active.tobytes()
        if taken == self._taken:
            return
        self._taken = taken
        self._active = active
        self._orders: dict[tuple[int, ...], tuple[int, dict[int, Order]]] = {}
        self._chosen = np.arange(len(self._kept["records"])) if active is None else np.flatnonzero(active)
        self._kept["totals"][:] = self._kept["extents"][:, self._chosen].sum(1)
        self._ctx[_AT["taking"]] = self._chosen.ctypes.data
        self._ctx[_AT["takers"]] = len(self._chosen)

    def _run(self, numbers: tuple[int, ...], epoch: int, threads: int | None) -> None:
        ctx, team = self._ctx, self.kernel.team
        work, orders = self._orders.get(numbers) or self._prepared(numbers)
        threads = 1 if threads is None and work < 2 * SHARE else team.threads(work, threads)
        order = orders.get(threads)
        if order is None:
            order = orders[threads] = self._schedule.order(numbers, threads, self._active)
        if order is not self._pointed:
            ctx[_ORDER : _ORDER + len(ORDER)] = order.fields
            self._pointed = order
        if threads > 1:
            ctypes.memmove(*order.anew)
            ctx[_ARRIVED] = 0
            ctx[_MODE] = self.kernel.mode()
        else:
            ctx[_MODE] = ALONE
        ctx[_EPOCH] = epoch
        self._threads = threads
        team.run(self._at, work, threads)

    def _prepared(self, numbers: tuple[int, ...]) -> tuple[int, dict[int, Order]]:
        """The elements of some passes, and the orders of their chunks by the number of threads."""
        found: tuple[int, dict[int, Order]] = self._schedule.work(numbers, self._active), {}
        self._orders[numbers] = found
        return found

    def _own(self, number: int) -> list[Node]:
        return [n for n in self.kernel.program.passes[number].reductions if n in self._records.sums]

    def _found(self, n: Node, active: Any) -> Any:
        found = self._kept["records"][:, self._records.sums[n]].copy()
        if active is not None:
            found[~active] = -np.inf if n.op.startswith("max") else 0.0
        return found


@cache
def rest() -> int:
    """The address of the system's function by which a thread gives the processor away."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
