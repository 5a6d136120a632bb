"""Large pages for large tensors: a step over millions of elements spends a twentieth looking addresses up."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import torch

LEAST = 4 << 20
"""Bytes from which a tensor is worth it; a large page has 2 MiB."""

_HUGEPAGE = 14  # MADV_HUGEPAGE of Linux


def in_large_pages(x: torch.Tensor) -> torch.Tensor:
    """Ask the system to give a tensor that nobody has written to yet large pages; the tensor.

    Where the system knows none, or gives them to nobody or to everybody, nothing changes.

    >>> in_large_pages(torch.empty(3)).shape
    torch.Size([3])
    """
    advise = _madvise()
    if advise is None or x.device.type != "cpu" or x.layout != torch.strided:
        return x
    memory = x.untyped_storage()
    if memory.nbytes() >= LEAST:
        start = -(-memory.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (memory.data_ptr() + memory.nbytes()) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(start, end - start, _HUGEPAGE)  # of no consequence where it is refused
    return x


@cache
def _madvise() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
