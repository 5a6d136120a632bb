"""The work of a launch as a table of chunks, and what the passes of one step leave for each other."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...formula import Pass
from ...formula.nodes import scope

if TYPE_CHECKING:
    from . import Kernel

CHUNK = 1 << 15
"""Elements in a chunk: enough to hide the taking of one, few enough to share a tensor out."""


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
        self.sizes = np.asarray(sizes, np.int64)
        self.elements = int(self.sizes.sum())
        self.extents = {"element": self.sizes}
        if shapes:
            self.extents |= dict(zip(("rows", "columns"), np.asarray(shapes, np.int64).T, strict=True))
        self.extents |= {domain: np.asarray(each, np.int64) for domain, each in (squares or {}).items()}
        self.chunks = _cut(self.sizes)
        self._chunks = {"element": self.chunks}
        widest = 1 + max(len(one.reductions) for one in program.passes)
        self._blank: dict[int, Any] = {}
        self._ctx: Any = (ctypes.c_int64 * 9)()
        self._at = ctypes.addressof(self._ctx)
        if len(program.passes) > 1 or program.is_matrix(0):
            self._prepare(shapes)
        chunks = max(len(c) for c in self._chunks.values())
        self._sums = np.zeros(chunks * widest)
        self._ctx[5] = self._sums.ctypes.data

    def _prepare(self, shapes: Sequence[tuple[int, int]]) -> None:
        """The chunks of rows, columns and matrices, and places for sums by row and column."""
        program = self.kernel.program
        for number, one in enumerate(program.passes):
            if program.is_matrix(number):
                self._chunks["matrix"] = _cut_rows(np.asarray(shapes, np.int64))
            elif one.domain != "element":
                self._chunks[one.domain] = _cut(self.extents[one.domain])
        self._vectors = [np.zeros(int(self.extents[scope(n)].sum())) for n in program.vectors]
        addresses = np.zeros((len(self.sizes), max(1, len(program.vectors))), np.int64)
        for k, n in enumerate(program.vectors):
            extent = self.extents[scope(n)]
            addresses[:, k] = self._vectors[k].ctypes.data + 8 * (np.cumsum(extent) - extent)
        widths = np.ascontiguousarray(self.extents.get("columns", self.sizes))
        self._strips = max(sum(scope(n) == "columns" for n in one.reductions) for one in program.passes)
        scratch = np.zeros(0)
        if self._strips:
            matrix = self._chunks["matrix"]
            room = widths[matrix[:, 0]] * self._strips
            matrix[:, 4] = np.cumsum(room) - room
            scratch = np.zeros(int(room.sum()))
        self._scratch = scratch
        for number, one in enumerate(program.passes):
            starts = [
                -np.inf if n.op.startswith("max") else 0.0 for n in one.reductions if scope(n) == "columns"
            ]
            if starts:
                self._blank[number] = np.zeros(len(scratch))
                for chunk in self._chunks["matrix"]:
                    width = widths[chunk[0]]
                    filled = np.repeat(starts, width)
                    self._blank[number][chunk[4] : chunk[4] + len(filled)] = filled
        self._kept = (addresses, widths)
        self._ctx[6:9] = [addresses.ctypes.data, widths.ctypes.data, scratch.ctypes.data]

    def bind(self, addresses: Any, rows: Any, row_of: Any) -> None:
        """Set what every launch reads: addresses [n, operands], the rows, and each tensor's row [n]."""
        for chunks in self._chunks.values():
            chunks[:, 3] = row_of[chunks[:, 0]]
        self._buffers = (addresses, rows)
        places = (self.chunks.ctypes.data, addresses.ctypes.data, ctypes.addressof(rows))
        self._whole = [len(self.chunks), *places]
        self._ctx[1:5] = self._whole

    def launch(self, threads: int | None = None) -> None:
        """Run a program of one pass over all tensors."""
        self._ctx[0] = 0
        self.kernel.teams[0].run(self._at, self.elements, threads)

    def launch_some(self, active: Any, threads: int | None = None) -> None:
        """Run a program of one pass over the tensors that the mask `active` [n] names."""
        chunks = np.ascontiguousarray(self.chunks[active[self.chunks[:, 0]]])
        self._ctx[0:3] = [0, len(chunks), chunks.ctypes.data]
        self.kernel.teams[0].run(self._at, int(self.sizes[active].sum()), threads)
        self._ctx[1:5] = self._whole

    def launch_pass(
        self, number: int, rows: Any, active: Any = None, threads: int | None = None
    ) -> list[Any]:
        """Run one pass of several; every tensor's sums [n], one array for each that is one number a tensor.

        `rows` is the pass's buffer: by cohort for the first pass, one row a tensor after it. Sums by row and
        column stay in the table for the passes after it.
        """
        program = self.kernel.program
        one = program.passes[number]
        kind = "matrix" if program.is_matrix(number) else one.domain
        chunks = self._chunks[kind]
        if active is not None:
            chunks = np.ascontiguousarray(chunks[active[chunks[:, 0]]])
        extent = self.sizes if kind == "matrix" else self.extents[kind]
        work = int(extent.sum() if active is None else extent[active].sum())
        self._ctx[0:3] = [0, len(chunks), chunks.ctypes.data]
        self._ctx[4] = ctypes.addressof(rows)
        if number in self._blank:
            np.copyto(self._scratch, self._blank[number])
        self.kernel.teams[number].run(self._at, work, threads)
        self._ctx[1:5] = self._whole
        self._finish_vectors(one, chunks)
        return self._totals(one, chunks[:, 0])

    def _totals(self, one: Pass, tensor: Any) -> list[Any]:
        """Every tensor's sums, its chunks added in order whatever thread ran them."""
        wanted = [n for n in one.reductions if scope(n) in ("tensor", "global")]
        parts = self._sums[: len(tensor) * len(wanted)].reshape(len(tensor), len(wanted))
        found = []
        for k, n in enumerate(wanted):
            if n.op.startswith("max"):
                total = np.full(len(self.sizes), -np.inf)
                with np.errstate(invalid="ignore"):
                    np.maximum.at(total, tensor, parts[:, k])
            else:
                total = np.bincount(tensor, weights=parts[:, k], minlength=len(self.sizes))
            found.append(total)
        return found

    def _finish_vectors(self, one: Pass, chunks: Any) -> None:
        """Turn row sums into means, and add the chunks' strips of column sums in order."""
        program = self.kernel.program
        strip = 0
        for n in one.reductions:
            if scope(n) not in ("rows", "columns"):
                continue
            vector = self._vectors[program.vectors.index(n)]
            rows, columns = self.extents["rows"], self.extents["columns"]
            if scope(n) == "rows":
                if n.op.startswith("mean"):
                    vector /= np.repeat(columns, rows)
                continue
            ends = np.cumsum(columns)
            join = np.maximum.reduce if n.op.startswith("max") else np.add.reduce
            for i, first, count in zip(
                *np.unique(chunks[:, 0], return_index=True, return_counts=True), strict=True
            ):
                width, place = columns[i], chunks[first, 4]
                room = count * self._strips * width
                block = self._scratch[place : place + room].reshape(count, self._strips, width)
                total = join(block[:, strip], axis=0)
                vector[ends[i] - width : ends[i]] = total / rows[i] if n.op.startswith("mean") else total
            strip += 1


def _cut(counts: Any) -> Any:
    """Chunks of whole vectors: (tensor, offset, length, row, scratch)."""
    pieces = -(-counts // CHUNK)
    tensor = np.repeat(np.arange(len(counts)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    offset = (np.arange(len(tensor)) - first) * CHUNK
    length = np.minimum(CHUNK, counts[tensor] - offset) if len(tensor) else offset
    return np.ascontiguousarray(np.stack([tensor, offset, length, tensor * 0, tensor * 0], 1))


def _cut_rows(shapes: Any) -> Any:
    """Chunks of whole rows, enough of them that a chunk's strip of column sums is small beside it."""
    rows, columns = shapes[:, 0], shapes[:, 1]
    each = np.maximum(1, np.maximum(CHUNK // np.maximum(columns, 1), 64))
    pieces = np.where(rows * columns > 0, -(-rows // each), 0)
    tensor = np.repeat(np.arange(len(rows)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    offset = (np.arange(len(tensor)) - first) * each[tensor]
    length = np.minimum(each[tensor], rows[tensor] - offset) if len(tensor) else offset
    return np.ascontiguousarray(np.stack([tensor, offset, length, tensor * 0, tensor * 0], 1))
