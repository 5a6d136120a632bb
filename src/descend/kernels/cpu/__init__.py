"""The CPU back end: one fused SIMD kernel per rule and dtype, one launch for all tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from ...formula import Program
from .compiler import compile_function, vector_width
from .emit import compute_type
from .gather import is_dense as is_dense
from .render import Renderer
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
    """The rows of every parameter, and its columns, all other dimensions; nothing where no program asks."""
    if not asks_for_rows(program):
        return []
    return [(p.shape[0], p.numel() // max(1, p.shape[0])) for p in params]


def asks_for_rows(program: Program) -> bool:
    """Whether a program has to know where the rows of a matrix begin; its parameters must be matrices."""
    return any(domain != "element" for domain in program.domains.values()) or bool(program.vectors)


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
