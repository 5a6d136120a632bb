"""The tables of a run's `config.toml` and `data.json`, and the way back from them to arguments."""

from __future__ import annotations

import platform
from typing import Any

import torch

from ..data import Data
from ..errors import UsageError
from .stopping import Stop

_NUMBERS = ("epochs", "steps", "minutes", "patience", "tolerance")


def versions() -> dict[str, str]:
    """What the run is made with."""
    from .. import __version__

    return {"descend": __version__, "torch": torch.__version__, "python": platform.python_version()}


def data_table(data: Data, origin: str | None) -> dict[str, Any]:
    """How to load the data again."""
    load = dict(data.recipe.get("load", {}))
    if origin is not None:
        load["source"] = origin
    return {"name": data.name, **load}


def described(data: Data) -> dict[str, Any]:
    """The content of `data.json`."""
    return {
        "name": data.name,
        "task": data.task,
        "features": data.features,
        "classes": data.classes,
        "input_shape": list(data.input_shape),
        "outputs": data.outputs,
        "fingerprint": data.fingerprint,
        "summary": data.summary,
        "notices": data.notices,
        "recipe": data.recipe,
    }


def stop_table(stop: Stop) -> dict[str, Any]:
    """The conditions to stop under."""
    table: dict[str, Any] = {name: getattr(stop, name) for name in _NUMBERS}
    table["target"] = None if stop.target is None else str(stop.target)
    if stop.min_change != Stop.min_change:
        table["min_change"] = stop.min_change
    return table


def fit_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `prepare` that a run of `fit` was made with, without model and data."""
    rule, batch, stop = dict(config["rule"]), config["batch"], config["stop"]
    model = dict(config["model"])
    schedule = config.get("schedule")
    model.pop("name")
    init = model.pop("init", None)
    return {
        "rule": rule.pop("name"),
        "lr": rule.pop("lr", None),
        "hypers": rule,
        "batch": batch["taken"],
        **{key: batch[key] for key in ("accumulate", "shuffle", "drop_last", "clip_norm") if key in batch},
        **stop_arguments(stop),
        "seed": config["run"]["seed"],
        "log_every": config["run"]["log_every"],
        "threads": config["run"].get("threads"),
        "init": init,
        "model_options": model,
        "schedule": schedule,
        "checkpoint_every": config["checkpoint"]["every"],
    }


def stop_arguments(stop: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the stopping conditions."""
    found: dict[str, Any] = {name: stop.get(name) for name in _NUMBERS}
    found["target_loss"] = stop.get("target")
    if "min_change" in stop:
        found["min_change"] = stop["min_change"]
    return found


def needs_again(what: str, name: str, argument: str) -> UsageError:
    """The error for a part of a run that no name stands for."""
    return UsageError(
        f"the run's {what} ({name}) was given as an object: give it again, as in resume(run, {argument}=...)"
    )
