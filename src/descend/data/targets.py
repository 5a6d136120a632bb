"""Targets: which task they ask for, and how labels and numbers become tensors and come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, UsageError

TASKS = ("regression", "binary", "classification", "custom")
TABLE_CLASSES = 20
Where = Callable[[int], str]


def plain_row(i: int) -> str:
    """The name of row `i` (from 0) in an error, counted from 1."""
    return f"row {i + 1}"


def check_task(task: str | None) -> None:
    """Raises a UsageError for a task that is not one of `TASKS`."""
    if task is not None and task not in TASKS:
        raise UsageError(f"task={task!r}: choose one of {', '.join(TASKS)}, or leave it out to have it found")


def label_text(value: Any) -> str:
    """A label's name; a float that is a whole number is written as one."""
    return (
        str(int(value))
        if isinstance(value, (float, np.floating)) and float(value).is_integer()
        else str(value)
    )


def whole(values: NDArray[Any]) -> bool:
    """Whether these numbers are all whole."""
    return values.dtype.kind in "iub" or (
        values.dtype.kind == "f" and bool(np.all(values == np.floor(values)))
    )


def find_task(values: NDArray[Any], task: str | None, *, table: bool, what: str) -> tuple[str, list[str]]:
    """The task that a target asks for, with notices where it was a judgement.

    The rule. Text and booleans are classes. Whole numbers are classes when they are just 0 and 1, or when
    each value stands for three samples or more on average and (in a table) there are at most 20 of them or
    (in an integer array) they are of an integer type. All else is a regression.
    """
    if task in ("regression", "custom"):
        return task, []
    if values.ndim > 1:
        if task is None:
            return "regression", []
        raise UsageError(f"task={task!r} needs one label a sample; the target has shape {list(values.shape)}")
    distinct = len(np.unique(values))
    if task is not None:
        if task == "binary" and distinct != 2:
            raise UsageError(f"task='binary' needs two classes; {what} has {distinct} different values")
        return task, []
    if (
        values.dtype.kind not in "iubf"
        or values.dtype.kind == "b"
        or (distinct == 2 and set(np.unique(values).tolist()) <= {0, 1, -1})
    ):
        found = "classes"
    elif whole(values) and len(values) >= 3 * distinct and (table or values.dtype.kind in "iu"):
        found = "classes" if distinct <= TABLE_CLASSES or not table else "numbers"
    else:
        found = "numbers"
    if found == "numbers":
        return "regression", []
    notices = []
    if values.dtype.kind in "iuf" and distinct > 2:
        notices.append(
            f"{what} holds {distinct} different whole numbers, taken as classes; task='regression' takes "
            "them as numbers"
        )
    return ("binary" if distinct == 2 else "classification"), notices


def plan(
    values: NDArray[Any], name: str, task: str | None, *, table: bool, where: Where = plain_row
) -> tuple[dict[str, Any], list[str]]:
    """How a target becomes tensors: the recipe's "target" part, without scale, and notices.

    Args:
        values: [N] or [N, K], without missing values.
        name: what the target is called in errors.
        task: the task, or None to find it.
        table: whether the values are a table's column, whose number types mean little.
        where: names a row in errors.

    Raises:
        DataError: infinite or missing targets, a single class, labels below 0.
    """
    if values.dtype.kind == "c":
        raise DataError(f"{name} is complex: give real numbers or class labels")
    if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
        i = int(np.argwhere(~np.isfinite(values))[0][0])
        raise DataError(f"{name}, {where(i)}: the target is {values[i]}; remove the row or fill the value in")
    found, notices = find_task(values, task, table=table, what=name)
    recipe: dict[str, Any] = {"name": name, "task": found}
    if found in ("regression", "custom"):
        if found == "regression" and values.dtype.kind not in "iubf":
            raise DataError(
                f"{name} holds text, for which task='regression' has no use; leave task out to have classes"
            )
        recipe["width"] = 1 if values.ndim == 1 else int(values.shape[1])
        return recipe, notices
    distinct = np.unique(values)
    if (
        task is None
        and values.dtype.kind not in "iubf"
        and len(distinct) > 20
        and len(distinct) > len(values) / 2
    ):
        raise DataError(
            f"{name} is text with {len(distinct)} different values in {len(values)} rows, too many classes: "
            "name another target, or pass task='classification' to take them so"
        )
    if len(distinct) < 2:
        raise DataError(
            f"{name} has a single class, {label_text(distinct[0])!r}: a classification needs two or more; "
            "for numbers pass task='regression'"
        )
    kind = {"b": "bool", "i": "int", "u": "int", "f": "int" if whole(distinct) else "float"}.get(
        values.dtype.kind, "text"
    )
    if kind == "int":
        notices += _check_whole_labels(values, distinct, name, where)
    recipe.update(classes=[label_text(v) for v in distinct.tolist()], kind=kind)
    return recipe, notices


