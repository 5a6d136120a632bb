from __future__ import annotations

import numpy as np
import pytest

from descend.data.split import check_fraction, split
from descend.errors import DataError, UsageError


def test_the_parts_are_disjoint_seeded_and_cover_everything() -> None:
    train, held = split(100, 0.2, seed=5)
    assert (len(train), len(held)) == (80, 20)
    assert sorted([*train, *held]) == list(range(100))
    assert np.array_equal(split(100, 0.2, seed=5)[1], held)
    assert not np.array_equal(split(100, 0.2, seed=6)[1], held)


@pytest.mark.parametrize("sizes", [[50, 50], [90, 10], [97, 2, 1], [33, 33, 34], [5] * 20])
def test_each_class_is_split_in_the_same_proportion(sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    _, held = split(len(labels), 0.2, seed=0, labels=labels)
    taken = np.bincount(labels[held], minlength=len(sizes))
    assert taken.sum() == 20
    assert all(abs(k - 0.2 * size) <= 1 for k, size in zip(taken, sizes, strict=True))
    assert all(k < size for k, size in zip(taken, sizes, strict=True))


def test_a_class_with_one_member_is_learnt_from() -> None:
    labels = np.array([0] * 6 + [1, 2])
    for seed in range(20):
        train, held = split(8, 0.5, seed, labels)
        assert {6, 7} <= set(train.tolist())
        assert len(held) == 4


def test_two_samples_give_one_to_each_part_and_none_is_held_out_when_not_asked() -> None:
    assert [len(part) for part in split(2, 0.01, 0)] == [1, 1]
    assert [len(part) for part in split(2, 0.99, 0)] == [1, 1]
    assert [len(part) for part in split(7, 0.0, 0)] == [7, 0]
    assert [len(part) for part in split(1, 0.0, 0)] == [1, 0]


def test_too_few_samples() -> None:
    with pytest.raises(DataError, match=r"no samples"):
        split(0, 0.2, 0)
    with pytest.raises(DataError, match=r"single sample, which cannot be split.*validation=0"):
        split(1, 0.2, 0)


@pytest.mark.parametrize("share", [1, 1.0, -0.1, float("nan"), "much", None, True])
def test_a_share_outside_its_range_is_refused(share: object) -> None:
    with pytest.raises(UsageError, match=r"from 0 .none. to below 1"):
        check_fraction(share)
