"""Continuing a run: the configuration from the run directory, the state from its last sound checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .. import data as loading
from .. import models, record
from ..errors import DataError, StorageError
from . import own_rule
from .configuration import fit_arguments, needs_again
from .events import Listener, Minimum, Result
from .fitting import prepare, run
from .loop import Descent
from .minimising import minimum, prepare_again
from .objectives import Loss, Metric
from .optimizers import Rule
from .scheduling import Given


def resume(
    directory: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    data: Any = None,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    rule: Rule | None = None,
    schedule: Given | None = None,
    function: Any = None,
    listener: Listener | None = None,
) -> Result | Minimum:
    """Continues the run in `directory`, killed or interrupted at any instant, to what it would have become.

    Weights, history and the reason to stop are those of the uninterrupted run, to the bit, on one machine;
    where they cannot be (another torch version, device or number of threads), a notice says "not exact" and
    why. A run that has ended is returned as it ended.

    Args:
        directory: the run directory.
        model, data, loss, metrics, rule, schedule, function: what was given to the run as an object, not by
            name.
        listener: called with each `Event`.

    Returns:
        What `fit` or `minimize` returned.

    Raises:
        StorageError: no run, one in use, or without a sound checkpoint.
        DataError: the data are not those of the run.
        UsageError: something that was given as an object is missing here, or is another one.
    """
    held = record.RunDirectory.reopen(directory)
    try:
        run_as_read = record.read(directory)
        kept, notices = own_rule.again(run_as_read.path, run_as_read.config, rule)
        try:
            if run_as_read.config["run"]["kind"] == "minimize":
                descent = prepare_again(run_as_read.config, function, rule, schedule, kept)
            else:
                descent = _fit_again(run_as_read, model, data, loss, metrics, rule, schedule, kept)
            descent.notices += notices
        except KeyError as error:
            raise StorageError(f"{Path(directory) / 'config.toml'}: has no {error}: it is damaged") from error
        if run_as_read.result is not None and run_as_read.result["reason"] != "interrupted":
            result = _as_it_ended(descent, run_as_read)
            held.close()
        else:
            descent.resume(held)
            result = run(descent, listener)
    except BaseException:
        held.close()
        raise
    return minimum(descent) if run_as_read.config["run"]["kind"] == "minimize" else result


def _fit_again(
    read: record.Run,
    model: nn.Module | None,
    data: Any,
    loss: Loss | None,
    metrics: Mapping[str, Metric] | None,
    rule: Rule | None,
    schedule: Given | None,
    kept: Rule | None,
) -> Descent:
    config, described = read.config, read.data or {}
    arguments = fit_arguments(config)
    name = config["model"]["name"]
    if name not in models.names():
        if model is None:
            raise needs_again("model", name, "model")
        arguments["model_options"], arguments["init"] = {}, None
    if data is None:
        if not config["data"].get("source") or described["recipe"]["load"].get("validation") == "given":
            raise needs_again("data", described["name"], "data")
        loaded = loading.reload(described["recipe"])
    else:
        load = {key: value for key, value in described["recipe"].get("load", {}).items() if value is not None}
        load.pop("source", None)
        if load.get("validation") == "given":
            load.pop("validation")
        loaded = loading.load(data, **load)
    if loaded.fingerprint != described["fingerprint"]:
        raise DataError(
            f"the data have changed since the run began (fingerprint {loaded.fingerprint[:12]}, the run's "
            f"{described['fingerprint'][:12]}): restore them, or start a new run"
        )
    _replace(arguments, rule, schedule, kept)
    if config["run"].get("own_loss") and loss is None:
        raise needs_again("loss", config["run"]["own_loss"], "loss")
    return prepare(model or name, loaded, loss=loss, metrics=metrics, **arguments)


def _replace(arguments: dict[str, Any], rule: Rule | None, schedule: Given | None, kept: Rule | None) -> None:
    """Puts in what was given as an object, or says that it is missing."""
    text = (arguments["schedule"] or {}).get("lr", "")
    if schedule is not None:
        arguments["schedule"] = schedule
    elif text.startswith("torch:"):
        raise needs_again("schedule", text.removeprefix("torch:"), "schedule")
    if rule is not None:
        arguments["rule"] = rule
        if not isinstance(rule, str):
            arguments["lr"], arguments["hypers"] = None, {}
    elif kept is not None:
        arguments["rule"] = kept
    elif arguments["rule"].startswith("own:"):
        raise needs_again("rule", arguments["rule"].removeprefix("own:"), "rule")


def _as_it_ended(descent: Descent, read: record.Run) -> Result:
    import safetensors.torch

    weights = {}
    for name in ("final", "best"):
        path = read.path / f"{name}.safetensors"
        with record.storing(path, "read"):
            try:
                weights[name] = safetensors.torch.load(path.read_bytes())
            except safetensors.SafetensorError as error:
                raise StorageError(f"{path}: damaged: {error}") from error
    descent.module.load_state_dict(weights["final"], strict=False)
    recorded = record.numbers(read.result or {})
    descent.best = weights["best"]
    if read.surface is not None:
        descent.progress.points = [[point["step"], *point["x"]] for point in read.surface["path"]]
    descent.result = Result(
        **recorded,
        path=read.path,
        model=descent.module,
        best_weights=weights["best"],
        history=read.history,
    )
    return descent.result