def _check_whole_labels(values: NDArray[Any], distinct: NDArray[Any], name: str, where: Where) -> list[str]:
    """Notices for labels that are not 0 … C-1; an error for labels below 0, unless they are -1 and 1."""
    labels = [int(v) for v in distinct]
    if labels == list(range(len(labels))):
        return []
    if labels[0] < 0 and labels != [-1, 1]:
        i = int(np.flatnonzero(values == distinct[0])[0])
        raise DataError(
            f"{name}, {where(i)}: label {labels[0]} is out of range; labels are whole numbers from 0 "
            "(or -1 and 1, or text); task='regression' takes them as numbers"
        )
    listed = ", ".join(f"{v} → {k}" for k, v in enumerate(labels[:5])) + (", …" if len(labels) > 5 else "")
    return [f"the labels of {name} are not 0 to {len(labels) - 1}; they were numbered anew: {listed}"]


def labels(recipe: dict[str, Any], values: NDArray[Any], where: Where = plain_row) -> NDArray[np.int64]:
    """Class numbers [N] of labels, by the recipe's list of classes.

    Raises:
        DataError: a label that the recipe does not know, with its row.
    """
    number = {c: k for k, c in enumerate(recipe["classes"])}
    distinct, inverse = np.unique(values, return_inverse=True)
    known = np.array([number.get(label_text(v), -1) for v in distinct.tolist()], dtype=np.int64)
    found = known[inverse.reshape(-1)]
    if (found < 0).any():
        i = int(np.flatnonzero(found < 0)[0])
        raise DataError(
            f"{recipe['name']}, {where(i)}: {label_text(values[i])!r} is not one of the classes "
            f"{', '.join(recipe['classes'][:20])}"
        )
    return found


def fit_scale(recipe: dict[str, Any], values: NDArray[Any], standardise: bool) -> None:
    """Adds the mean and deviation of the training part's targets [n, K] to a regression's recipe."""
    width = recipe["width"]
    numbers = values.reshape(len(values), width).astype(np.float64)
    std = numbers.std(axis=0)
    recipe["mean"] = numbers.mean(axis=0).tolist() if standardise else [0.0] * width
    recipe["std"] = np.where(std > 0, std, 1.0).tolist() if standardise else [1.0] * width


def tensor(recipe: dict[str, Any], values: NDArray[Any], where: Where = plain_row) -> Tensor:
    """Targets as a tensor in the form of their task; see `Data`."""
    dtype = torch.get_default_dtype()
    if recipe["task"] == "custom":
        return torch.from_numpy(np.ascontiguousarray(values))
    if recipe["task"] == "regression":
        numbers = values.reshape(len(values), recipe["width"]).astype(np.float64)
        scaled = (numbers - np.array(recipe["mean"])) / np.array(recipe["std"])
        return torch.from_numpy(scaled).to(dtype)
    classes = torch.from_numpy(labels(recipe, values, where))
    return classes.to(dtype) if recipe["task"] == "binary" else classes


def outputs(recipe: dict[str, Any]) -> int:
    """How many numbers a model gives for a sample: one for two classes, else one a class or column."""
    if recipe["task"] == "classification":
        return len(recipe["classes"])
    return 1 if recipe["task"] == "binary" else int(recipe["width"])


def describe(recipe: dict[str, Any], train: Tensor) -> str:
    """A sentence about the target, with the share of each class in the training part."""
    name = recipe["name"]
    if recipe["task"] == "custom":
        return f"{name} is left as given, for a loss of one's own"
    if recipe["task"] == "regression":
        spread = ", ".join(
            f"{m:.4g} ± {s:.4g}" for m, s in zip(recipe["mean"][:4], recipe["std"][:4], strict=True)
        )
        scaled = any(s != 1 for s in recipe["std"]) or any(recipe["mean"])
        return f"{name} is a number: regression" + (f", standardised ({spread})" if scaled else "")
    counts = torch.bincount(train.to(torch.int64).reshape(-1), minlength=len(recipe["classes"])).tolist()
    shown = [f"{c} ({k})" for c, k in zip(recipe["classes"][:10], counts, strict=False)]
    return f"{name} has {len(counts)} classes: " + ", ".join(shown) + (", …" if len(counts) > 10 else "")
