"""`load`: from whatever holds samples to `Data`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError, UsageError, nearest
from . import arrays, images, named, tables
from .options import Options
from .sources import Data, Transform
from .targets import check_task, plain_row

KINDS = "a .csv, .tsv, .parquet or .npz file, IDX image files, or a folder of images with a folder per class"


def load(
    source: Any,
    *,
    target: str | None = None,
    validation: Any = None,
    seed: int = 0,
    encoding: str | None = None,
    task: str | None = None,
    standardise: bool | None = None,
    types: dict[str, str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    transform: Transform | None = None,
    name: str | None = None,
) -> Data:
    """Reads, checks, splits and encodes data for a descent.

    Args:
        source: a path (.csv, .tsv, .parquet, .npz, IDX images, a folder of images), a name
            (`descend.data.names()`), a pair (X, y) of tensors or arrays, a pandas frame, a torch Dataset or
            DataLoader; `Data` is given back.
        target: for tables, the column to predict.
        validation: the share to hold out, from 0 to below 1, or a second source of the same kind. None: the
            held-out part that the data bring along (MNIST's, an .npz with X_test), else 0.2.
        seed: decides the split and the samples' randomness.
        encoding: of a text file; UTF-8 unless said, with or without a byte-order mark.
        task: "regression", "binary", "classification" or "custom"; found from the target unless said.
        standardise: whether inputs (and the numbers of a regression's target) are standardised on the
            training part. None: yes for files, frames and names; no for tensors and arrays, which are taken
            as they are.
        types: for tables, {"column": "number" | "category" | "date" | "drop"}, where the type found is not
            right.
        image_size: for image folders, (height, width) or one number for both.
        transform: augmentation of training samples, `transform(x, generator) -> x`; the generator of a sample
            is seeded from (seed, epoch, index).
        name: what to call the data in reports.

    Raises:
        UsageError: an argument that is not allowed.
        DataError: data that cannot be read or trained on.

    >>> import torch
    >>> data = load((torch.rand(100, 3), torch.rand(100)))
    >>> data.task, len(data.train), len(data.validation), data.input_shape, data.outputs
    ('regression', 80, 20, (3,), 1)
    """
    if isinstance(source, Data):
        return source
    check_task(task)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"seed={seed!r}: give a whole number")
    validation = _number(validation)
    text = str(source) if isinstance(source, (str, os.PathLike)) else None
    if text is not None and text not in named.names():
        text = os.path.abspath(text)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise UsageError(f"image_size={image_size!r}: give (height, width) or one number, from 1")
    size = None if size is None else (int(size[0]), int(size[1]))
    options = Options(text, target, validation, seed, encoding, task, standardise, types, size, transform)
    data = _load(source, name, options)
    if transform is not None and not getattr(data.train, "transform", None):
        raise UsageError(
            "transform is for tensors, arrays and files; a Dataset transforms its samples itself"
        )
    return data


def _number(validation: Any) -> Any:
    """A held-out share that came as text, as a number; anything else as it is."""
    try:
        return float(validation) if isinstance(validation, str) else validation
    except ValueError:
        return validation


def reload(recipe: dict[str, Any]) -> Data:
    """The data that a recipe was made from, loaded and split the same way again.

    Raises:
        DataError: they came from memory, not from a file or a name.
    """
    asked = dict(recipe["load"])
    source = asked.pop("source")
    if source is None or asked["validation"] == "given":
        raise DataError(
            "these data were given in memory: give the same tensors, frame, Dataset or DataLoader again"
        )
    if asked["image_size"]:
        asked["image_size"] = tuple(asked["image_size"])
    return load(source, **asked)


def _load(source: Any, name: str | None, options: Options) -> Data:
    if isinstance(source, (str, os.PathLike)):
        return _from_path(str(source), name, options)
    if isinstance(source, DataLoader):
        from .torchsets import load_loader

        return load_loader(source, name or type(source.dataset).__name__, options)
    if isinstance(source, Dataset):
        from .torchsets import load_dataset

        return load_dataset(source, name or type(source).__name__, options)
    if type(source).__module__.partition(".")[0] == "pandas":
        return _from_frame(source, name or "the frame", options)
    if isinstance(source, (tuple, list)) and len(source) == 2:
        return _from_pair(
            source, name or "tensors" if isinstance(source[0], Tensor) else name or "arrays", options
        )
    given = f"a {type(source).__name__}" + (
        f" of {len(source)}" if isinstance(source, (tuple, list, dict)) else ""
    )
    raise UsageError(
        f"{given} cannot be loaded: give {KINDS}, a name ({', '.join(named.names())}), "
        "a pair (X, y), a pandas frame, a Dataset or a DataLoader"
    )


def _from_pair(source: Any, name: str, options: Options) -> Data:
    pair = arrays.from_pair((source[0], source[1]), name)
    other = options.validation
    held_out = None
    if isinstance(other, (tuple, list)) and len(other) == 2:
        held_out = arrays.from_pair((other[0], other[1]), f"{name} (held out)")
    return arrays.finish(pair, options, held_out, standardise=options.standardise is True)


def _from_frame(source: Any, name: str, options: Options) -> Data:
    import pandas as pd

    if not isinstance(source, pd.DataFrame):
        raise UsageError(f"a pandas {type(source).__name__} cannot be loaded: give a DataFrame and target=…")
    other = options.validation
    held_out = (other, plain_row) if isinstance(other, pd.DataFrame) else None
    return tables.load_table(source, name, options, held_out=held_out)


def _from_path(text: str, name: str | None, options: Options) -> Data:
    if text in named.names():
        return named.load_named(text, options)
    path = Path(text)
    if not path.exists():
        known = named.names()
        hint = nearest(text, known)
        if path.suffix and path.parent.is_dir():
            hint = hint or nearest(path.name, [p.name for p in path.parent.iterdir()])
        raise DataError(
            f"{text} is neither a file nor a name{hint}; give {KINDS}, or one of {', '.join(known)}"
        )
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{text} is empty: give {KINDS}")
    name = name or path.name
    yes = options.standardise is not False
    other = Path(options.validation) if isinstance(options.validation, (str, os.PathLike)) else None
    if path.is_file() and tables.is_table(path):
        frame, where = tables.read(path, options.encoding)
        held_out = tables.read(other, options.encoding) if other else None
        return tables.load_table(frame, name, options, where=where, held_out=held_out)
    part, held_out_arrays = _arrays_of(path, name, options)
    if other is not None:
        held_out_arrays = _arrays_of(other, f"{name} (held out)", options)[0]
    return arrays.finish(part, options, held_out_arrays, standardise=yes)


def _arrays_of(path: Path, name: str, options: Options) -> tuple[arrays.Arrays, arrays.Arrays | None]:
    whole = not options.own_split
    if path.suffix.lower() == ".npz":
        train, held_out = arrays.read_npz(path, name)
        return train, None if whole else held_out
    if (path.is_file() and images.is_idx(path)) or (path.is_dir() and images.has_idx(path)):
        return images.load_idx(path, name, whole=whole)
    if path.is_dir() and images.has_class_folders(path):
        return images.load_folder(path, name, options.image_size, whole=whole)
    what = (
        "is a folder without images"
        if path.is_dir()
        else f"has an ending that is not known ({path.suffix or 'none'})"
    )
    raise DataError(f"{path} {what}: give {KINDS}")
