"""Products of matrices on torch's own threads: every piece is one call of a C function, without Python.

A Python thread that is woken for a piece waits for the interpreter's lock first, which for matrices of a few
hundred rows takes as long as the piece. So one compiled loop takes the pieces from a list. Where this torch
does not export the functions (the stable ones that compiled models use), Python's threads do the same pieces.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from .compiler import compile_function, pause
from .table import rest
from .team import openmp
from .waiting import SPIN


class Piece(NamedTuple):
    """out <- x @ y, or beta*add + alpha*x@y, of matrices or of batches of them.

    With `mirror`, a pair of tensors of one shape, the first becomes a copy of the second afterwards; the
    second is a transposed view of a part of `out`.
    """

    out: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    add: torch.Tensor | None = None
    beta: float = 1.0
    alpha: float = 1.0
    mirror: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def work(self) -> int:
        """Multiplications."""
        return self.out.numel() * self.x.shape[-1]

    def run(self) -> None:
        """Do it here, with torch."""
        lone = self.out.dim() == 2
        if self.add is None:
            (torch.mm if lone else torch.bmm)(self.x, self.y, out=self.out)
        else:
            update = torch.addmm if lone else torch.baddbmm
            update(self.add, self.x, self.y, beta=self.beta, alpha=self.alpha, out=self.out)
        if self.mirror is not None:
            self.mirror[0].copy_(self.mirror[1])


_HEAD = struct.Struct("=8q")
"""The next piece, their number, how many are done, whether one failed, and functions: the system's by
which a thread gives the processor away, OpenMP's and MKL's that set the number of a thread's threads, and
torch's that reads it, for at its first call on a thread torch sets it too."""

_SETTERS = ("omp_set_num_threads", "MKL_Set_Num_Threads_Local", "_ZN2at15get_num_threadsEv")

_NOT_COPIED: tuple[int, ...] = (0,) * 7

_PIECE = struct.Struct("=5q2d8q")
"""The function; out, add, x and y; beta, alpha; the pieces to wait for; the mirror's two addresses, rows,
columns, distances of rows in both, and bytes of an element."""

_MIRROR = """
define internal void @mirrorBITS(ptr %to, ptr %from, i64 %rows, i64 %columns, i64 %wide, i64 %tall) {
entry:
  br label %rowtile
rowtile:
  %i0 = phi i64 [ 0, %entry ], [ %i2, %nextrowtile ]
  %i1 = add i64 %i0, TILE
  %i2 = call i64 @llvm.smin.i64(i64 %i1, i64 %rows)
  br label %columntile
columntile:
  %j0 = phi i64 [ 0, %rowtile ], [ %j2, %nextcolumntile ]
  %j1 = add i64 %j0, TILE
  %j2 = call i64 @llvm.smin.i64(i64 %j1, i64 %columns)
  br label %row
row:
  %i = phi i64 [ %i0, %columntile ], [ %ii, %nextrow ]
  %start = mul i64 %i, %wide
  %line = getelementptr iBITS, ptr %to, i64 %start
  %source = getelementptr iBITS, ptr %from, i64 %i
  br label %element
element:
  %j = phi i64 [ %j0, %row ], [ %jj, %element ]
  %away = mul i64 %j, %tall
  %at = getelementptr iBITS, ptr %source, i64 %away
  %v = load iBITS, ptr %at
  %into = getelementptr iBITS, ptr %line, i64 %j
  store iBITS %v, ptr %into
  %jj = add i64 %j, 1
  %more = icmp slt i64 %jj, %j2
  br i1 %more, label %element, label %nextrow
nextrow:
  %ii = add i64 %i, 1
  %morerows = icmp slt i64 %ii, %i2
  br i1 %morerows, label %row, label %nextcolumntile
nextcolumntile:
  %morecolumns = icmp slt i64 %j2, %columns
  br i1 %morecolumns, label %columntile, label %nextrowtile
nextrowtile:
  %moretiles = icmp slt i64 %i2, %rows
  br i1 %moretiles, label %rowtile, label %end
end:
  ret void
}
"""

_WORK = """
define internal i32 @nothing(i32 %n) {
  ret i32 %n
}

define void @work(ptr %ctx) {
entry:
  %count_at = getelementptr i64, ptr %ctx, i64 1
  %count = load i64, ptr %count_at
  %done_at = getelementptr i64, ptr %ctx, i64 2
  %failed_at = getelementptr i64, ptr %ctx, i64 3
  %rest_at = getelementptr i64, ptr %ctx, i64 4
  %rest = load ptr, ptr %rest_at
  %openmp_at = getelementptr ptr, ptr %ctx, i64 5
  %openmp = load ptr, ptr %openmp_at
  %mkl_at = getelementptr ptr, ptr %ctx, i64 6
  %found = load ptr, ptr %mkl_at
  %absent = icmp eq ptr %found, null
  %mkl = select i1 %absent, ptr @nothing, ptr %found
  %torch_at = getelementptr ptr, ptr %ctx, i64 7
  %torch = load ptr, ptr %torch_at
  %most = call i32 %torch()
  call void %openmp(i32 1)
  %threads = call i32 %mkl(i32 1)
  br label %next
next:
  %k = atomicrmw add ptr %ctx, i64 1 monotonic
  %more = icmp slt i64 %k, %count
  br i1 %more, label %piece, label %end
piece:
  %nth = mul i64 %k, 15
  %place = add i64 %nth, 8
  %piece_at = getelementptr i64, ptr %ctx, i64 %place
FIELDS
  br label %look
look:
  %tries = phi i64 [ 0, %piece ], [ %after, %spin ], [ 0, %tired ]
  %done = load atomic i64, ptr %done_at acquire, align 8
  %go = icmp sge i64 %done, %before
  br i1 %go, label %product, label %spin
spin:
  PAUSE
  %after = add i64 %tries, 1
  %long = icmp ugt i64 %after, SPIN
  br i1 %long, label %tired, label %look
tired:
  %ignored = call i32 %rest()
  br label %look
product:
  %plain = icmp eq ptr %add, null
  br i1 %plain, label %multiply, label %update
multiply:
  %e1 = call i32 %function(ptr %out, ptr %x, ptr %y)
  br label %made
update:
  %e2 = call i32 %function(ptr %out, ptr %add, ptr %x, ptr %y, double %beta, double %alpha)
  br label %made
made:
  %error = phi i32 [ %e1, %multiply ], [ %e2, %update ]
  %wrong = zext i32 %error to i64
  %w = atomicrmw or ptr %failed_at, i64 %wrong monotonic
  switch i64 %bytes, label %finished [ i64 2, label %two
                                       i64 4, label %four
                                       i64 8, label %eight ]
two:
  call void @mirror16(ptr %to, ptr %from, i64 %rows, i64 %columns, i64 %wide, i64 %tall)
  br label %finished
four:
  call void @mirror32(ptr %to, ptr %from, i64 %rows, i64 %columns, i64 %wide, i64 %tall)
  br label %finished
eight:
  call void @mirror64(ptr %to, ptr %from, i64 %rows, i64 %columns, i64 %wide, i64 %tall)
  br label %finished
finished:
  %d = atomicrmw add ptr %done_at, i64 1 release
  br label %next
end:
  %back = call i32 %mkl(i32 %threads)
  ret void
}
"""

