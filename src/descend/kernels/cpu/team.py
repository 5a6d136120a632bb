"""Runs a compiled function on several threads: torch's own OpenMP team, or Python's threads elsewhere.

A second OpenMP runtime beside torch's makes both wait for whole scheduler slices; so the team is the one
that torch has already started, found among the libraries loaded in this process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .compiler import c_function

SHARE = 1 << 15
"""Elements below which a second thread costs more than it brings."""


@cache
def _runtime() -> Any:
    """The OpenMP runtime that torch runs on, or None where it has none that we could use."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    loaded = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    runtimes = [p for p in loaded if Path(p).name.startswith(("libgomp", "libiomp5", "libomp"))]
    beside_torch = [p for p in runtimes if str(Path(torch.__file__).parent) in p]
    for path in beside_torch or runtimes:
        try:
            library = ctypes.CDLL(path, mode=getattr(os, "RTLD_NOLOAD", 0))
        except OSError:
            continue
        if hasattr(library, "GOMP_parallel") and hasattr(library, "omp_get_thread_num"):
            return library
    return None


@cache
def openmp() -> Any:
    """`GOMP_parallel` of the OpenMP runtime that torch runs on, or None where it has none."""
    library = _runtime()
    if library is None:
        return None
    function = library.GOMP_parallel
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


def thread_number() -> int:
    """The address of `omp_get_thread_num` of the same runtime, or 0 where there is no team of its."""
    if openmp() is None:
        return 0
    return ctypes.cast(_runtime().omp_get_thread_num, ctypes.c_void_p).value or 0


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Python's threads, where there is no team of torch's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="descend")


class Team:
    """Calls `function(ctx)`, at `address`, on as many threads as torch uses and the work is worth."""

    def __init__(self, address: int) -> None:
        self.address = address
        self._alone = c_function(address, None, ctypes.c_void_p, with_gil=True)
        self._released = c_function(address, None, ctypes.c_void_p)

    @property
    def parallel(self) -> int:
        """The address of `openmp()`, or 0."""
        return ctypes.cast(openmp(), ctypes.c_void_p).value or 0

    def threads(self, elements: int, most: int | None = None) -> int:
        """How many threads so much work is worth, of `most` or those that torch uses."""
        if most is None:
            most = torch.get_num_threads() if elements >= 2 * SHARE else 1
        return min(most, 1 + elements // SHARE)

    def run(self, ctx: int, elements: int, threads: int) -> None:
        """Run to the end on so many threads; `elements` says how much work there is."""
        if threads <= 1:
            (self._alone if elements < SHARE else self._released)(ctx)
            return
        parallel = openmp()
        if parallel is not None:
            parallel(self.address, ctx, threads, 0)
            return
        for done in [pool(threads).submit(self._released, ctx) for _ in range(threads)]:
            done.result()
