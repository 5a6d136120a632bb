"""How the work of a launch is cut and in which order threads take it.

A tensor is cut into chunks in a way that nothing but its shape decides, so sums are always added up alike.
The chunks of all passes stand in one list. A chunk only waits for what stands before it, and threads take
from the list in order, so even one thread gets to its end. Within that the order is one that finds memory in
the caches: a small tensor's passes follow each other, every other pass runs backwards over its tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...formula import Program
from ...formula.nodes import scope

CHUNK = 1 << 15
"""Elements in a chunk: enough to hide the taking of one, few enough to share a tensor out."""

_BATCH = CHUNK // 2
"""Elements in a batch of small tensors, which one thread takes at once."""

ENTRY = ("number", "tensor", "offset", "length", "place", "strip", "piece", "share")
"""A chunk: of which pass and tensor, from which element (or row of a matrix), how many; where its own sums
and strips of column sums are kept; which of the tensor's chunks it is, of how many."""


@dataclass(frozen=True)
class Order:
    """Entries in the order in which they are taken, and where every batch begins, and the last ends."""

    entries: Any
    batches: Any
    work: int


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
        self.sums = self.scratch = 0
        for number, one in enumerate(program.passes):
            whole_rows = program.is_matrix(number)
            counts = extents["rows" if whole_rows else one.domain]
            each = np.maximum(64, CHUNK // np.maximum(columns, 1)) if whole_rows else CHUNK
            tensor, offset, length, piece, share = _cut(counts, each)
            kept = sum(scope(n) in ("tensor", "global") for n in one.reductions)
            place = self.sums + np.arange(len(tensor)) * kept
            room = columns[tensor] * strips if _by_column(program, number) else tensor * 0
            strip = np.cumsum(room) - room
            self.sums += len(tensor) * kept
            self.scratch = max(self.scratch, int(room.sum()))
            number_of = np.full(len(tensor), number)
            found = np.stack([number_of, tensor, offset, length, place, strip, piece, share], 1)
            self.entries.append(np.ascontiguousarray(found.astype(np.int64)))
            self._work.append(length * columns[tensor] if whole_rows else length)
        self.n = len(extents["element"])

    def one(self, number: int, active: Any = None) -> Order:
        """The chunks of one pass; `active` leaves tensors out."""
        return _order(*self._taking([number], active))

    def whole(self, active: Any = None) -> Order:
        """The chunks of all passes."""
        passes = self.program.passes
        entries, work = self._taking(range(len(passes)), active)
        number, tensor, piece, share = entries[:, [0, 1, 6, 7]].T
        if len(passes) == 1:
            return _order(entries, work)
        # what waits for all tensors begins a new part of the list
        ends = [any(scope(n) == "global" for n in one.reductions) for one in passes]
        parts = np.cumsum([False, *ends[:-1]])
        part, first = parts[number], np.searchsorted(parts, parts)[number]
        largest = np.zeros((len(passes), self.n), np.int64)
        np.maximum.at(largest, (part, tensor), share)
        alone = largest[part, tensor] == 1
        position = np.where(part % 2, self.n - 1 - tensor, tensor)
        # the next tensor's pass goes before a tensor's next one, which would wait for the chunks of the last
        turn = position + np.where(alone, 0, number - first)
        keys = (np.where(number % 2, -piece, piece), number, -position, turn, part)
        order = np.lexsort(keys)
        return _order(entries[order], work[order])

    def _taking(self, numbers: Sequence[int], active: Any) -> tuple[Any, Any]:
        entries = np.concatenate([self.entries[k] for k in numbers])
        work = np.concatenate([self._work[k] for k in numbers])
        if active is None:
            return entries, work
        takes = active[entries[:, 1]]
        return entries[takes], work[takes]


def strips_of(program: Program) -> int:
    """How many strips of column sums a chunk keeps at most."""
    return max(len(_by_column(program, k)) for k in range(len(program.passes)))


def _by_column(program: Program, number: int) -> list[Any]:
    return [n for n in program.passes[number].reductions if scope(n) == "columns"]


def _order(entries: Any, work: Any) -> Order:
    """Neighbours that are small together make a batch."""
    before = np.cumsum(work + 64) - work - 64
    starts = np.flatnonzero(np.diff(before // _BATCH, prepend=-1))
    batches = np.append(starts, len(entries)).astype(np.int64)
    return Order(np.ascontiguousarray(entries), batches, int(work.sum()))


def _cut(counts: Any, each: Any) -> tuple[Any, ...]:
    """Tensor, offset, length, piece and pieces of every chunk; of a tensor of nothing, one empty chunk."""
    pieces = np.maximum(1, -(-counts // each))
    tensor = np.repeat(np.arange(len(counts)), pieces)
    piece = np.arange(len(tensor)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    each = np.broadcast_to(each, counts.shape)[tensor]
    offset = piece * each
    return tensor, offset, np.minimum(each, counts[tensor] - offset), piece, pieces[tensor]
