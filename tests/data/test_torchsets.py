from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from descend.data import DatasetSource, LoaderSource, TensorSource, load
from descend.errors import DataError, UsageError

X = torch.arange(120.0).reshape(40, 3) / 60
LABELS = torch.arange(40) % 4


class Noisy(Dataset[Any]):
    """A set whose samples draw from all three global generators, as augmentations do."""

    def __init__(self, n: int = 40, labels: int = 4) -> None:
        self.n, self.count = n, labels
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self.n:
            raise IndexError(index)
        self.read.append(index)
        noise = torch.rand(3) + random.random() + float(np.random.rand())
        return X[index] + noise, index % self.count


class Regression(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return X[index], float(index)


def states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]


def test_a_samples_randomness_is_a_function_of_seed_epoch_and_index() -> None:
    data = load(Noisy(), seed=3)
    assert isinstance(data.train, DatasetSource)
    rows = torch.tensor([5, 0, 9])
    before = states()
    first, labels = data.train.batch(rows, 1)
    assert states() == before
    torch.rand(3), random.random(), np.random.rand()
    assert torch.equal(data.train.batch(rows.flip(0), 1)[0].flip(0), first)
    assert not torch.equal(data.train.batch(rows, 2)[0], first)
    assert labels.tolist() == [int(data.train.rows[i]) % 4 for i in rows]


def test_datasets_are_split_in_the_classes_proportion() -> None:
    data = load(Noisy())
    assert (data.task, data.outputs, data.input_shape, data.classes) == (
        "classification",
        4,
        (3,),
        list("0123"),
    )
    assert isinstance(data.validation, DatasetSource)
    assert (len(data.train), len(data.validation)) == (32, 8)
    assert sorted(row % 4 for row in data.validation.rows) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_targets_and_classes_of_the_set_are_used_instead_of_reading_it() -> None:
    source = Noisy()
    source.targets = [i % 4 for i in range(40)]  # type: ignore[attr-defined]
    source.classes = ["n", "e", "s", "w"]  # type: ignore[attr-defined]
    assert load(source).classes == ["n", "e", "s", "w"]
    assert set(source.read) == {0}
    assert load(Subset(source, range(20))).outputs == 4
    source.classes = ["n", "e", "s"]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"sample 3 has the label 3, out of range: the set names 3 classes"):
        load(source)


def test_two_labels_make_a_binary_task_and_floats_a_regression() -> None:
    binary = load(Noisy(labels=2))
    assert (binary.task, binary.outputs) == ("binary", 1)
    assert binary.train.batch(torch.tensor([0, 1]), 0)[1].dtype == torch.float32
    regression = load(Regression())
    inputs, targets = regression.train.batch(torch.tensor([0, 1]), 0)
    assert (regression.task, inputs.shape, targets.shape, targets.dtype) == (
        "regression",
        (2, 3),
        (2, 1),
        torch.float32,
    )


def test_a_tensor_dataset_is_held_as_tensors_and_keeps_its_integers() -> None:
    data = load(TensorDataset(X, LABELS))
    assert isinstance(data.train, TensorSource)
    tokens = load(TensorDataset(torch.arange(40).reshape(20, 2), LABELS[:20]))
    assert isinstance(tokens.train, TensorSource)
    assert tokens.train.inputs.dtype == torch.int64
    both = load(TensorDataset(X, LABELS), validation=TensorDataset(X[:10], LABELS[:10]))
    assert [len(both.train), len(both.validation or ())] == [40, 10]
    with pytest.raises(DataError, match=r"has 3 tensors: give two"):
        load(TensorDataset(X, X, LABELS))


def test_a_held_out_set_of_its_own() -> None:
    data = load(Noisy(), validation=Noisy(12))
    assert [len(data.train), len(data.validation or ())] == [40, 12]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield X[0], 0


class Unmeasured(Dataset[Any]):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return X[index], 0


class Single(Noisy):
    def __getitem__(self, index: int) -> Any:
        return X[index]


class Broken(Noisy):
    def __getitem__(self, index: int) -> Any:
        if index == 7:
            raise OSError("disk gone")
        return X[index], float(index)


class Negative(Noisy):
    def __getitem__(self, index: int) -> Any:
        return X[index], index % 3 - 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Stream(), "IterableDataset, whose samples have no numbers"),
        (DataLoader(Stream()), "IterableDataset"),
        (Unmeasured(), "has no length"),
        (Noisy(0), "has no samples"),
        (Single(), "a sample of Single is Tensor: give pairs"),
        (Noisy(labels=1), "a single class"),
        (Negative(), "sample 0 has the label -1, out of range"),
    ],
)
def test_sets_that_cannot_be_used(source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(source)


def test_a_sample_that_fails_is_named() -> None:
    data = load(Broken(), validation=0)
    with pytest.raises(DataError, match=r"sample 7 of Broken: OSError: disk gone"):
        data.train.batch(torch.tensor([6, 7]), 0)


def test_options_that_a_set_cannot_take() -> None:
    with pytest.raises(UsageError, match=r"standardise=True is for tensors and files"):
        load(Noisy(), standardise=True)
    with pytest.raises(UsageError, match=r"transform is for tensors"):
        load(Noisy(), transform=lambda x, generator: x)


@pytest.mark.parametrize("own", [False, True], ids=["global generator", "generator of its own"])
def test_a_loaders_epoch_can_be_had_again_from_any_batch(own: bool) -> None:
    loader = DataLoader(Noisy(), batch_size=6, shuffle=True, generator=torch.Generator() if own else None)
    data = load(loader, validation=0)
    source = data.train
    assert isinstance(source, LoaderSource)
    assert (source.batches, len(source)) == (7, 40)
    before = states()
    whole = list(source.epoch(1))
    assert states() == before
    for start in (0, 3, 7):
        for (x, y), (a, b) in zip(source.epoch(1, start), whole[start:], strict=True):
            torch.rand(5)
            assert torch.equal(x, a)
            assert torch.equal(y, b)
    assert not torch.equal(next(source.epoch(2))[1], whole[0][1])
    assert sorted(torch.cat([y for _, y in whole]).tolist()) == sorted(i % 4 for i in range(40))


def test_loaders_keep_their_batches_and_cannot_be_split() -> None:
    data = load(DataLoader(Noisy(), batch_size=6))
    assert data.validation is None
    assert any("nothing is held out" in n for n in data.notices)
    assert any("its own batches of 6" in n for n in data.notices)
    assert data.train.batch(torch.tensor([0]), 0)[0].shape == (1, 3)
    with pytest.raises(UsageError, match=r"a DataLoader cannot be split"):
        load(DataLoader(Noisy(), batch_size=6), validation=0.2)
    kept = DataLoader(Noisy(), batch_size=6, num_workers=1, persistent_workers=True)
    assert any("persistent workers keep their random state" in n for n in load(kept).notices)
    held = load(DataLoader(Noisy(), batch_size=6), validation=DataLoader(Noisy(10), batch_size=5)).validation
    assert isinstance(held, LoaderSource)
    assert len(list(held.epoch(0))) == 2
    with pytest.raises(DataError, match=r"drop_last leaves nothing"):
        load(DataLoader(Noisy(), batch_size=64, drop_last=True))
