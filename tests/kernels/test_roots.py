"""Roots made of multiplications are the correctly rounded ones, every one of them."""

import numpy as np
import pytest
import torch

import descend
from descend.formula.vocabulary import sqrt
from descend.kernels.cpu import sweep


@pytest.fixture(autouse=True)
def made_of_multiplications(monkeypatch):
    """Also where the divider is quick; a machine without AVX-512 has only the divider."""
    monkeypatch.setattr(sweep, "divider_is_slow", lambda: True)


def root(p, g):
    p = sqrt(g)
    return p


def ours(numbers):
    p = torch.zeros(len(numbers), requires_grad=True)
    p.grad = torch.from_numpy(numbers)
    optimizer = descend.optimizer(root)([p])
    optimizer.step()
    assert "back end: cpu" in repr(optimizer)
    return p.detach().numpy()


def same_bits(found, wanted):
    both = np.isnan(found) & np.isnan(wanted)
    return bool(((found.view(np.int32) == wanted.view(np.int32)) | both).all())


def test_every_fraction_with_an_odd_and_an_even_exponent():
    one, four = np.array([1, 4], np.float32).view(np.int32)
    numbers = np.arange(one, four, dtype=np.int32).view(np.float32)
    assert same_bits(ours(numbers), np.sqrt(numbers))


def test_every_exponent_beside_zeros():
    random = np.random.default_rng(0)
    numbers = random.integers(0, 0x7F800000, 1 << 20, dtype=np.int32)
    numbers[::7] = 0
    numbers = numbers.view(np.float32)
    assert same_bits(ours(numbers), np.sqrt(numbers))


@pytest.mark.parametrize("place", [0, 5, 15, 16, 20])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_no_usual_number_is_left_to_the_divider(place):
    tiny = np.float32(2.0**-78)
    edge = [tiny, np.nextafter(tiny, np.float32(0)), np.float32(2.0**127), np.finfo(np.float32).max]
    for number in [0.0, -0.0, 1e-45, 1e-38, np.inf, -np.inf, np.nan, -1.0, *edge]:
        numbers = np.full(21, 2.0, np.float32)  # a whole vector and a part of one
        numbers[place] = number
        assert same_bits(ours(numbers), np.sqrt(numbers))
