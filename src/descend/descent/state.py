"""A tree of state as JSON and tensors, and back to the bit: what a checkpoint holds. None of it can run.

Also the state of the random number generators.
"""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError

_TAG = "$"


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Splits a tree of dicts, lists, tuples, numbers, texts and tensors into JSON and named tensors.

    Raises:
        UsageError: something else is in it; the message names its place.
    """
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()

    def tensor(value: Tensor, path: str) -> dict[str, Any]:
        key, count = path, 1
        while key in tensors:
            count += 1
            key = f"{path}#{count}"
        held = value.detach().cpu()
        entry: dict[str, Any] = {_TAG: "tensor", "key": key}
        if not held.is_contiguous():
            entry["strides"] = list(held.stride())
            held = held.contiguous()
        storage = held.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != held.numel() * held.element_size():
            held = held.clone()  # safetensors keeps no shared memory
        storages.add(held.untyped_storage().data_ptr())
        tensors[key] = held
        return entry

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            return tensor(value, path)
        if value is None or isinstance(value, (bool, str, int)):
            return value
        if isinstance(value, (float, np.floating)):
            number = float(value)
            return number if math.isfinite(number) else {_TAG: "float", "value": repr(number)}
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, torch.dtype):
            return {_TAG: "dtype", "value": str(value).removeprefix("torch.")}
        if isinstance(value, Mapping):
            if type(value) in (dict, OrderedDict) and all(isinstance(k, str) and k != _TAG for k in value):
                return {key: walk(part, f"{path}/{key}") for key, part in value.items()}
            kind = "counter" if isinstance(value, Counter) else "dict"
            items = [[walk(k, path), walk(part, f"{path}/{k}")] for k, part in value.items()]
            return {_TAG: kind, "items": items}
        if isinstance(value, (list, tuple)):
            items = [walk(part, f"{path}/{place}") for place, part in enumerate(value)]
            return items if isinstance(value, list) else {_TAG: "tuple", "items": items}
        raise UsageError(
            f"{path.lstrip('/')} is a {type(value).__name__}, which a checkpoint cannot hold: it takes "
            "tensors, numbers, texts, and lists, tuples and dicts of these"
        )

    return walk(tree, ""), tensors


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `pack` took apart; every tensor is a copy of its own, aligned as torch aligns them."""
    if isinstance(packed, list):
        return [unpack(part, tensors) for part in packed]
    if not isinstance(packed, dict):
        return packed
    kind = packed.get(_TAG)
    if kind is None:
        return {key: unpack(part, tensors) for key, part in packed.items()}
    if kind == "tensor":
        stored = tensors[packed["key"]]
        if "strides" in packed:
            empty = torch.empty_strided(tuple(stored.shape), tuple(packed["strides"]), dtype=stored.dtype)
            return empty.copy_(stored)
        return stored.clone()
    if kind == "float":
        return float(packed["value"])
    if kind == "dtype":
        return getattr(torch, packed["value"])
    items = [unpack(part, tensors) for part in packed["items"]]
    if kind == "tuple":
        return tuple(items)
    pairs = dict(items)
    return Counter(pairs) if kind == "counter" else pairs


def same(one: Any, other: Any) -> bool:
    """Whether two trees are equal to the bit, NaNs included."""
    (packed, tensors), (packed_other, tensors_other) = pack(one), pack(other)
    return (
        packed == packed_other
        and tensors.keys() == tensors_other.keys()
        and all(_equal(tensor, tensors_other[key]) for key, tensor in tensors.items())
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)))


def random_state() -> dict[str, Any]:
    """The state of torch's generators (CPU and, once used, CUDA), NumPy's global one and Python's."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    inner = numpy_state["state"]
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "key": torch.from_numpy(inner["key"].astype(np.int64)),
            "pos": int(inner["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "python": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Puts the generators back to what `random_state` found."""
    torch.set_rng_state(state["torch"])
    held = state["numpy"]
    key = held["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, held["pos"], held["has_gauss"], held["gauss"]))
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


def seed_everything(seed: int) -> None:
    """Seeds torch, NumPy's global generator and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
