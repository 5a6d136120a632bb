"""How long a thread leaves the last of another's work to it, who is played by the pause between two looks."""

import ctypes
from collections.abc import Callable

import pytest

from descend.kernels.cpu import waiting
from descend.kernels.cpu.compiler import c_function, compile_functions
from descend.kernels.cpu.glue import FIELDS
from descend.kernels.cpu.waiting import FEW, PATIENCE

LANES = 3


@pytest.fixture
def waited(monkeypatch) -> Callable[..., tuple[int, int, int]]:
    """What is left of a lane after waiting, the looks that were taken, and the patience that is spent.

    `comes` says after which looks someone takes a batch.
    """
    looks: list[int] = []
    taken, patience = ctypes.c_int64(), ctypes.c_int64()
    comes = [lambda look: False]

    @ctypes.CFUNCTYPE(None)
    def pause():
        looks.append(len(looks) + 1)
        taken.value += comes[0](len(looks))

    place = ctypes.cast(pause, ctypes.c_void_p).value
    monkeypatch.setattr(waiting, "pause", lambda: (f"call void inttoptr (i64 {place} to ptr)()", ""))
    parts = [*waiting.waiting(declared := {}), *declared.values(), "attributes #0 = { nounwind }"]
    (address,) = compile_functions("\n".join(parts).replace("internal ", ""), ("leave",))
    leave = c_function(address, None, *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p))

    def run(left: int, by: Callable[[int], bool], spent: int = 0, arrived: int = LANES):
        looks.clear()
        comes[0], taken.value, patience.value = by, 100 - left, spent
        ctx = (ctypes.c_int64 * len(FIELDS))()
        ctx[FIELDS.index("lanes")], ctx[FIELDS.index("arrived")] = LANES, arrived
        leave(ctypes.addressof(ctx), ctypes.addressof(taken), 100, ctypes.addressof(patience))
        return 100 - taken.value, len(looks), patience.value

    return run


def nobody(look: int) -> bool:
    return False


def test_much_is_taken_at_once_and_of_nothing_nothing_is_awaited(waited):
    for left in (FEW, 50, 0, -3):
        assert waited(left, nobody) == (left, 0, 0)


def test_the_last_is_left_to_who_comes_for_it(waited):
    left, looks, spent = waited(FEW - 1, lambda look: look % 100 == 0)
    assert (left, looks) == (0, 100 * (FEW - 1))
    assert spent <= 100


def test_who_does_not_come_for_long_is_not_awaited_again(waited):
    assert waited(3, nobody) == (3, PATIENCE, PATIENCE)
    assert waited(3, nobody, spent=PATIENCE) == (3, 0, PATIENCE)


def test_who_has_not_come_to_the_launch_is_not_awaited(waited):
    assert waited(3, nobody, arrived=LANES - 1) == (3, 0, 0)


def test_patience_begins_anew_with_every_batch(waited):
    left, looks, spent = waited(2, lambda look: look == PATIENCE - 1)
    assert (left, spent) == (1, PATIENCE)
    assert looks == 2 * PATIENCE
