"""Random numbers that nobody draws: each is a pure function of (seed, step, parameter, element).

The host mixes seed, step and parameter into a key, a whole number below 2**53; an element's number is a
hash of its place in memory under that key. So there is no generator to keep: a run that is resumed, or that
goes on with another number of threads or on another back end, sees the same numbers.

The key is splitmix64 (Steele, Lea and Flood 2014) over the bits of the three numbers; the hash is triple32 of
Wellons' hash-prospector (2018), with one half of the key before its first multiplication and the other before
its second. Both are published finalisers with almost no bias from any bit of the input to any of the output.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import UsageError

GOLDEN = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
WEYL = 0x9E3779B9
"""An odd constant that moves the streams of one key, and the 2**32 elements of one range, apart."""
ROUNDS = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB))
LAST = 14
UNUSED = 9
"""Bits of the 32 that a number in (0, 1) leaves, so that it and its distance from 1 are exact in float32."""

PAIR = (1, 2)
"""The streams of the two numbers that a normal one is made of; those of `uniform` are stream 0."""
TURN = 2 * math.pi

_WHOLE = 2**64 - 1
_here = threading.local()


def key(seed: float, t: float, k: float) -> float:
    """The key of a parameter's step, as a float64 that holds a whole number below 2**53.

    >>> key(0.0, 1.0, 0.0) == key(0.0, 1.0, 0.0) != key(0.0, 1.0, 1.0)
    True
    """
    return float(_mixed(_of_step(seed, t), k) >> 11)


@lru_cache(maxsize=16)
def _of_step(seed: float, t: float) -> int:
    """What the keys of all parameters have in common."""
    return _mixed(_mixed(0, seed), t)


def _mixed(mixed: int, number: float) -> int:
    mixed = ((mixed ^ int.from_bytes(struct.pack("<d", number + 0.0), "little")) + GOLDEN) & _WHOLE
    for shift, factor in MIX:
        mixed = ((mixed ^ mixed >> shift) * factor) & _WHOLE
    return mixed ^ mixed >> 31


def keys(seed: Any, t: Any, k: Any) -> Any:
    """`key` of arrays that broadcast against each other."""
    given = np.broadcast_arrays(*(np.asarray(x, np.float64) + 0.0 for x in (seed, t, k)))
    mixed = np.zeros(given[0].shape, np.uint64)
    with np.errstate(over="ignore"):
        for number in given:
            mixed = (mixed ^ np.ascontiguousarray(number).view(np.uint64).reshape(mixed.shape)) + np.uint64(
                GOLDEN
            )
            for shift, factor in MIX:
                mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
            mixed = mixed ^ mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64)


def fractions(key: float, stream: int, index: Any) -> Any:
    """A number in (0, 1) for every place in `index`, as float64: (2*j + 1) / 2**24 for a whole j."""
    low, high = int(key) & 0xFFFFFFFF, int(key) >> 32
    apart = stream * WEYL & 0xFFFFFFFF
    places = np.asarray(index, np.uint64)
    x = (places ^ np.uint64(low ^ apart) ^ (places >> np.uint64(32)) * np.uint64(WEYL)) & np.uint64(
        0xFFFFFFFF
    )
    for number, (shift, factor) in enumerate(ROUNDS):
        x = x ^ x >> np.uint64(shift)
        if number == 1:
            x = x + np.uint64(high + apart)
        x = x * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    x = x ^ x >> np.uint64(LAST)
    return ((x >> np.uint64(UNUSED)).astype(np.float64) + 0.5) * 2.0 ** (UNUSED - 32)


def gaussian(key: float, index: Any) -> Any:
    """A normally distributed number for every place in `index`, by Box and Muller 1958."""
    first, second = (fractions(key, stream, index) for stream in PAIR)
    return np.sqrt(-2 * np.log(first)) * np.cos(TURN * second)


@contextmanager
def elements(shape: tuple[int, ...]) -> Iterator[None]:
    """While a formula runs on an array of this shape: for whom its random numbers are."""
    before = getattr(_here, "shape", None)
    _here.shape = shape
    try:
        yield
    finally:
        _here.shape = before


def index() -> Any:
    """The place in memory of every element of the array that a formula runs on.

    Raises UsageError outside a formula.
    """
    shape = getattr(_here, "shape", None)
    if shape is None:
        raise UsageError("uniform() and normal() are words of a formula: write a function with p, g or u")
    return np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
