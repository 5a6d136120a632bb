"""The CPU back end: one fused SIMD kernel per rule and dtype, one launch for all tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from ...formula import Program
from ...formula.nodes import scope
from .compiler import c_function, compile_functions, vector_width
from .driver import Driver
from .emit import compute_type
from .gather import is_dense as is_dense
from .table import Table as Table
from .team import Team

NAME = "cpu"
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, *_REAL)


def takes(p: torch.Tensor) -> bool:
    """Whether the kernels can step this parameter: plain numbers in memory, none standing for several."""
    return (
        p.device.type == "cpu"
        and p.layout == torch.strided
        and p.dtype in DTYPES
        and type(p) in (torch.Tensor, torch.nn.Parameter)
        and not p.is_neg()
        and not p.is_conj()
        and all(stride != 0 or size < 2 for stride, size in zip(p.stride(), p.shape, strict=True))
    )


def matrices(program: Program, params: Sequence[torch.Tensor]) -> list[tuple[int, int]]:
    """The rows of every parameter, and its columns, all other dimensions; nothing where no program asks.

    A vector is one row.
    """
    if not asks_for_rows(program):
        return []
    rows = [p.shape[0] if p.dim() > 1 else 1 for p in params]
    return [(r, p.numel() // max(1, r)) for r, p in zip(rows, params, strict=True)]


def asks_for_rows(program: Program) -> bool:
    """Whether a program has to know where the rows of a matrix begin."""
    return any(domain != "element" for domain in program.domains.values()) or bool(program.vectors)


def takes_vectors(program: Program) -> bool:
    """Whether a program that asks for rows may take a vector for one: it sums by row, and keeps none."""
    kept = any(domain != "element" for domain in program.domains.values())
    return not kept and all(scope(n) == "rows" for n in program.vectors)


def storage_name(dtype: torch.dtype) -> str:
    """How the renderer names a dtype; a complex number is a pair of reals."""
    return str(_REAL.get(dtype, dtype)).removeprefix("torch.")


@cache
def kernel(program: Program, dtypes: tuple[str, ...]) -> Kernel:
    """The compiled kernel of a program for one dtype per operand."""
    return Kernel(program, dtypes)


class Kernel:
    """A compiled program."""

    def __init__(self, program: Program, dtypes: tuple[str, ...]) -> None:
        self.program = program
        self.dtypes = dtypes
        run, between, mode = compile_functions(self.source, ("run", "between", "mode"))
        self.team = Team(run)
        self.mode_at = mode
        self.mode = c_function(mode, ctypes.c_int64, with_gil=True)
        """`mode()`: whether this thread takes denormal numbers for zeros: `torch.set_flush_denormal`."""
        self.between = c_function(between, None, ctypes.c_void_p, ctypes.c_int64)
        """`between(ctx, number)`: compute what stands before a pass, or after the last one."""

    @property
    def source(self) -> str:
        """The kernel as LLVM IR."""
        width = vector_width() // (2 if compute_type(self.dtypes[0]) == "float64" else 1)
        return Driver(self.program, self.dtypes, width).module()

    def rows(self, count: int) -> Any:
        """A buffer for `count` rows of the first pass's scalars."""
        return (ctypes.c_double * max(1, count * len(self.program.scalars.row)))()
