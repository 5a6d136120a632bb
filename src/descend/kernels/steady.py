"""Products and factors of matrices with the same bits on any number of threads.

A library that shares one product out over its threads adds in another order for another number of them. Here
the work is cut by its shape alone, and every piece is done by one thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

STRIP = 256
"""Rows of a product that one thread does."""

PIECE = 1 << 24
"""Multiplications that are worth handing to another thread."""


@cache
def _threads_here() -> Any:
    """What sets the number of MKL's threads for one thread of ours; None where torch has no such library."""
    for path in Path(torch.__file__).with_name("lib").glob("libtorch_cpu*"):
        try:
            found = ctypes.CDLL(str(path)).MKL_Set_Num_Threads_Local
        except (OSError, AttributeError):
            continue
        found.restype, found.argtypes = ctypes.c_int, [ctypes.c_int]
        return found
    return None


@contextmanager
def _alone() -> Iterator[None]:
    """Let torch's linear algebra run on this thread only."""
    setting = _threads_here()
    before = setting(1) if setting else 0
    try:
        yield
    finally:
        if setting:
            setting(before)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="descend-matrices")


def share(pieces: Sequence[Callable[[], object]]) -> None:
    """Do every piece on one thread, several at a time where torch has several threads."""

    def one(piece: Callable[[], object]) -> None:
        with _alone(), torch.no_grad():
            piece()

    threads = min(torch.get_num_threads(), len(pieces))
    if threads > 1:
        list(_pool(threads).map(one, pieces))
    else:
        for piece in pieces:
            one(piece)


def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Products of matrices [n, rows, inner] and [n, inner, columns]."""
    if x.device.type != "cpu" or x.dtype == torch.bfloat16:  # torch's bfloat16 products are steady already
        return x @ y
    (n, rows, inner), columns = x.shape, y.shape[-1]
    out = torch.empty(n, rows, columns, dtype=x.dtype)
    if not out.numel():
        return out
    tall = min(rows, STRIP)
    many = max(1, PIECE // (tall * inner * columns)) if rows <= STRIP else 1

    def piece(i: int, r: int) -> Callable[[], object]:
        a, into = x[i : i + many, r : r + tall], out[i : i + many, r : r + tall]
        if len(a) == 1:
            return lambda: torch.mm(a[0], y[i], out=into[0])
        return lambda: torch.bmm(a, y[i : i + many], out=into)

    share([piece(i, r) for i in range(0, n, many) for r in range(0, rows, tall)])
    return out


def each(x: torch.Tensor, factor: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """A matrix made of every one of some matrices [n, side, side], by a routine of torch.linalg."""
    if x.device.type != "cpu":
        return factor(x)
    out = torch.empty_like(x)
    share([lambda i=i: out[i].copy_(factor(x[i])) for i in range(len(x))])  # type: ignore[misc]
    return out
