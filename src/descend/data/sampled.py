"""Sources over torch's own Datasets and DataLoaders, their randomness made a function of seed and number."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..errors import DataError
from .batches import sample_seed

Collate = Callable[[list[Any]], Any]


class _Streams:
    """The states of Python's, NumPy's and torch's global generators, to take and put back."""

    def __init__(self) -> None:
        self.python = random.getstate()
        self.numpy = np.random.get_state()
        self.torch = torch.get_rng_state()

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)


def seed_streams(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def borrowed() -> Iterator[None]:
    """The global generators are left as they were found."""
    before = _Streams()
    try:
        yield
    finally:
        before.restore()


def _pair(batch: Any, what: str) -> tuple[Tensor, Tensor]:
    if (
        isinstance(batch, (tuple, list))
        and len(batch) == 2
        and all(isinstance(part, Tensor) for part in batch)
    ):
        return batch[0], batch[1]
    parts = (
        [type(part).__name__ for part in batch] if isinstance(batch, (tuple, list)) else type(batch).__name__
    )
    raise DataError(f"{what} gives {parts}: give pairs (input, target) that collate to two tensors")


class DatasetSource:
    """A map-style Dataset, or the part `rows` of one, collated by `collate`.

    Before a sample is read, Python's, NumPy's and torch's generators are seeded from (seed, epoch, index) and
    afterwards put back: so a Dataset's random augmentation is a pure function of those three.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        rows: NDArray[np.int64] | None,
        task: str,
        *,
        seed: int = 0,
        collate: Collate = default_collate,
        classes: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.rows = np.arange(length(dataset)) if rows is None else rows
        self.task = task
        self.seed = seed
        self.collate = collate
        self.classes = classes

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        rows = self.rows[indices.numpy()].tolist()
        samples = []
        with borrowed():
            for row in rows:
                seed_streams(sample_seed(self.seed, epoch, row))
                try:
                    samples.append(self.dataset[row])
                except Exception as error:
                    raise DataError(
                        f"sample {row} of {type_name(self.dataset)}: {type(error).__name__}: {error}"
                    ) from error
        inputs, labels = _pair(self.collate(samples), type_name(self.dataset))
        return inputs, shape_targets(labels, self.task, self.classes, rows)


def shape_targets(labels: Tensor, task: str, classes: int | None, rows: list[int] | None = None) -> Tensor:
    """A batch's targets in the form of their task (see `Data`).

    Raises:
        DataError: a label outside 0 … classes-1.
    """
    if task == "custom":
        return labels
    dtype = torch.get_default_dtype()
    if task == "regression":
        return labels.to(dtype).reshape(len(labels), -1)
    flat = labels.reshape(len(labels)).to(torch.int64)
    if classes is not None and len(flat) and (int(flat.min()) < 0 or int(flat.max()) >= classes):
        k = int(torch.nonzero((flat < 0) | (flat >= classes))[0])
        which = f"sample {rows[k]}" if rows else "a sample"
        raise DataError(
            f"{which} has the label {int(flat[k])}, out of range: there are {classes} classes, 0 to "
            f"{classes - 1}"
        )
    return flat.to(dtype) if task == "binary" else flat


class LoaderSource:
    """A DataLoader, which batches by itself: `epoch(e)` gives the batches of an epoch.

    An epoch's randomness (shuffling, augmentation, workers' seeds) is drawn from generators seeded from
    (seed, epoch) and kept apart from the global ones, so an epoch can be had again; starting within one
    replays the batches before it.
    """

    def __init__(
        self, loader: DataLoader[Any], task: str, *, seed: int = 0, classes: int | None = None
    ) -> None:
        self.loader = loader
        self.task = task
        self.seed = seed
        self.classes = classes
        self.batches = len(loader)

    def __len__(self) -> int:
        return length(self.loader.dataset)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches (inputs, targets) of an epoch, from batch number `start` (from 0) on."""
        seed = sample_seed(self.seed, epoch, -1)
        with borrowed():
            seed_streams(seed)
            if self.loader.generator is not None:
                self.loader.generator.manual_seed(seed)
            iterator = iter(self.loader)
            own = _Streams()
        for number in range(self.batches):
            with borrowed():
                own.restore()
                batch = next(iterator, None)
                own = _Streams()
            if batch is None:
                return
            if number >= start:
                inputs, labels = _pair(batch, "the DataLoader")
                yield inputs, shape_targets(labels, self.task, self.classes)

    def batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Samples by number, past the loader's own order; for looking at a few of them."""
        source = DatasetSource(
            self.loader.dataset,
            None,
            self.task,
            seed=self.seed,
            collate=self.loader.collate_fn,
            classes=self.classes,
        )
        return source.batch(indices, epoch)


def type_name(dataset: object) -> str:
    return type(dataset).__name__


def length(dataset: Dataset[Any]) -> int:
    try:
        return len(dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        raise DataError(
            f"{type_name(dataset)} has no length: give a Dataset with __len__ and __getitem__"
        ) from None
