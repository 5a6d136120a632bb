"""Batches: how many samples a step takes, and which. Everything here is a pure function of its arguments."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import DataError, UsageError

FULL_LIMIT = 2000
SMALLEST, LARGEST = 64, 512
# A batch's activations and gradients are taken to need sixteen times the memory of its inputs.
ACTIVATIONS = 16
_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): neighbouring numbers become unrelated ones."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of one sample's randomness, in [0, 2**63): a pure function of (seed, epoch, index).

    The low 32 bits alone are well mixed too: torch's CPU generator uses only those.

    >>> sample_seed(0, 0, 1) == sample_seed(0, 0, 1), sample_seed(0, 0, 1) == sample_seed(0, 1, 0)
    (True, False)
    """
    return _mix(_mix(_mix(seed & _MASK) ^ (epoch & _MASK)) ^ (index & _MASK)) >> 1


def order(seed: int, epoch: int, n: int) -> Tensor:
    """The order in which an epoch takes its `n` samples: an int64 permutation [n], a function of its
    arguments only.

    >>> sorted(order(0, 3, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    generator = torch.Generator().manual_seed(sample_seed(seed, epoch, -1))
    return torch.randperm(n, generator=generator)


def batches(
    seed: int, epoch: int, n: int, size: int, start: int = 0, shuffle: bool = True, drop_last: bool = False
) -> Iterator[Tensor]:
    """The batches of one epoch, as int64 index tensors, from batch number `start` (from 0) on.

    The last batch is shorter where `size` does not divide `n`; `drop_last` leaves it out. One batch that
    holds everything is in the samples' own order: shuffling it would change nothing but rounding.

    >>> [b.tolist() for b in batches(0, 0, 5, 2, start=1, shuffle=False)]
    [[2, 3], [4]]

    Raises:
        UsageError: `drop_last` would leave nothing.
    """
    if drop_last and size > n:
        raise UsageError(
            f"drop_last leaves no batch: {n} samples, batches of {size}; take at most {n} a batch"
        )
    indices = order(seed, epoch, n) if shuffle and size < n else torch.arange(n)
    stop = n - n % size if drop_last else n
    for begin in range(start * size, stop, size):
        yield indices[begin : min(begin + size, stop)]


def count(n: int, size: int, drop_last: bool = False) -> int:
    """How many batches an epoch has.

    >>> count(10, 4), count(10, 4, drop_last=True)
    (3, 2)
    """
    return n // size if drop_last else -(-n // size)


def batch_size(
    spec: int | str, n: int, bytes_per_sample: int = 0, memory: int | None = None
) -> tuple[int, str]:
    """The number of samples a step takes, and a sentence that says why.

    Args:
        spec: "full" (the whole set), a number of samples (1 is a step per sample), or "auto": the whole set
            up to 2,000 samples; above, the largest power of two from 64 to 512 that leaves a hundred steps an
            epoch; always within a quarter of the free memory.
        n: samples in the training part.
        bytes_per_sample: the size of a sample's input and target.
        memory: free memory in bytes; None asks the system.

    >>> batch_size("auto", 1500)
    (1500, 'auto: the whole set, 1500 samples, at most 2000')
    >>> batch_size(64, 50)
    (50, 'clipped: 64 asked for, the training part has only 50 samples')

    Raises:
        UsageError: `spec` is none of these.
        DataError: the set is empty.
    """
    if n < 1:
        raise DataError("the training part has no samples: give data with at least one row")
    if isinstance(spec, str) and spec.strip().isdigit():
        spec = int(spec)
    if spec == "full":
        return n, f"full: the whole set, {n} samples"
    if spec == "auto":
        return _auto(n, bytes_per_sample, free_memory() if memory is None else memory)
    if isinstance(spec, bool) or not isinstance(spec, int) or spec < 1:
        raise UsageError(f"batch={spec!r}: give 'full', 'auto' or a whole number of samples from 1")
    if spec > n:
        return n, f"clipped: {spec} asked for, the training part has only {n} samples"
    return spec, f"{spec} sample{'s' if spec > 1 else ''} a step, as asked"


def _auto(n: int, bytes_per_sample: int, memory: int) -> tuple[int, str]:
    fits = memory // 4 // max(1, bytes_per_sample * ACTIVATIONS)
    if n <= FULL_LIMIT and n <= fits:
        return n, f"auto: the whole set, {n} samples, at most {FULL_LIMIT}"
    size = SMALLEST
    while size < LARGEST and size * 2 * 100 <= n and size * 2 <= fits:
        size *= 2
    why = "the largest power of two from 64 to 512 with a hundred steps an epoch"
    if size == SMALLEST:
        why = "the smallest of the powers of two from 64 to 512"
    if size < LARGEST and size * 2 > fits:
        why = f"what fits a quarter of the {memory / 2**20:.0f} MiB of free memory"
    size = min(size, n)
    return size, f"auto: {size} of {n} samples, {why}"


def free_memory() -> int:
    """Free memory in bytes, as far as the system says; 1 GiB where it does not."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 30
