"""The CPU back end: one fused SIMD kernel per rule and dtype, one launch for all tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from ...formula import Pass, Program
from .compiler import compile_function, vector_width
from .render import Renderer, compute_type
from .team import Team

NAME = "cpu"
CHUNK = 1 << 15
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, *_REAL)


def takes(p: torch.Tensor) -> bool:
    """Whether the kernels can write this parameter where it lies."""
    return (
        p.device.type == "cpu"
        and p.layout == torch.strided
        and p.dtype in DTYPES
        and type(p) in (torch.Tensor, torch.nn.Parameter)
        and not p.is_neg()
        and not p.is_conj()
        and is_dense(p)
    )


def is_dense(p: torch.Tensor) -> bool:
    """Whether a tensor fills its memory without gaps or overlaps, in whatever order."""
    return (
        bool(torch._C._is_non_overlapping_and_dense(p))
        if hasattr(torch._C, "_is_non_overlapping_and_dense")
        else _dense(p)
    )


def _dense(p: torch.Tensor) -> bool:
    expected = 1
    for stride, size in sorted((st, s) for st, s in zip(p.stride(), p.shape, strict=True) if s != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def storage_name(dtype: torch.dtype) -> str:
    """How the renderer names a dtype; a complex number is a pair of reals."""
    return str(_REAL.get(dtype, dtype)).removeprefix("torch.")


@cache
def kernel(program: Program, dtypes: tuple[str, ...]) -> Kernel:
    """The compiled kernel of a program for one dtype per operand."""
    return Kernel(program, dtypes)


class Kernel:
    """A compiled program: one compiled function for each of its passes."""

    def __init__(self, program: Program, dtypes: tuple[str, ...]) -> None:
        self.program = program
        self.dtypes = dtypes
        self.teams = [Team(compile_function(source, "run")) for source in self.sources]

    @property
    def sources(self) -> list[str]:
        """The kernel as LLVM IR, pass by pass."""
        width = vector_width() // (2 if compute_type(self.dtypes[0]) == "float64" else 1)
        count = len(self.program.passes)
        return [Renderer(self.program, self.dtypes, width, k).module() for k in range(count)]

    def rows(self, count: int, number: int = 0) -> Any:
        """A buffer for `count` rows of a pass's scalars."""
        return (ctypes.c_double * max(1, count * len(self.program.passes[number].scalars.row)))()


class Table:
    """The chunks of a set of tensors, and the buffers that a launch reads.

    `sizes` are the tensors' element counts (twice that for complex ones).
    """

    def __init__(self, kernel: Kernel, sizes: Sequence[int]) -> None:
        self.kernel = kernel
        counts = np.asarray(sizes, np.int64)
        pieces = -(-counts // CHUNK)
        tensor = np.repeat(np.arange(len(counts)), pieces)
        first = np.repeat(np.cumsum(pieces) - pieces, pieces)
        offset = (np.arange(len(tensor)) - first) * CHUNK
        length = np.minimum(CHUNK, counts[tensor] - offset) if len(tensor) else offset
        self.chunks = np.ascontiguousarray(np.stack([tensor, offset, length, np.zeros_like(tensor)], 1))
        self.sizes = counts
        self.elements = int(counts.sum())
        widest = max(len(one.reductions) for one in kernel.program.passes)
        self._sums = np.zeros(max(1, len(tensor) * widest))
        self._ctx: Any = (ctypes.c_int64 * 6)()
        self._ctx[5] = self._sums.ctypes.data
        self._at = ctypes.addressof(self._ctx)

    def bind(self, addresses: Any, rows: Any, row_of: Any) -> None:
        """Set what every launch reads: addresses [n, operands], the rows, and each tensor's row [n]."""
        self.chunks[:, 3] = row_of[self.chunks[:, 0]]
        self._buffers = (addresses, rows)
        places = (self.chunks.ctypes.data, addresses.ctypes.data, ctypes.addressof(rows))
        self._whole: list[Any] = [len(self.chunks), *places]
        self._ctx[1:5] = self._whole

    def launch(self, threads: int | None = None) -> None:
        """Run the first pass over all tensors."""
        self._ctx[0] = 0
        self.kernel.teams[0].run(self._at, self.elements, threads)

    def launch_some(self, active: Any, threads: int | None = None) -> None:
        """Run the first pass over the tensors that the mask `active` [n] names."""
        chunks = np.ascontiguousarray(self.chunks[active[self.chunks[:, 0]]])
        self._ctx[0:3] = [0, len(chunks), chunks.ctypes.data]
        self.kernel.teams[0].run(self._at, int(self.sizes[active].sum()), threads)
        self._ctx[1:5] = self._whole

    def launch_pass(
        self, number: int, rows: Any, active: Any = None, threads: int | None = None
    ) -> list[Any]:
        """Run one pass of several; the sums of every tensor [n], one array for each reduction.

        `rows` is the pass's buffer: by cohort for the first pass, one row a tensor after it.
        """
        chunks = (
            self.chunks if active is None else np.ascontiguousarray(self.chunks[active[self.chunks[:, 0]]])
        )
        elements = self.elements if active is None else int(self.sizes[active].sum())
        self._ctx[0:3] = [0, len(chunks), chunks.ctypes.data]
        self._ctx[4] = ctypes.addressof(rows)
        self.kernel.teams[number].run(self._at, elements, threads)
        self._ctx[1:5] = self._whole
        return self._totals(chunks[:, 0], self.kernel.program.passes[number])

    def _totals(self, tensor: Any, one: Pass) -> list[Any]:
        """Every tensor's sums, its chunks added in order whatever thread ran them."""
        kinds = [n.op.split("_")[0] for n in one.reductions]
        parts = self._sums[: len(tensor) * len(kinds)].reshape(len(tensor), len(kinds))
        found = []
        for k, kind in enumerate(kinds):
            if kind == "max":
                total = np.full(len(self.sizes), -np.inf)
                with np.errstate(invalid="ignore"):
                    np.maximum.at(total, tensor, parts[:, k])
            else:
                total = np.bincount(tensor, weights=parts[:, k], minlength=len(self.sizes))
            found.append(total)
        return found


def finished(one: Pass, sums: list[Any], sizes: Any) -> list[Any]:
    """What the next pass may use of a pass's sums [n]: means divided, global ones joined over all tensors.

    `sizes` [n] are the element counts of the tensors that took part, zero for the others.
    """
    found = []
    with np.errstate(all="ignore"):
        for n, values in zip(one.reductions, sums, strict=True):
            kind, scope = n.op.split("_")
            if scope == "global":
                found.append(values.max() if kind == "max" else values.sum())
                found[-1] = found[-1] / sizes.sum() if kind == "mean" else found[-1]
            else:
                found.append(values / sizes if kind == "mean" else values)
    return found
