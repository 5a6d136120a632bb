"""How long a thread leaves the last of another's work to it, whom `rest` plays here."""

import ctypes
from collections.abc import Callable

import pytest

from descend.kernels.cpu.compiler import c_function, compile_functions
from descend.kernels.cpu.glue import FIELDS
from descend.kernels.cpu.waiting import FEW, PATIENCE, waiting

EVERY = 256
"""Looks between two rests."""


@pytest.fixture(scope="module")
def leave():
    declared: dict[str, str] = {}
    parts = [*waiting(declared), *declared.values(), "attributes #0 = { nounwind }"]
    (address,) = compile_functions("\n".join(parts).replace("internal ", ""), ("leave",))
    return c_function(address, None, *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p))


def waited(leave: Callable[..., None], left: int, comes: Callable[[int], bool], spent: int = 0):
    """What is left after waiting, how often the processor was given away, and the patience that is spent.

    `comes` says at which of these times the other takes a batch.
    """
    taken, patience, rests = ctypes.c_int64(100 - left), ctypes.c_int64(spent), []

    @ctypes.CFUNCTYPE(ctypes.c_int)
    def rest():
        rests.append(len(rests) + 1)
        taken.value += comes(len(rests))
        return 0

    ctx = (ctypes.c_void_p * len(FIELDS))()
    ctx[FIELDS.index("rest")] = ctypes.cast(rest, ctypes.c_void_p).value
    leave(ctypes.addressof(ctx), ctypes.addressof(taken), 100, ctypes.addressof(patience))
    return 100 - taken.value, len(rests), patience.value


def test_much_is_taken_at_once_and_of_nothing_nothing_is_awaited(leave):
    for left in (FEW, 50, 0, -3):
        assert waited(leave, left, lambda k: False) == (left, 0, 0)


def test_the_last_is_left_to_who_comes_for_it(leave):
    left, rests, spent = waited(leave, FEW - 1, lambda k: True)
    assert (left, rests) == (0, FEW - 1)
    assert spent <= EVERY


def test_who_does_not_come_for_long_is_not_awaited_again(leave):
    assert waited(leave, 3, lambda k: False) == (3, PATIENCE // EVERY, PATIENCE)
    assert waited(leave, 3, lambda k: False, spent=PATIENCE) == (3, 0, PATIENCE)


def test_patience_begins_anew_with_every_batch(leave):
    late = PATIENCE // EVERY - 2
    left, rests, spent = waited(leave, 2, lambda k: k == late)
    assert (left, spent) == (1, PATIENCE)
    assert rests > late + late