_FIELDS = (
    *(("ptr", word) for word in ("function", "out", "add", "x", "y")),
    *(("double", word) for word in ("beta", "alpha")),
    *(("i64", "before"), ("ptr", "to"), ("ptr", "from")),
    *(("i64", word) for word in ("rows", "columns", "wide", "tall", "bytes")),
)


def _ir() -> str:
    fields = [
        f"  %{word}_at = getelementptr i64, ptr %piece_at, i64 {k}\n  %{word} = load {kind}, ptr %{word}_at"
        for k, (kind, word) in enumerate(_FIELDS)
    ]
    instruction, declaration = pause()
    mirrors = [_MIRROR.replace("BITS", str(bits)).replace("TILE", str(512 // bits)) for bits in (16, 32, 64)]
    work = _WORK.replace("FIELDS", "\n".join(fields)).replace("PAUSE", instruction).replace("SPIN", str(SPIN))
    return "\n".join([*mirrors, work, declaration, "declare i64 @llvm.smin.i64(i64, i64)"])


@cache
def library() -> ctypes.CDLL | None:
    """torch's library of products, with what it is linked to."""
    suffix = "dylib" if sys.platform == "darwin" else "dll" if sys.platform == "win32" else "so"
    stem = "torch_cpu" if sys.platform == "win32" else "libtorch_cpu"
    try:
        return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / f"{stem}.{suffix}"))
    except OSError:
        return None


def symbol(name: str) -> int:
    """The address of a C function of torch's library; 0 where it has none of this name."""
    found = getattr(library(), name, None)
    return ctypes.cast(found, ctypes.c_void_p).value or 0 if found else 0


@cache
def _native() -> dict[tuple[bool, bool], int]:
    """torch's functions, by whether they add and whether they take batches; none where one is missing."""
    names = ("mm", "bmm", "addmm", "baddbmm")
    found = [symbol(f"aoti_torch_cpu_{name}_out") for name in names]
    if openmp() is None or not symbol(_SETTERS[0]) or not symbol(_SETTERS[2]) or not all(found):
        return {}
    return dict(
        zip([(adds, batched) for adds in (False, True) for batched in (False, True)], found, strict=True)
    )


@cache
def _work() -> int:
    return compile_function(_ir(), "work")


def run(stages: Sequence[Sequence[Piece]]) -> bool:
    """Do all pieces, those of one stage in any order, after all of the stage before.

    Every thread tells OpenMP and MKL that it is alone, for they choose how they multiply by the number of
    threads. False where it cannot be done here, and nothing has been done.
    """
    functions, parallel = _native(), openmp()
    count, threads = sum(map(len, stages)), torch.get_num_threads()
    if not functions or threads < 2:
        return False
    if not count:
        return True
    ctx = ctypes.create_string_buffer(_HEAD.size + count * _PIECE.size)
    setters = map(symbol, _SETTERS)
    _HEAD.pack_into(ctx, 0, 0, count, 0, 0, rest(), *setters)
    # a C++ tensor is a pointer to what Python's calls _cdata
    cells = ctypes.create_string_buffer(4 * 8 * count)
    cell = ctypes.addressof(cells)
    k = before = 0
    for stage in stages:
        for out, x, y, add, beta, alpha, mirror in stage:
            held = [0 if t is None else t._cdata for t in (out, add, x, y)]
            struct.pack_into("=4q", cells, 32 * k, *held)
            places = [cell + 8 * (4 * k + i) if at else 0 for i, at in enumerate(held)]
            copied = _NOT_COPIED
            if mirror is not None:
                to, source = mirror
                sizes = (*to.shape, to.stride(0), source.stride(1), to.element_size())
                copied = (to.data_ptr(), source.data_ptr(), *sizes)
            function = functions[add is not None, out.dim() == 3]
            at = _HEAD.size + k * _PIECE.size
            _PIECE.pack_into(ctx, at, function, *places, beta, alpha, before, *copied)
            k += 1
        before = k
    parallel(_work(), ctypes.addressof(ctx), min(threads, max(2, count)), 0)
    if _HEAD.unpack_from(ctx)[3]:
        raise RuntimeError("torch refused a product of matrices; its own message stands above")
    return True
