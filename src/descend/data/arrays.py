"""Arrays and tensors: checked, cast by stated rules, split, scaled where that is asked for."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, nearest
from . import targets
from .options import Options
from .sources import Data, TensorSource
from .split import split

PAIRS = (
    ("X", "y"),
    ("x", "y"),
    ("inputs", "targets"),
    ("data", "target"),
    ("data", "labels"),
    ("images", "labels"),
)
HELD_OUT_PAIRS = (("X_val", "y_val"), ("X_test", "y_test"), ("x_val", "y_val"), ("x_test", "y_test"))
TRAIN_PAIRS = (("X_train", "y_train"), ("x_train", "y_train"), *PAIRS)


@dataclass
class Arrays:
    """Samples before the split: inputs [N, ...] and targets [N] or [N, K]."""

    name: str
    kind: str
    inputs: Tensor
    targets: NDArray[Any]
    target_name: str = "the target"
    features: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def as_inputs(value: Any, what: str = "the inputs", keep_integers: bool = False) -> tuple[Tensor, list[str]]:
    """Inputs as a float tensor [N, ...] of torch's default type, with a notice for each conversion.

    The rule: floats of another width, integers and booleans are converted; a column [N] becomes [N, 1];
    objects are converted where each is a number. Complex numbers, text, NaN and infinities are errors.

    Raises:
        DataError: the inputs cannot be used; the message names the first place.
    """
    notices: list[str] = []
    if isinstance(value, Tensor):
        tensor = value.detach()
    else:
        array = _as_array(value, what)
        if array.dtype.kind == "O":
            array = _from_objects(array, what)
            notices.append(f"{what} were Python objects: converted to numbers")
        if array.dtype.kind not in "iubfc":
            raise DataError(
                f"{what} are of type {array.dtype}: give numbers; for text columns give a table with names"
            )
        tensor = torch.from_numpy(np.require(_native(array), requirements=["C", "W"]))
    if tensor.is_complex():
        raise DataError(f"{what} are complex ({tensor.dtype}): split them into real and imaginary columns")
    if tensor.dim() == 0:
        raise DataError(f"{what} are a single number: give [samples, features]")
    if tensor.dim() == 1:
        tensor = tensor[:, None]
    if keep_integers and not tensor.is_floating_point():
        return tensor, notices
    default = torch.get_default_dtype()
    if tensor.dtype != default:
        notices.append(f"{what} were {_short(tensor.dtype)}: converted to {_short(default)}")
        tensor = tensor.to(default)
    if tensor.numel() and not bool(torch.isfinite(tensor).all()):
        place = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
        where = f"row {place[0] + 1}" + "".join(
            f", {word} {k + 1}" for word, k in zip(("column",), place[1:], strict=False)
        )
        raise DataError(
            f"{what}, {where}: the value is {tensor[tuple(place)].item()}; fill it in or remove the row"
        )
    return tensor, notices


def as_targets(value: Any, what: str = "the target") -> NDArray[Any]:
    """Targets as an array [N] or [N, K]; N×1 labels of integers, booleans or text become [N]."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    else:
        array = _as_array(value, what)
    if array.dtype.kind == "O":
        if all(isinstance(v, (str, np.str_)) for v in array.flat):
            array = array.astype(str)
        else:
            array = _from_objects(array, what)
    if array.ndim == 0:
        raise DataError(f"{what} is a single value: give one a sample")
    if array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind not in "fc":
        array = array[:, 0]
    return _native(array)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """In this machine's byte order, and of an integer type torch has."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    wide = {"u2": np.int32, "u4": np.int64, "u8": np.int64, "f16": np.float64}.get(array.dtype.str[1:])
    return array.astype(wide) if wide else array


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _as_array(value: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"{what} have no regular shape: {error}") from None


def _from_objects(array: NDArray[Any], what: str) -> NDArray[np.float64]:
    for place in np.ndindex(array.shape):
        try:
            float(array[place])
        except (TypeError, ValueError):
            column = f", column {place[1] + 1}" if len(place) > 1 else ""
            raise DataError(f"{what}, row {place[0] + 1}{column}: {array[place]!r} is not a number") from None
    return array.astype(np.float64)


def one_hot(values: NDArray[Any]) -> bool:
    """Whether targets [N, K] are rows with a single 1 and otherwise 0."""
    return bool(
        values.ndim == 2
        and values.shape[1] > 1
        and np.isin(values, (0, 1)).all()
        and (values.sum(axis=1) == 1).all()
    )


def from_pair(pair: tuple[Any, Any], name: str, kind: str = "arrays", keep_integers: bool = False) -> Arrays:
    """Inputs and targets, checked against each other.

    Raises:
        DataError: no samples, or not as many targets as inputs.
    """
    inputs, notices = as_inputs(pair[0], keep_integers=keep_integers)
    values = as_targets(pair[1])
    if len(inputs) != len(values):
        raise DataError(
            f"{name}: {len(inputs)} inputs {list(inputs.shape)} and {len(values)} targets "
            f"{list(values.shape)}; give one target a sample, in the same order"
        )
    if len(inputs) == 0:
        raise DataError(f"{name} has no samples: give at least one")
    if inputs[0].numel() == 0:
        raise DataError(f"{name}: the inputs have the shape {list(inputs.shape)}, no number in a sample")
    return Arrays(name, kind, inputs, values, notices=notices)


def _labels_from_one_hot(arrays: Arrays, task: str | None) -> None:
    if task in (None, "classification") and one_hot(arrays.targets):
        width = arrays.targets.shape[1]
        arrays.targets = arrays.targets.argmax(axis=1)
        arrays.notices.append(
            f"the targets are rows of {width} with a single 1, taken as classes; task='regression' takes "
            "them as numbers"
        )


def finish(arrays: Arrays, options: Options, held_out: Arrays | None = None, *, standardise: bool) -> Data:
    """Arrays as `Data`: the task found, a part split off, inputs and numbers scaled on the training part.

    Scaling is per column for [N, D], and one mean and deviation per channel for images [N, C, H, W] and
    anything of more than two dimensions.
    """
    many = arrays.kind == "images" and len(np.unique(arrays.targets)) > 2
    task = options.task or ("classification" if many else None)
    for part in (arrays, held_out):
        if part is not None:
            _labels_from_one_hot(part, task)
    plan, notices = targets.plan(arrays.targets, arrays.target_name, task, table=False)
    numbers = targets.labels(plan, arrays.targets) if "classes" in plan else None
    fraction = 0.0 if held_out else options.fraction
    train, held = split(len(arrays.inputs), fraction, options.seed, numbers)
    if plan["task"] == "regression":
        targets.fit_scale(plan, arrays.targets[train], standardise)
    chosen = torch.from_numpy(train).to(arrays.inputs.device)
    every = len(train) == len(arrays.inputs)
    inputs = arrays.inputs if every else arrays.inputs.index_select(0, chosen)
    scale = fit_scale(inputs) if standardise else None
    labels = targets.tensor(plan, arrays.targets).to(inputs.device)
    source = TensorSource(
        apply_scale(inputs, scale), labels[chosen], transform=options.transform, seed=options.seed
    )
    validation = None
    if held_out is not None:
        if held_out.inputs.shape[1:] != inputs.shape[1:]:
            raise DataError(
                f"the held-out inputs have the shape {list(held_out.inputs.shape[1:])} a sample, "
                f"the training inputs {list(inputs.shape[1:])}"
            )
        other = targets.tensor(plan, held_out.targets).to(inputs.device)
        validation = TensorSource(apply_scale(held_out.inputs, scale), other)
    elif len(held):
        rows = torch.from_numpy(held).to(inputs.device)
        validation = TensorSource(apply_scale(arrays.inputs.index_select(0, rows), scale), labels[rows])
    held_count = 0 if validation is None else len(validation)
    shape = tuple(inputs.shape[1:])
    notices = arrays.notices + notices
    if scale is None and options.standardise is None:
        notices += _scale_notice(inputs)
    return Data(
        name=arrays.name,
        task=plan["task"],
        train=source,
        validation=validation,
        input_shape=shape,
        outputs=targets.outputs(plan),
        recipe={
            "version": 1,
            "kind": arrays.kind,
            "shape": list(shape),
            "features": arrays.features,
            "scale": scale,
            "target": plan,
            "split": {"train": len(train), "validation": held_count, "stratified": numbers is not None},
            "load": options.record(),
            **arrays.facts,
        },
        fingerprint=_fingerprint(arrays, held_out, options),
        features=arrays.features,
        classes=plan.get("classes"),
        summary=[
            f"{arrays.name}: {len(arrays.inputs)} samples of shape {'×'.join(map(str, shape))}",
            targets.describe(plan, labels[chosen]),
            options.describe_split(len(train), held_count, numbers is not None, given=held_out is not None),
            _describe_scale(scale, len(shape)),
        ],
        notices=notices,
    )


def fit_scale(inputs: Tensor) -> dict[str, list[float]] | None:
    """Mean and deviation per column of inputs [N, D], per channel of others; a deviation of 0 becomes 1."""
    if not inputs.is_floating_point():
        return None
    over = [0] if inputs.dim() == 2 else [0, *range(2, inputs.dim())] if inputs.dim() > 3 else [0, 1, 2]
    std, mean = torch.std_mean(inputs.double(), dim=over, correction=0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    return {"mean": mean.reshape(-1).tolist(), "std": std.reshape(-1).tolist()}


def apply_scale(inputs: Tensor, scale: dict[str, list[float]] | None) -> Tensor:
    """Inputs [N, ...] with the recipe's mean taken off and divided by its deviation."""
    if scale is None:
        return inputs
    shape = [1, -1] + [1] * (inputs.dim() - 2)
    mean, std = (inputs.new_tensor(scale[key]).reshape(shape) for key in ("mean", "std"))
    return inputs.sub(mean).div_(std)


