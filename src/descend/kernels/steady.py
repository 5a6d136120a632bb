"""Products and factors of matrices with the same bits on any number of threads.

A library that shares one product out over its threads adds in another order for another number of them. Here
the work is cut by its shape alone, and every piece is done by one thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .cpu.team import openmp, pool

STRIP = 256
"""Rows of a product that one thread does."""

PIECE = 1 << 23
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


def share(pieces: Sequence[Callable[[], object]]) -> None:
    """Do every piece on one thread, several at a time where torch has several threads.

    The threads are torch's own where there are such: they spin for a while after their last work, and a
    thread of another team would have to wait for that.
    """
    left = iter(pieces)  # whoever is free takes the next one
    failed: list[BaseException] = []

    def work(_: int | None = None) -> None:
        try:
            for piece in left:
                piece()
        except BaseException as error:
            failed.append(error)

    def work_alone() -> None:
        with _alone(), torch.no_grad():
            work()

    threads = min(torch.get_num_threads(), len(pieces))
    parallel = openmp() if threads > 1 else None
    if parallel is not None:  # inside a team torch's linear algebra keeps to one thread by itself
        parallel(_CALLBACK(work), None, threads, 0)
    else:
        waiting = [pool(threads - 1).submit(work_alone) for _ in range(threads - 1)]
        work_alone()
        for one in waiting:
            one.result()
    if failed:
        raise failed[0]


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def matmul(
    x: torch.Tensor,
    y: torch.Tensor,
    add: torch.Tensor | None = None,
    beta: float = 1.0,
    alpha: float = 1.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Products of matrices [n, rows, inner] and [n, inner, columns]; with `add`, beta*add + alpha*x@y.

    They are written to `out`, where one is given.
    """
    if x.device.type != "cpu" or x.dtype == torch.bfloat16:  # torch's bfloat16 products are steady already
        made = x @ y if add is None else torch.baddbmm(add, x, y, beta=beta, alpha=alpha)
        return made if out is None else out.copy_(made)
    (n, rows, inner), columns = x.shape, y.shape[-1]
    out = torch.empty(n, rows, columns, dtype=x.dtype) if out is None else out
    if not out.numel():
        return out
    tall = min(rows, STRIP)
    many = max(1, PIECE // (tall * inner * columns)) if rows <= STRIP else 1

    def piece(i: int, r: int) -> Callable[[], object]:
        batch, strip = slice(i, i + many), slice(r, r + tall)
        a, b, into = x[batch, strip], y[batch], out[batch, strip]
        if add is None:
            return lambda: torch.bmm(a, b, out=into) if len(a) > 1 else torch.mm(a[0], b[0], out=into[0])
        c = add[batch, strip]
        if len(a) > 1:
            return lambda: torch.baddbmm(c, a, b, beta=beta, alpha=alpha, out=into)
        return lambda: torch.addmm(c[0], a[0], b[0], beta=beta, alpha=alpha, out=into[0])

    share([piece(i, r) for i in range(0, n, many) for r in range(0, rows, tall)])
    return out


def batches(x: torch.Tensor, whole: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """What `whole` makes of small matrices [n, rows, columns], some of them at a time on every thread."""
    many = max(1, PIECE // (4 * x.shape[1] * x.shape[2] * min(x.shape[1:]) + 1))
    if x.device.type != "cpu":
        return whole(x)
    made: list[torch.Tensor] = [x] * -(-len(x) // many)

    def piece(k: int) -> Callable[[], object]:
        return lambda: made.__setitem__(k, whole(x[k * many : (k + 1) * many]))

    share([piece(k) for k in range(len(made))])
    return torch.cat(made)


def each(x: torch.Tensor, factor: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """A matrix made of every one of some matrices [n, side, side], by a routine of torch.linalg."""
    if x.device.type != "cpu":
        return factor(x)
    out = torch.empty_like(x)
    share([lambda i=i: out[i].copy_(factor(x[i])) for i in range(len(x))])  # type: ignore[misc]
    return out
