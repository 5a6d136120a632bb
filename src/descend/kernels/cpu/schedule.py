"""How the work of a launch is cut and in which order threads take it.

A tensor is cut into chunks in a way that nothing but its shape decides, so sums are always added up alike.
The chunks of all passes stand in one list, cut into phases, and every phase into a lane for each thread: a
chunk waits only for what stands in earlier phases, or before it in its lane. A thread takes its own lane
first, then what the others have left of theirs, and only then begins the next phase; so even one thread gets
to the end. The last of what is left, which is in the other's cache, it leaves alone for as long as the other
still comes for it.

The order is one that finds memory in the caches: a thread's lanes hold the same part of a tensor in every
pass and every step, every other pass runs backwards over it (where there is but one, in every other step),
and the passes of a tensor follow each other, on one thread where it is one of many. (Where they are short,
the next tensor's stands between.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...formula import Program
from ...formula.nodes import scope

CHUNK = 1 << 15
"""Elements in a chunk: enough to hide the taking of one, few enough to share a tensor out."""

LONE = 8
"""Chunks of a tensor, at most, whose passes one thread does after another, from its own cache."""

SHARES = 4
"""Such tensors that a thread's share of them comes to at least, so that hardly any waits for the last."""

LONG = 4
"""Chunks a thread from which a pass is long beside the wait for the last chunk of the one before."""

FEWEST = 64
"""Rows of a chunk, at least, where it leaves sums by column behind."""

_BATCH = CHUNK // 2
"""Elements in a batch of small tensors, which one thread takes at once."""

ENTRY = ("number", "tensor", "offset", "length", "place", "strip", "join", "piece", "share")
"""A chunk: of which pass and tensor, from which element (or row of a matrix), how many; where its own sums
and strips of column sums are kept, and where it is counted who has come to join those; which of the tensor's
chunks it is, of how many."""

ORDER = ("phases", "lanes", "next", "starts", "ends", "batches", "entries")
"""How many phases and lanes there are, and where the buffers of an order lie."""


@dataclass(frozen=True, eq=False)
class Order:
    """Entries in the order in which they are taken, and how they are cut.

    `batches` says where every batch begins, and the last ends; `starts` the first batch of every lane of
    every phase, `ends` where they end [phases, lanes].
    """

    entries: Any
    batches: Any
    starts: Any
    ends: Any

    @cached_property
    def next(self) -> Any:
        """The batch that is to be taken next of every lane of every phase, which the threads count up."""
        return self.starts.copy()

    @cached_property
    def fields(self) -> tuple[int, ...]:
        """What a launch reads of it, as `ORDER` names it."""
        buffers = (self.next, self.starts, self.ends, self.batches, self.entries)
        return *self.starts.shape, *(buffer.ctypes.data for buffer in buffers)

    @cached_property
    def anew(self) -> tuple[int, int, int]:
        """What is copied where before a launch, so that nothing is taken: to, from, bytes."""
        return self.next.ctypes.data, self.starts.ctypes.data, self.starts.nbytes


