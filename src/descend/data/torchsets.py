"""Loading torch's own Datasets and DataLoaders."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from ..errors import DataError, UsageError
from . import targets
from .arrays import finish, from_pair
from .batches import sample_seed
from .options import Options
from .sampled import DatasetSource, LoaderSource, borrowed, length, seed_streams, type_name
from .sources import Data, Source
from .split import split


def _refuse_iterable(dataset: object) -> None:
    if isinstance(dataset, IterableDataset):
        raise DataError(
            f"{type_name(dataset)} is an IterableDataset, whose samples have no numbers, so that an epoch "
            "cannot be shuffled or resumed exactly: give a Dataset with __len__ and __getitem__, or tensors"
        )


def _labels(dataset: Dataset[Any], seed: int) -> NDArray[Any]:
    """The targets of all samples: the Dataset's `targets` or `labels`, or else read one by one."""
    if isinstance(dataset, Subset):
        return np.asarray(_labels(dataset.dataset, seed)[np.asarray(dataset.indices)])
    n = length(dataset)
    for attribute in ("targets", "labels"):
        held = getattr(dataset, attribute, None)
        if held is not None and not callable(held) and len(held) == n:
            return np.asarray(held)
    found = []
    with borrowed():
        for row in range(n):
            seed_streams(sample_seed(seed, 0, row))
            found.append(np.asarray(dataset[row][1]))
    return np.stack(found)


def _sample(dataset: Dataset[Any], seed: int) -> tuple[Any, Any]:
    if length(dataset) == 0:
        raise DataError(f"{type_name(dataset)} has no samples: give at least one")
    with borrowed():
        seed_streams(sample_seed(seed, 0, 0))
        sample = dataset[0]
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise DataError(
            f"a sample of {type_name(dataset)} is {type(sample).__name__}: give pairs (input, target)"
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
    train, held_rows = split(length(dataset), 0.0 if other else options.fraction, options.seed, numbers)
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
    if loader.persistent_workers:
        notices.append(
            "the DataLoader's persistent workers keep their random state between epochs: where samples are "
            "augmented at random, a resumed run differs; persistent_workers=False makes it exact"
        )
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
        raise DataError(
            f"{type_name(dataset)} gives labels of type {values.dtype}: give whole numbers from 0"
        )
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
        raise DataError(f"{type_name(dataset)} has a single class: a classification needs two or more")
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
            f"{name}: {length(dataset)} samples of shape {'×'.join(map(str, first.shape[1:]))}",
            described,
            options.describe_split(len(train), held, stratified, given=given),
            "inputs as the set gives them",
        ],
        notices=notices,
    )


def _fingerprint(dataset: Dataset[Any], plan: dict[str, Any], options: Options) -> str:
    first, label = _sample(dataset, options.seed)
    said = (
        type_name(dataset),
        length(dataset),
        plan,
        np.asarray(label).tolist(),
        getattr(first, "shape", None),
    )
    return hashlib.sha256(repr((said, options.validation_text(), options.seed)).encode()).hexdigest()
