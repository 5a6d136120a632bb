"""Where in memory lies what a step reads and writes beside a parameter: its states and temporaries.

Two things slow down a step over large tensors that lie anywhere. In small pages a twentieth of its time is
spent on looking up addresses, and pages that fall on the same lines of the cache push each other out while
others are empty. And a core tells what it is about to read from what it has just written by the last twelve
bits of the address: where tensors lie one right behind the other, each vector that is written holds up the
next one of another tensor, and a step in the cache takes up to 1.4 times as long.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import torch

from .cpu import takes
from .cpu.emit import LINE

LARGE = 2 << 20
"""Bytes of a large page. A tensor of at least so many begins with one."""

APART = 64 << 10
"""Bytes from which a tensor is worth up to 4 KiB, to lie apart from others."""

_PERIOD = 4096
"""Bytes after which the last twelve bits of an address come back."""

_PLACES = (32, 16, 48, 8, 40, 24, 56)
"""Sixty-fourths of the period behind the parameter, each the farthest from all before it."""

BEHIND = 2
"""The first place of what a wrapper keeps, behind the states of most rules."""

_HUGEPAGE = 14  # MADV_HUGEPAGE of Linux


def empty_beside(p: torch.Tensor, place: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A new tensor shaped like a parameter, not written to yet; `place` counts those of one parameter.

    It has the parameter's strides where that fills a block of memory, and a storage of its own.

    >>> empty_beside(torch.ones(3, 2), 0).shape
    torch.Size([3, 2])
    """
    dtype = p.dtype if dtype is None else dtype
    size = p.numel() * dtype.itemsize
    apart = takes(p) and size >= APART
    page = LARGE if size >= LARGE else _PERIOD
    room = torch.empty(page + _PERIOD + size, dtype=torch.uint8, device=p.device) if apart else None
    if type(room) is not torch.Tensor:  # none, or what stands in for tensors, with memory of its own
        return torch.empty_like(p, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
    behind = (p.data_ptr() + _PLACES[place % len(_PLACES)] * LINE) % _PERIOD // LINE * LINE
    offset = -room.data_ptr() % page + behind
    # a storage that ends with the tensor, so that nothing else is saved along with it
    new = torch.frombuffer(room.numpy(), dtype=dtype, count=p.numel(), offset=offset)
    if page == LARGE:
        _ask_for_large_pages(new)
    strides = torch.empty_like(p, device="meta", memory_format=torch.preserve_format).stride()
    return torch.empty(0, dtype=dtype, device=p.device).set_(new.untyped_storage(), 0, p.shape, strides)


def _ask_for_large_pages(x: torch.Tensor) -> None:
    """Where the system knows none, or gives them to nobody or to everybody, nothing changes.

    For a tensor alone, not for its room: a byte of a large page takes a whole one.
    """
    advise, memory = _madvise(), x.untyped_storage()
    if advise is not None:
        start = memory.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        end = -(-(memory.data_ptr() + memory.nbytes()) // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(start, end - start, _HUGEPAGE)  # of no consequence where it is refused


@cache
def _madvise() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
