"""Products and factors of matrices with the same bits on any number of threads.

A library that shares one product out over its threads adds in another order for another number of them. Here
the work is cut by its shape alone, and every piece is done by one thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from .cpu import products
from .cpu.compiler import has_tiles
from .cpu.products import Piece
from .cpu.team import openmp, pool

PIECE = 1 << 23
"""Multiplications that are worth handing to another thread."""

LONGEST = 1024
"""Rows or columns of a product that one thread does at most."""


@contextmanager
def _alone() -> Iterator[None]:
    """Let torch's linear algebra run on this thread only, and choose its ways for one thread."""
    torch.get_num_threads()  # which at its first call on a thread sets the number too
    names = ("MKL_Set_Num_Threads_Local", "omp_get_max_threads", "omp_set_num_threads")
    mkl, most, openmp_threads = (getattr(products.library(), name, None) for name in names)
    before = mkl(1) if mkl else 0
    threads = most() if most else 0
    if openmp_threads:
        openmp_threads(1)
    try:
        yield
    finally:
        if mkl:
            mkl(before)
        if openmp_threads:
            openmp_threads(threads)


def share(pieces: Sequence[Callable[[], object]]) -> None:
    """Do every piece on one thread, several at a time where torch has several threads.

    The threads are torch's own where there are such: they spin for a while after their last work, and a
    thread of another team would have to wait for that.
    """
    left = iter(pieces)  # whoever is free takes the next one
    failed: list[BaseException] = []

    def work(_: int | None = None) -> None:
        try:
            with _alone(), torch.no_grad():
                for piece in left:
                    piece()
        except BaseException as error:
            failed.append(error)

    threads = min(torch.get_num_threads(), len(pieces))
    parallel = openmp() if threads > 1 else None
    if parallel is not None:
        parallel(_CALLBACK(work), None, threads, 0)
    else:
        waiting = [pool(threads - 1).submit(work) for _ in range(threads - 1)]
        work()
        for one in waiting:
            one.result()
    if failed:
        raise failed[0]


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def matmul(x: torch.Tensor, y: torch.Tensor, symmetric: bool = False) -> torch.Tensor:
    """Products of matrices [n, rows, inner] and [n, inner, columns], with whether they are symmetric."""
    if x.device.type != "cpu":
        return x @ y
    out = x.new_empty(len(x), x.shape[1], y.shape[2])
    run([pieces(out, x, y, symmetric=symmetric)])
    return out


def run(stages: Sequence[Sequence[Piece]]) -> None:
    """Do the pieces of products, those of one stage in any order, after all of the stage before."""
    stages = [sorted(stage, key=lambda piece: -piece.work) for stage in stages]  # the longest first
    if not products.run(stages):
        for stage in stages:
            share([piece.run for piece in stage])


def pieces(
    out: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    add: torch.Tensor | None = None,
    beta: float = 1.0,
    alpha: float = 1.0,
    symmetric: bool = False,
) -> list[Piece]:
    """out <- x @ y, or beta*add + alpha*x@y, of matrices [n, rows, inner] and [n, inner, columns].

    The work is cut by shape and type alone. Of a `symmetric` result only one half is computed, where that
    pays: AMX multiplies a few hundred rows in less time than the strips of a half take to hand out.
    """
    (n, rows, inner), columns = x.shape, y.shape[-1]
    work = rows * inner * columns
    if work < 2 * PIECE:
        many = max(1, PIECE // max(1, work))
        starts = range(0, n if out.numel() else 0, many)
        groups = [slice(i, i + many) if min(many, n) > 1 else i for i in starts]  # a lone one as a matrix
        return [Piece(out[k], x[k], y[k], None if add is None else add[k], beta, alpha) for k in groups]
    half = x.dtype == torch.bfloat16
    least, tall = (1024, 256) if half and has_tiles() else (384, 128)
    symmetric = symmetric and rows >= least
    if symmetric:
        regions = _triangle(rows, tall)
        y = x.mT if y is x else y  # the same numbers, of which a strip needs whole rows
    else:
        regions = _cuts(rows, columns, by_columns=half)
    made = []
    for i in range(n):
        into, left, right, added = out[i], x[i], y[i], None if add is None else add[i]
        for r, c in regions:
            whole = c.stop - c.start == columns
            place = r if whole else (r, c)
            mirror = (into[: r.start, r], into[r, : r.start].mT) if symmetric and r.start else None
            update = None if added is None else added[place]
            factor = right if whole else right[:, c]
            made.append(Piece(into[place], left[r], factor, update, beta, alpha, mirror))
    return made


def _cuts(rows: int, columns: int, by_columns: bool) -> list[tuple[slice, slice]]:
    """A product in two, four or more pieces along its longer side."""
    side = max(rows, columns)
    parts = max(2 if side < LONGEST else 4, -(-side // LONGEST))
    step = -(-side // (16 * parts)) * 16
    cut = [slice(k, min(k + step, side)) for k in range(0, side, step)]
    if columns > rows or (by_columns and columns == rows):
        return [(slice(0, rows), k) for k in cut]
    return [(k, slice(0, columns)) for k in cut]


def _triangle(side: int, tall: int) -> list[tuple[slice, slice]]:
    """The lower half of a symmetric matrix in strips, the largest first."""
    strips = [slice(k, min(k + tall, side)) for k in range(0, side, tall)]
    return [(r, slice(0, r.stop)) for r in reversed(strips)]


Task = tuple[Callable[..., torch.Tensor], Sequence[torch.Tensor], Sequence[float]]
"""A function of matrices [n, height, width] and of numbers, which makes one like each of the first."""


def each(tasks: Sequence[Task]) -> list[torch.Tensor]:
    """What the functions make, at once: a thread takes one large matrix or some small ones at a time."""
    pieces: list[tuple[int, Callable[[], object]]] = []
    made = []

    def piece(k: slice, out: torch.Tensor, task: Task) -> None:
        function, given, numbers = task
        out[k].copy_(function(*(x[k] for x in given), *numbers))

    for task in tasks:
        function, given, numbers = task
        n, height, width = given[0].shape
        if given[0].device.type != "cpu":
            made.append(function(*given, *numbers))
            continue
        out = torch.empty_like(given[0])
        cost = 4 * height * width * min(height, width) + 1
        many = max(1, PIECE // cost)
        pieces += [(cost, partial(piece, slice(k, k + many), out, task)) for k in range(0, n, many)]
        made.append(out)
    pieces.sort(key=lambda item: -item[0])
    share([piece for _, piece in pieces])
    return made
