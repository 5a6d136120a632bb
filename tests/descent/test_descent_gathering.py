"""Gathered batches are those of the indices, from any start; memory that is held is not written to again."""

from __future__ import annotations

import pytest
import torch

from descend.descent import gathering
from descend.descent.gathering import Gatherer

X, Y = torch.arange(60.0).reshape(20, 3), torch.arange(20)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PIECE", 3 * 4 * 20)  # three batches of four samples of 20 bytes


@pytest.mark.parametrize("start", range(6))
def test_the_batches_of_the_indices(start: int) -> None:
    indices = torch.randperm(18)
    gatherer = Gatherer(X, Y, 4)
    assert gatherer.per_piece == 3
    for _ in range(3):
        found = [(x.clone(), y.clone()) for x, y in gatherer.batches(indices, start)]
        expected = list(indices.split(4))[start:]
        assert len(found) == len(expected)
        for (x, y), chosen in zip(found, expected, strict=True):
            assert torch.equal(x, X[chosen])
            assert torch.equal(y, chosen)


def test_a_batch_lies_in_the_same_place_whatever_the_start() -> None:
    indices = torch.randperm(20)
    offsets = [x.storage_offset() for x, _ in Gatherer(X, Y, 4).batches(indices, 0)]
    for start in range(6):
        assert [x.storage_offset() for x, _ in Gatherer(X, Y, 4).batches(indices, start)] == offsets[start:]


def test_memory_is_used_again_unless_somebody_holds_a_part_of_it() -> None:
    gatherer, indices = Gatherer(X, Y, 4), torch.arange(20)
    places = {x.untyped_storage().data_ptr() for _ in range(5) for x, _ in gatherer.batches(indices, 0)}
    assert len(places) == 2
    kept = [(x, x.clone(), y[1:2], y[1:2].clone()) for x, y in gatherer.batches(indices, 0)]
    for _ in range(4):
        for _batch in gatherer.batches(torch.randperm(20), 0):
            pass
    for x, x_then, y, y_then in kept:
        assert torch.equal(x, x_then)
        assert torch.equal(y, y_then)


def test_without_the_count_memory_is_always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_uses", None)
    gatherer, indices = Gatherer(X, Y, 4), torch.arange(20)
    kept = [x for _ in range(3) for x, _ in gatherer.batches(indices, 0)]
    assert torch.equal(torch.cat(kept), X.repeat(3, 1))