class Schedule:
    """The chunks of every pass of a program over some tensors.

    `extents` says how many numbers of each domain every tensor has; a pass that asks for the rows of a matrix
    is cut by whole rows.
    """

    def __init__(self, program: Program, extents: Mapping[str, Any]) -> None:
        self.program = program
        self.entries: list[Any] = []
        self._work: list[Any] = []
        columns = extents.get("columns", extents["element"])
        strips = strips_of(program)
        self.sums = self.scratch = self.joins = 0
        least = FEWEST if strips else 1
        strips_before = 0
        for number, one in enumerate(program.passes):
            follows = program.leaders[number] < number
            whole_rows = program.is_matrix(number) or follows
            counts = extents["rows" if whole_rows else one.domain]
            each = np.maximum(least, CHUNK // np.maximum(columns, 1)) if whole_rows else CHUNK
            tensor, offset, length, piece, share = _cut(counts, each)
            kept = sum(scope(n) in ("tensor", "global") for n in one.reductions)
            place = self.sums + np.arange(len(tensor)) * kept
            by_column = bool(_by_column(program, number))
            room = columns[tensor] * strips * by_column
            join = self.joins + np.arange(len(tensor)) * by_column
            strips_before *= follows  # what follows a pass must leave it its strips
            strip = strips_before + np.cumsum(room) - room
            strips_before += int(room.sum())
            self.sums += len(tensor) * kept
            self.joins += len(tensor) * by_column
            self.scratch = max(self.scratch, strips_before)
            number_of = np.full(len(tensor), number)
            found = np.stack([number_of, tensor, offset, length, place, strip, join, piece, share], 1)
            self.entries.append(np.ascontiguousarray(found.astype(np.int64)))
            self._work.append(length * columns[tensor] if program.is_matrix(number) else length)
        self.n = len(extents["element"])

    def work(self, numbers: Sequence[int], active: Any = None) -> int:
        """Elements of some passes."""
        return int(self._taking(numbers, active)[1].sum())

    def order(self, numbers: Sequence[int], lanes: int, active: Any = None) -> Order:
        """The chunks of some passes for so many threads; `active` leaves tensors out."""
        entries, work = self._taking(numbers, active)
        number, tensor, piece, share = (
            entries[:, ENTRY.index(x)] for x in ("number", "tensor", "piece", "share")
        )
        part, first = self._parts(numbers)[number].T
        leader = np.maximum(np.array(self.program.leaders)[number], first)
        rank = np.searchsorted(np.unique(self.program.leaders), np.arange(len(self.program.passes)))
        inner = rank[leader] - rank[first]
        chunks, last, whole = np.zeros((3, len(self.program.passes), self.n), np.int64)
        np.maximum.at(chunks, (part, tensor), share)
        np.maximum.at(last, (part, tensor), inner)
        np.add.at(whole, (part, tensor), work)
        once = last.max(1, keepdims=True) == 0
        lone = (~once & _lone(chunks, whole, lanes))[part, tensor]
        waits = ~lone & ~once[part, 0]
        position = np.where(part % 2, self.n - 1 - tensor, tensor)
        # where passes are short the next tensor's goes before a tensor's next, which would wait for chunks
        turn = position + np.where(lone | (chunks[part, tensor] >= LONG * lanes), 0, inner)
        backwards = np.where(leader % 2, -piece, piece)
        order = np.lexsort((number, backwards, leader, -position, turn, lone, part))
        whose = np.stack([part, np.where(waits, tensor, -1), np.where(waits, leader, -1)])[:, order]
        phase = np.empty(len(order), np.int64)
        phase[order] = np.cumsum((np.diff(whose, prepend=whose[:, :1]) != 0).any(0))
        lane = _lanes(phase, tensor, np.where(lone, 0, piece), work, lanes)
        order = order[np.lexsort((lane[order], phase[order]))]
        together = np.stack([part, leader, tensor, piece])[:, order]
        return _batched(entries[order], work[order], phase[order] * lanes + lane[order], lanes, together)

    def _parts(self, numbers: Sequence[int]) -> Any:
        """Of every pass its part of the list and the first pass there; a sum over all tensors ends a part."""
        found = np.zeros((len(self.program.passes), 2), np.int64)
        part, first = 0, numbers[0]
        for k in numbers:
            found[k] = part, first
            if k in self.program.meets:
                part, first = part + 1, k + 1
        return found

    def _taking(self, numbers: Sequence[int], active: Any) -> tuple[Any, Any]:
        entries = np.concatenate([self.entries[k] for k in numbers])
        work = np.concatenate([self._work[k] for k in numbers])
        if active is None:
            return entries, work
        takes = active[entries[:, 1]]
        return entries[takes], work[takes]


def strips_of(program: Program) -> int:
    """How many strips of column sums a chunk keeps at most, those of a few rows among them."""
    return 2 * max(len(_by_column(program, k)) for k in range(len(program.passes)))


def _by_column(program: Program, number: int) -> list[Any]:
    return [n for n in program.passes[number].reductions if scope(n) == "columns"]


def _lone(chunks: Any, work: Any, lanes: int) -> Any:
    """Which tensors one thread takes alone: small ones, where there are enough of them [parts, tensors]."""
    small = chunks <= LONE
    enough = work * SHARES * lanes <= np.where(small, work, 0).sum(1, keepdims=True)
    return (chunks == 1) | (small & enough)


def _lanes(phase: Any, tensor: Any, piece: Any, work: Any, lanes: int) -> Any:
    """The lane of every chunk: of each phase the same share of the work, in the order of memory."""
    order = np.lexsort((piece, tensor, phase))
    before = np.cumsum(work[order]) - work[order]
    unit = np.stack([phase, tensor, piece])[:, order]
    begins = np.diff(unit, prepend=unit[:, :1] - 1) != 0
    place = np.arange(len(order))
    of_unit = before[np.maximum.accumulate(np.where(begins.any(0), place, 0))]
    of_phase = before[np.maximum.accumulate(np.where(begins[0], place, 0))]
    total = np.bincount(phase, work)[phase[order]]
    lane = np.empty(len(order), np.int64)
    lane[order] = np.minimum(lanes * (of_unit - of_phase) // np.maximum(total, 1), lanes - 1)
    return lane


def _batched(entries: Any, work: Any, cell: Any, lanes: int, together: Any) -> Order:
    """Neighbours in a lane that are small together make a batch, and so do those with one key `together`."""
    begins = (np.diff(together, prepend=together[:, :1] - 1) != 0).any(0)
    place = np.maximum.accumulate(np.where(begins, np.arange(len(work)), 0))
    before = (np.cumsum(work + 64) - work - 64)[place]
    cuts = np.diff(before // _BATCH, prepend=-1) | np.diff(cell, prepend=-1)
    begins = np.flatnonzero(cuts)
    cells = lanes * (1 + int(cell.max(initial=-1)) // lanes)
    count = np.bincount(cell[begins], minlength=cells)
    ends = np.cumsum(count)
    batches = np.append(begins, len(entries)).astype(np.int64)
    starts, ends = (x.astype(np.int64).reshape(-1, lanes) for x in (ends - count, ends))
    return Order(np.ascontiguousarray(entries), batches, starts, ends)


def _cut(counts: Any, each: Any) -> tuple[Any, ...]:
    """Tensor, offset, length, piece and pieces of every chunk; of a tensor of nothing, one empty chunk."""
    pieces = np.maximum(1, -(-counts // each))
    tensor = np.repeat(np.arange(len(counts)), pieces)
    piece = np.arange(len(tensor)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    each = np.broadcast_to(each, counts.shape)[tensor]
    offset = piece * each
    return tensor, offset, np.minimum(each, counts[tensor] - offset), piece, pieces[tensor]
