"""Tables with a target column: CSV, TSV and Parquet files, and pandas frames."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DataError, UsageError, nearest
from . import columns, targets
from .options import Options
from .sources import Data, TensorSource
from .split import split

if TYPE_CHECKING:
    import pandas as pd


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith((".csv", ".tsv", ".txt", ".pq")) or ".parquet" in name


def read(path: Path, encoding: str | None) -> tuple[pd.DataFrame, targets.Where]:
    """A table's rows, and a function that names a row in an error.

    Raises:
        DataError: the file cannot be read as a table.
        UsageError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("reading tables needs pandas and pyarrow: pip install 'descend[data]'") from None
    name = path.name.lower()
    if ".parquet" in name or name.endswith(".pq"):
        try:
            return pd.read_parquet(path), targets.plain_row
        except ImportError:
            raise UsageError("reading Parquet needs pyarrow: pip install 'descend[data]'") from None
        except Exception as error:
            raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    from .text import read_text

    frame, lines = read_text(path, encoding)
    return frame, line_namer(lines)


def line_namer(lines: array[int]) -> targets.Where:
    """Names row `i` with the line of the file it starts on."""
    return lambda i: f"row {i + 1} (line {lines[i]})"


def target_values(frame: pd.DataFrame, target: str, where: targets.Where) -> np.ndarray[Any, Any]:
    """The target column [N] as an array of numbers, booleans or text.

    Raises:
        DataError: a missing label, or text in a column of numbers.
    """
    import pandas as pd

    series = frame[target]
    missing = series.isna().to_numpy()
    if missing.any():
        i = int(np.flatnonzero(missing)[0])
        more = f" (and {int(missing.sum()) - 1} more)" if missing.sum() > 1 else ""
        raise DataError(
            f"column {target!r}, {where(i)}: the label is missing (NaN){more}; fill it in or remove the row"
        )
    if pd.api.types.is_bool_dtype(series.dtype):
        return series.to_numpy(dtype=bool)
    if pd.api.types.is_integer_dtype(series.dtype):
        return series.to_numpy(dtype=np.int64)
    if isinstance(series.dtype, pd.CategoricalDtype):
        return columns.texts(series).astype(str)
    if columns.find_type(series, target, where)[0] == "number":
        return columns.numbers(series)[0]
    return columns.texts(series).astype(str)


def target_column(frame: pd.DataFrame, target: str | None, name: str) -> str:
    """The target's name, checked.

    Raises:
        UsageError: no target was named.
        DataError: the table has no such column.
    """
    given = [str(column) for column in frame.columns]
    listed = ", ".join(given[:40]) + (", …" if len(given) > 40 else "")
    if target is None:
        raise UsageError(
            f"{name}: name the column to predict with target=… (--target); the columns are {listed}"
        )
    if target not in given:
        raise DataError(
            f"{name}: there is no column {target!r}{nearest(target, given)}; the columns are {listed}"
        )
    return target


def load_table(
    frame: pd.DataFrame,
    name: str,
    options: Options,
    *,
    where: targets.Where = targets.plain_row,
    held_out: tuple[pd.DataFrame, targets.Where] | None = None,
) -> Data:
    """A frame as `Data`: the task found, a part split off, columns encoded as fitted on the training part."""
    frame = frame.rename(columns=str).reset_index(drop=True)
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{name}: the column name {twice!r} appears twice; give each its own name")
    if len(frame) == 0:
        raise DataError(f"{name} has no rows: give at least one")
    target = target_column(frame, options.target, name)
    features = frame.drop(columns=target)
    types = columns.check_types(options.types, [str(c) for c in features.columns])
    raw = target_values(frame, target, where)
    plan, notices = targets.plan(raw, f"column {target!r}", options.task, table=True, where=where)
    if plan["task"] == "custom":
        raise UsageError("task='custom' is for tensors and Datasets; a table's target is a number or a class")
    plan["column"] = target
    numbers = targets.labels(plan, raw) if "classes" in plan else None
    fraction = 0.0 if held_out else options.fraction
    train, held = split(len(frame), fraction, options.seed, numbers)
    standardise = options.standardise is not False
    if numbers is None:
        targets.fit_scale(plan, raw[train], standardise)
    recipes, found = columns.fit(features, train, types, standardise, where)
    inputs = torch.from_numpy(columns.encode(recipes, features, where)).to(torch.get_default_dtype())
    labels = targets.tensor(plan, raw, where)
    validation = None
    if held_out:
        other, other_where = held_out
        other = other.rename(columns=str).reset_index(drop=True)
        values = target_values(other, target_column(other, target, "the held-out table"), other_where)
        validation = TensorSource(
            torch.from_numpy(columns.encode(recipes, other, other_where)).to(inputs.dtype),
            targets.tensor(plan, values, other_where),
        )
    elif len(held):
        validation = TensorSource(inputs[held], labels[held])
    held_count = 0 if validation is None else len(validation)
    names = columns.feature_names(recipes)
    used = sum(recipe["type"] != "drop" for recipe in recipes)
    return Data(
        name=name,
        task=plan["task"],
        train=TensorSource(inputs[train], labels[train], transform=options.transform, seed=options.seed),
        validation=validation,
        input_shape=(len(names),),
        outputs=targets.outputs(plan),
        recipe={
            "version": 1,
            "kind": "table",
            "columns": recipes,
            "target": plan,
            "split": {"train": len(train), "validation": held_count, "stratified": numbers is not None},
            "load": options.record(),
        },
        fingerprint=fingerprint(frame, options, None if held_out is None else held_out[0]),
        features=names,
        classes=plan.get("classes"),
        summary=[
            f"{name}: {len(frame)} rows, {used} of {len(recipes)} columns used as {len(names)} inputs",
            targets.describe(plan, labels[train]),
            options.describe_split(len(train), held_count, numbers is not None, given=held_out is not None),
            _describe_scaling(recipes, standardise),
        ],
        notices=notices + found,
    )


def _describe_scaling(recipes: list[dict[str, Any]], standardise: bool) -> str:
    kinds = [recipe["type"] for recipe in recipes]
    counted = kinds.count("number") + kinds.count("date")
    how = "standardised on the training part" if standardise else "left as they are"
    parts = [f"{counted} columns of numbers {how}"] if counted else []
    if "category" in kinds:
        parts.append(f"{kinds.count('category')} categories as columns of 0 and 1")
    return ", ".join(parts)


def fingerprint(frame: pd.DataFrame, options: Options, held_out: pd.DataFrame | None = None) -> str:
    """SHA-256 of the table's names and values, and of what decides the split."""
    import pandas as pd

    digest = hashlib.sha256(repr((options.target, options.validation_text(), options.seed)).encode())
    frames: Iterable[pd.DataFrame] = [frame] if held_out is None else [frame, held_out]
    for part in frames:
        digest.update(repr([str(c) for c in part.columns]).encode())
        digest.update(pd.util.hash_pandas_object(part, index=False).to_numpy().tobytes())
    return digest.hexdigest()
