"""torch's own Datasets and DataLoaders as sources."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from ..errors import DataError, UsageError
from . import targets
from .arrays import finish, from_pair
from .batches import sample_seed
from .options import Options
from .sources import Data, Source
from .split import split

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


def _seed_streams(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def _borrowed() -> Iterator[None]:
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
        self.rows = np.arange(_length(dataset)) if rows is None else rows
        self.task = task
        self.seed = seed
        self.collate = collate
        self.classes = classes

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        rows = self.rows[indices.numpy()].tolist()
        samples = []
        with _borrowed():
            for row in rows:
                _seed_streams(sample_seed(self.seed, epoch, row))
                try:
                    samples.append(self.dataset[row])
                except Exception as error:
                    raise DataError(
                        f"sample {row} of {_name(self.dataset)}: {type(error).__name__}: {error}"
                    ) from error
        inputs, labels = _pair(self.collate(samples), _name(self.dataset))
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
        return _length(self.loader.dataset)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches (inputs, targets) of an epoch, from batch number `start` (from 0) on."""
        seed = sample_seed(self.seed, epoch, -1)
        with _borrowed():
            _seed_streams(seed)
            if self.loader.generator is not None:
                self.loader.generator.manual_seed(seed)
            iterator = iter(self.loader)
            own = _Streams()
        for number in range(self.batches):
            with _borrowed():
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


def _name(dataset: object) -> str:
    return type(dataset).__name__