def _describe_scale(scale: dict[str, list[float]] | None, dims: int) -> str:
    if scale is None:
        return "inputs as they are"
    if len(scale["mean"]) == 1:
        mean, std = scale["mean"][0], scale["std"][0]
        return f"inputs standardised on the training part (mean {mean:.4g}, deviation {std:.4g})"
    return f"inputs standardised per {'column' if dims == 1 else 'channel'} on the training part"


def _scale_notice(inputs: Tensor) -> list[str]:
    if not inputs.is_floating_point() or len(inputs) < 2:
        return []
    scale = fit_scale(inputs)
    assert scale is not None
    largest = max(abs(m) + s for m, s in zip(scale["mean"], scale["std"], strict=True))
    if largest <= 100:
        return []
    return [f"the inputs reach about {largest:.3g} and are taken as they are; standardise=True scales them"]


def _fingerprint(arrays: Arrays, held_out: Arrays | None, options: Options) -> str:
    digest = hashlib.sha256(repr((options.validation_text(), options.seed)).encode())
    for part in (arrays, held_out):
        if part is not None:
            values = part.inputs.cpu()
            whole = (values if values.dtype != torch.bfloat16 else values.float()).contiguous().numpy()
            for array in (whole, np.ascontiguousarray(part.targets)):
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def read_npz(path: Path, name: str) -> tuple[Arrays, Arrays | None]:
    """The arrays of an .npz file, and the held-out ones where it has them.

    Raises:
        DataError: no such pair of names, pickled objects, or a damaged file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            pair = next((p for p in TRAIN_PAIRS if set(p) <= set(names)), None)
            if pair is None:
                close = nearest(names[0], [p[0] for p in TRAIN_PAIRS]) if names else ""
                raise DataError(
                    f"{path} holds {', '.join(names) or 'nothing'}{close}; name the arrays X and y, "
                    "inputs and targets, or X_train, y_train, X_test, y_test"
                )
            train = from_pair((file[pair[0]], file[pair[1]]), name)
            train.target_name = pair[1]
            other = next((p for p in HELD_OUT_PAIRS if set(p) <= set(names)), None)
            held_out = from_pair((file[other[0]], file[other[1]]), f"{name} (held out)") if other else None
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} cannot be read as .npz: {error}; save plain arrays of numbers or text"
        ) from None
    return train, held_out
