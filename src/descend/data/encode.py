"""New rows in, predictions out, by the recipe that a run recorded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, UsageError
from . import arrays, columns, images, tables, targets


def encode(recipe: dict[str, Any], source: Any, *, encoding: str | None = None) -> Tensor:
    """The inputs [N, ...] of new rows, encoded as the training part was.

    Args:
        recipe: `Data.recipe`.
        source: for a table a file or a frame (columns it does not know are passed over); for arrays and
            images an array, a tensor, an .npz file, a table of as many columns, image files or a folder of
            them.
        encoding: of a text file, where it is not that of the training file.

    Raises:
        DataError: a column is missing, a value does not fit its column, or the shape is another.
    """
    kind = recipe["kind"]
    if kind == "table":
        frame, where = _frame(recipe, source, encoding)
        encoded = columns.encode(recipe["columns"], frame, where)
        return torch.from_numpy(encoded).to(torch.get_default_dtype())
    if kind not in ("arrays", "images"):
        raise UsageError(
            f"rows cannot be encoded by a recipe of kind {kind!r}: give the model tensors yourself"
        )
    inputs = _inputs(recipe, source, encoding)
    shape = tuple(recipe["shape"])
    if tuple(inputs.shape[1:]) != shape:
        if inputs[0].numel() != int(np.prod(shape)):
            raise DataError(
                f"the rows have the shape {list(inputs.shape[1:])}; the model was trained on {list(shape)}"
            )
        inputs = inputs.reshape(-1, *shape)
    return arrays.apply_scale(inputs, recipe["scale"])


def _frame(recipe: dict[str, Any], source: Any, encoding: str | None) -> tuple[Any, targets.Where]:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise DataError(f"{path} does not exist: give a table with the columns of the training data")
        return tables.read(path, encoding or recipe["load"]["encoding"])
    import pandas as pd

    if isinstance(source, dict):
        source = pd.DataFrame(source)
    if not isinstance(source, pd.DataFrame):
        raise DataError(
            f"the model was trained on a table: give a file or a frame, not {type(source).__name__}"
        )
    return source.rename(columns=str).reset_index(drop=True), targets.plain_row


def _inputs(recipe: dict[str, Any], source: Any, encoding: str | None) -> Tensor:
    if not isinstance(source, (str, os.PathLike)):
        if isinstance(source, tuple) and len(source) == 2:
            source = source[0]
        return arrays.as_inputs(source)[0]
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path} does not exist: give a file or folder of new samples")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            first = next(
                (n for n in ("X", "x", "inputs", "data", "images", *file.files) if n in file.files), None
            )
            if first is None:
                raise DataError(f"{path} holds no arrays")
            return arrays.as_inputs(file[first])[0]
    if path.suffix == ".npy":
        return arrays.as_inputs(np.load(path, allow_pickle=False))[0]
    if tables.is_table(path):
        frame, _ = tables.read(path, encoding)
        names = recipe["features"]
        if names and set(names) <= set(map(str, frame.columns)):
            frame = frame[names]
        return arrays.as_inputs(frame.to_numpy())[0]
    return images.read_new(path, recipe)


def probabilities(recipe: dict[str, Any], outputs: Tensor) -> NDArray[np.float64]:
    """The probability of each class, [N, classes], from a model's outputs.

    >>> probabilities({"target": {"task": "binary"}}, torch.zeros(1, 1)).tolist()
    [[0.5, 0.5]]

    Raises:
        UsageError: the task has no classes.
    """
    task = recipe["target"]["task"]
    wide = outputs.detach().cpu().double()
    if task == "classification":
        return np.asarray(wide.softmax(dim=1).numpy())
    if task != "binary":
        raise UsageError(f"probabilities are for classes; the task is {task!r}")
    one = wide.reshape(-1).sigmoid()
    return np.asarray(torch.stack([1 - one, one], dim=1).numpy())


def decode(recipe: dict[str, Any], outputs: Tensor) -> NDArray[Any]:
    """Predictions from a model's outputs: labels [N] as they stood in the data, or numbers in their own unit.

    >>> target = {"task": "binary", "classes": ["no", "yes"], "kind": "text"}
    >>> decode({"target": target}, torch.tensor([[1.5], [-2.0]]))
    array(['yes', 'no'], dtype='<U3')
    """
    target = recipe["target"]
    if target["task"] == "custom":
        return np.asarray(outputs.detach().cpu().numpy())
    if target["task"] == "regression":
        wide = np.asarray(outputs.detach().cpu().double().reshape(len(outputs), -1).numpy())
        numbers: NDArray[np.float64] = wide * np.array(target["std"]) + np.array(target["mean"])
        return numbers.reshape(-1) if target["width"] == 1 else numbers
    chosen = probabilities(recipe, outputs).argmax(axis=1)
    kind = target["kind"]
    names: list[Any] = target["classes"]
    if kind in ("int", "float"):
        names = [(int if kind == "int" else float)(name) for name in names]
    elif kind == "bool":
        names = [name == "True" for name in names]
    return np.asarray(np.array(names)[chosen])