def _length(dataset: Dataset[Any]) -> int:
    try:
        return len(dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        raise DataError(
            f"{_name(dataset)} has no length: give a Dataset with __len__ and __getitem__"
        ) from None


def _refuse_iterable(dataset: object) -> None:
    if isinstance(dataset, IterableDataset):
        raise DataError(
            f"{_name(dataset)} is an IterableDataset, whose samples have no numbers, so that an epoch "
            "cannot be "
            "shuffled or resumed exactly: give a Dataset with __len__ and __getitem__, or tensors"
        )


def _labels(dataset: Dataset[Any], seed: int) -> NDArray[Any]:
    """The targets of all samples: the Dataset's `targets` or `labels`, or else read one by one."""
    if isinstance(dataset, Subset):
        return np.asarray(_labels(dataset.dataset, seed)[np.asarray(dataset.indices)])
    n = _length(dataset)
    for attribute in ("targets", "labels"):
        held = getattr(dataset, attribute, None)
        if held is not None and not callable(held) and len(held) == n:
            return np.asarray(held)
    found = []
    with _borrowed():
        for row in range(n):
            _seed_streams(sample_seed(seed, 0, row))
            found.append(np.asarray(dataset[row][1]))
    return np.stack(found)


def _sample(dataset: Dataset[Any], seed: int) -> tuple[Any, Any]:
    if _length(dataset) == 0:
        raise DataError(f"{_name(dataset)} has no samples: give at least one")
    with _borrowed():
        _seed_streams(sample_seed(seed, 0, 0))
        sample = dataset[0]
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise DataError(
            f"a sample of {_name(dataset)} is {type(sample).__name__}: give pairs (input, target)"
        )
    return sample[0], sample[1]


def load_dataset(dataset: Dataset[Any], name: str, options: Options) -> Data:
    """A map-style Dataset as `Data`, its samples as they are. A TensorDataset's tensors are held whole.

    Raises:
        DataError: it is iterable, empty, or does not give pairs.
    """
    _refuse_iterable(dataset)
    other = options.validation if isinstance(options.validation, Dataset) else None
    if isinstance(dataset, TensorDataset):
        held = (
            from_pair(_tensors(other), name, keep_integers=True) if isinstance(other, TensorDataset) else None
        )
        if other is None or held is not None:
            arrays = from_pair(_tensors(dataset), name, keep_integers=True)
            return finish(arrays, options, held, standardise=options.standardise is True)
    task, plan, values, notices = _inspect(dataset, options)
    numbers = None if values is None or task == "regression" else values
    train, held_rows = split(_length(dataset), 0.0 if other else options.fraction, options.seed, numbers)
    classes = len(plan["classes"]) if "classes" in plan else None

    def source(data: Dataset[Any], rows: NDArray[np.int64] | None) -> DatasetSource:
        return DatasetSource(data, rows, task, seed=options.seed, classes=classes)

    validation: Source | None = source(dataset, held_rows) if len(held_rows) else None
    if other is not None:
        _refuse_iterable(other)
        validation = source(other, None)
    return _data(
        name,
        "dataset",
        dataset,
        source(dataset, train),
        validation,
        plan,
        options,
        notices,
        given=other is not None,
    )


def _tensors(dataset: TensorDataset) -> tuple[Tensor, Tensor]:
    if len(dataset.tensors) != 2:
        raise DataError(f"the TensorDataset has {len(dataset.tensors)} tensors: give two, inputs and targets")
    return dataset.tensors[0], dataset.tensors[1]


def load_loader(loader: DataLoader[Any], name: str, options: Options) -> Data:
    """A DataLoader as `Data`; its own batches are kept, and it cannot be split.

    Raises:
        DataError: its Dataset is iterable, empty, or does not give pairs.
        UsageError: a held-out share was asked for.
    """
    _refuse_iterable(loader.dataset)
    other = options.validation
    if isinstance(other, (int, float)) and other > 0:
        raise UsageError(
            "a DataLoader cannot be split: pass a second one as validation, or a Dataset as the data"
        )
    task, plan, _, notices = _inspect(loader.dataset, options)
    classes = len(plan["classes"]) if "classes" in plan else None
    validation: Source | None = None
    if isinstance(other, DataLoader):
        validation = LoaderSource(other, task, seed=options.seed, classes=classes)
    elif isinstance(other, Dataset):
        validation = DatasetSource(other, None, task, seed=options.seed, classes=classes)
    else:
        notices.append(
            "a DataLoader cannot be split, so nothing is held out; pass validation=another DataLoader or "
            "Dataset"
        )
    size = loader.batch_size
    notices.append(
        f"the DataLoader makes its own batches{f' of {size}' if size else ''}; a batch argument has no effect"
    )
    source = LoaderSource(loader, task, seed=options.seed, classes=classes)
    if source.batches == 0:
        raise DataError("the DataLoader gives no batch: its set is empty, or drop_last leaves nothing of it")
    return _data(name, "loader", loader.dataset, source, validation, plan, options, notices, given=True)


def _inspect(
    dataset: Dataset[Any], options: Options
) -> tuple[str, dict[str, Any], NDArray[Any] | None, list[str]]:
    """The task, the recipe's target part, the labels (None where they are not needed), and notices."""
    _, label = _sample(dataset, options.seed)
    value = np.asarray(label)
    task = options.task
    if task is None:
        task = "regression" if value.dtype.kind == "f" else "classification" if value.ndim == 0 else "custom"
    plan: dict[str, Any] = {"name": "the target", "task": task}
    if task in ("regression", "custom"):
        width = int(np.prod(value.shape, dtype=np.int64))
        plan.update(width=width, mean=[0.0] * width, std=[1.0] * width)
        return task, plan, None, []
    values = _labels(dataset, options.seed)
    if values.dtype.kind not in "iub" and not targets.whole(values):
        raise DataError(f"{_name(dataset)} gives labels of type {values.dtype}: give whole numbers from 0")
    values = values.astype(np.int64).reshape(-1)
    if values.min() < 0:
        i = int(values.argmin())
        raise DataError(
            f"sample {i} has the label {values[i]}, out of range: labels are whole numbers from 0"
        )
    names = getattr(dataset, "classes", None)
    count = len(names) if names is not None else int(values.max()) + 1
    if values.max() >= count:
        i = int(values.argmax())
        raise DataError(f"sample {i} has the label {values[i]}, out of range: the set names {count} classes")
    if count < 2:
        raise DataError(f"{_name(dataset)} has a single class: a classification needs two or more")
    if options.task is None and count == 2:
        plan["task"] = task = "binary"
    plan.update(classes=[str(c) for c in names] if names is not None else [str(k) for k in range(count)])
    plan["kind"] = "text" if names is not None else "int"
    return task, plan, values, []


def _data(
    name: str,
    kind: str,
    dataset: Dataset[Any],
    train: Source,
    validation: Source | None,
    plan: dict[str, Any],
    options: Options,
    notices: list[str],
    *,
    given: bool,
) -> Data:
    first, _ = train.batch(torch.zeros(1, dtype=torch.int64), 0)
    held = 0 if validation is None else len(validation)
    stratified = "classes" in plan and not given
    if options.standardise:
        raise UsageError(
            "standardise=True is for tensors and files; scale a Dataset's samples in the Dataset"
        )
    described = plan["name"] + (
        f" has {len(plan['classes'])} classes" if "classes" in plan else " is taken as given"
    )
    return Data(
        name=name,
        task=plan["task"],
        train=train,
        validation=validation,
        input_shape=tuple(first.shape[1:]),
        outputs=targets.outputs(plan),
        recipe={"version": 1, "kind": kind, "target": plan, "load": options.record()},
        fingerprint=_fingerprint(dataset, plan, options),
        classes=plan.get("classes"),
        summary=[
            f"{name}: {_length(dataset)} samples of shape {'×'.join(map(str, first.shape[1:]))}",
            described,
            options.describe_split(len(train), held, stratified, given=given),
            "inputs as the set gives them",
        ],
        notices=notices,
    )


def _fingerprint(dataset: Dataset[Any], plan: dict[str, Any], options: Options) -> str:
    first, label = _sample(dataset, options.seed)
    said = (_name(dataset), _length(dataset), plan, np.asarray(label).tolist(), getattr(first, "shape", None))
    return hashlib.sha256(repr((said, options.validation_text(), options.seed)).encode()).hexdigest()
