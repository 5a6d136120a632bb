"""`fit`: a model, data and a rule, by name or as objects. What is left out is chosen, on record."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import data as loading
from .. import models, record
from ..errors import UsageError
from . import checkpoint
from .configuration import data_table, described, stop_table, versions
from .events import Listener, Result
from .landscape import landscape
from .loop import Descent
from .objectives import DataObjective, Loss, Metric, evaluation_mode
from .optimizers import Choice, Rule, make
from .recording import Place
from .scheduling import Given, Schedules
from .stopping import Stop
from .stopping import target as target_of
from .threads import choose as choose_threads

# About this many rows of history are logged, besides those of the epochs' ends.
ROWS = 200
PATIENCE = 20
CHECKPOINT_EVERY = "5 min"
_USUAL = {"accumulate": 1, "shuffle": True, "drop_last": False, "clip_norm": None}


def fit(
    model: str | nn.Module | None,
    data: Any,
    *,
    listener: Listener | None = None,
    **options: Any,
) -> Result:
    """Trains a model and returns how it ended. The arguments are those of `prepare`, and:

    Args:
        listener: called with each `Event`.

    Raises:
        UsageError, DataError, StorageError: before the first step wherever it can be known then.

    >>> result = fit("softmax", "iris", rule="torch.optim.Adam", lr=0.05, epochs=20)
    >>> result.reason, result.metrics["accuracy"] > 0.8
    ('epoch_limit', True)
    """
    return run(prepare(model, data, **options), listener)


def run(descent: Descent, listener: Listener | None = None) -> Result:
    """Runs a descent to its end, telling `listener` of each event."""
    for event in descent:
        if listener is not None:
            listener(event)
    assert descent.result is not None
    return descent.result


def prepare(
    model: str | nn.Module | None,
    data: Any,
    *,
    rule: Rule = "adam",
    lr: float | None = None,
    hypers: Mapping[str, Any] | None = None,
    batch: int | str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    tolerance: float | None = None,
    patience: int | str | None = "auto",
    min_change: float = 1e-4,
    target_loss: float | str | None = None,
    seed: int = 0,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    init: str | None = None,
    schedule: Given | Mapping[str, Any] | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    shuffle: bool = True,
    drop_last: bool = False,
    model_options: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    out: str | os.PathLike[str] | None = None,
    checkpoint_every: int | str | None = None,
    log_every: int | None = None,
    threads: int | str | None = None,
    origin: str | None = None,
    **reading: Any,
) -> Descent:
    """A descent that is ready to be iterated over; `fit` without running it.

        descent = prepare("mlp", "digits", rule="adam", epochs=10)
        for event in descent:
            ...
        descent.result

    Args:
        model: a name of `descend.models.names()`, a module, or None for the one that suits the data.
        data: anything that `descend.data.load` takes; `reading` are its options (`target`, `validation`,
            ...).
        rule: a rule's name, a file (`"my_rule.py"`), a Rule or a bare formula, a torch class by name
            (`"torch.optim.RMSprop"`), an optimizer, or what makes one.
        lr, hypers: hyper-parameters; None takes the rule's defaults.
        batch: samples a step takes, "full", "auto", or None for 64.
        epochs, steps, minutes: limits; with none of them a number of epochs is chosen.
        tolerance: stop as "converged" once the full-batch gradient's norm is at or below it.
        patience: stop as "no_progress" after so many epochs without a lower loss, held out where there is a
            held-out part. "auto" takes 20 epochs where nothing else limits the run, "20 steps" rounds up to
            epochs, None never stops for it.
        min_change: what part of the best loss counts as lower.
        target_loss: stop at this loss, or as in `"validation_accuracy >= 0.98"`.
        seed: of order, samples' randomness, initialisation, dropout.
        loss: `loss(outputs, targets)` -> mean; None takes the task's.
        metrics: by name, `metric(outputs, targets)` -> number, over the held-out part; None takes the task's.
        init: a name of `descend.initialisers.names()`.
        schedule: of the learning rate, or a dict by hyper-parameter; see `docs/schedules.md`.
        clip_norm: the gradient's norm is clipped to it.
        accumulate: batches whose gradients make one step.
        shuffle, drop_last: the order of samples.
        model_options: the options of a model by name.
        device: where to compute; None leaves a module where it is.
        out: the run directory; None writes nothing.
        checkpoint_every: 25 (steps), "2 epochs", "5 min"; None takes "5 min".
        log_every: steps between rows of history; None makes about 200 of them.
        threads: processor threads for the run; "auto" takes one for small models, None leaves torch as it is.
        origin: what to call the model and data in the record where they come from a user's own file.

    Raises:
        UsageError, DataError, StorageError: see `fit`.
    """
    if out is not None:
        record.preflight(out)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"seed={seed!r}: give a whole number")
    loaded = loading.load(data, **{"seed": seed, **reading})
    choices: list[Choice] = []
    module, model_name = _module(model, loaded, init, seed, model_options or {}, device, choices)
    models.check(module, loaded, loss)
    named = dict(models.metrics_for(loaded.task, loaded.recipe) if metrics is None else metrics)
    if loss is not None:
        outputs, targets = _check_loss(loss, module, loaded)
        if metrics is None:
            named = {key: metric for key, metric in named.items() if _works(metric, outputs, targets)}
    parameters = [p for p in module.parameters() if p.requires_grad]
    made = make(rule, parameters, lr, hypers or {})
    taken, reason = _batch(batch, loaded, choices)
    loss_function = loss or models.loss_for(loaded.task)[0]
    objective = DataObjective(
        module,
        loss_function,
        loaded.train,
        loaded.validation,
        named,
        batch=taken,
        accumulate=_whole("accumulate", accumulate),
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
    )
    limits = _limits(epochs, steps, minutes, patience, objective, taken, choices)
    stop = Stop(tolerance=tolerance, min_change=min_change, target=_target(target_loss, objective), **limits)
    total = _total(stop, objective.steps_per_epoch)
    schedules = Schedules(made.optimizer, schedule, total)
    every = checkpoint.every(CHECKPOINT_EVERY if checkpoint_every is None else checkpoint_every)
    rows = _whole("log_every", log_every) if log_every is not None else max(1, (total or 10 * ROWS) // ROWS)
    if clip_norm is not None and not clip_norm > 0:
        raise UsageError(f"clip_norm={clip_norm!r}: give a number above 0")
    choices += made.choices
    team, why_team = choose_threads(threads, module, loaded, taken)
    if why_team:
        choices.append(Choice("threads", team, why_team))
    own_loss = None if loss is None else getattr(loss, "__name__", type(loss).__name__)
    place = None
    if out is not None:
        asked = {"accumulate": accumulate, "shuffle": shuffle, "drop_last": drop_last, "clip_norm": clip_norm}
        tables = {
            "run": {
                "kind": "fit",
                "seed": seed,
                "log_every": rows,
                "threads": team,
                "own_loss": own_loss,
                **versions(),
            },
            "data": data_table(loaded, origin),
            "model": {"name": model_name, "init": init, **(model_options or {})},
            "rule": {"name": made.name, **made.hypers},
            "own_rule": made.keeping and made.keeping.table,
            "batch": {
                "size": 64 if batch is None else batch,
                "taken": taken,
                "reason": reason,
                **{key: value for key, value in asked.items() if value != _USUAL[key]},
            },
            "schedule": schedules.text() or None,
            "stop": stop_table(stop),
            "checkpoint": {"every": str(checkpoint_every or CHECKPOINT_EVERY)},
            "choices": [choice.table() for choice in choices],
        }
        place = Place(Path(out), tables, described(loaded), made.files)
    small = sum(p.numel() for p in module.parameters()) <= 2
    notices = [*loaded.notices, *([reason] if reason.startswith("clipped") else [])]
    return Descent(
        objective,
        made.optimizer,
        stop=stop,
        schedules=schedules,
        clip_norm=clip_norm,
        seed=seed,
        log_every=rows,
        checkpoint_every=every,
        place=place,
        notices=notices,
        trace=small,
        surface=landscape if small else None,
        threads=team,
    )


def _module(
    model: str | nn.Module | None,
    data: loading.Data,
    init: str | None,
    seed: int,
    options: Mapping[str, Any],
    device: str | torch.device | None,
    choices: list[Choice],
) -> tuple[nn.Module, str]:
    if model is None:
        model, why = models.default_for(data)
        choices.append(Choice("model", model, why))
    if isinstance(model, str):
        module, name = models.build(model, data, init=init, seed=seed, **options), model
        if init is None:
            choices.append(Choice("initialiser", models.default_init(model), f"the default of {model}"))
    elif isinstance(model, nn.Module):
        if options:
            raise UsageError("model_options are for models by name: a module has been made already")
        module, name = model, f"own:{type(model).__name__}"
        if init is not None:
            from .. import initialisers

            initialisers.apply(init, module, seed)
        if not module.training:
            module.train()
    else:
        raise UsageError(f"model {model!r}: give a torch.nn.Module or one of {', '.join(models.names())}")
    return (module if device is None else module.to(device)), name


def _works(metric: Metric, outputs: Any, targets: Any) -> bool:
    """Whether a metric of the task takes what a model with a loss of its own gives."""
    try:
        metric(outputs, targets)
    except Exception:
        return False
    return True


def _check_loss(loss: Loss, module: nn.Module, data: loading.Data) -> tuple[Any, Any]:
    """Tries the user's loss on two samples: N against N x 1 broadcasts to N x N, which torch only warns of.

    Returns:
        The outputs and targets that it was tried on.
    """
    inputs, targets = data.train.batch(torch.arange(min(2, len(data.train))), 0)
    device = next(module.parameters()).device
    with evaluation_mode(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = module(inputs.to(device))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                value = loss(outputs, targets.to(device))
            except (UserWarning, RuntimeError, ValueError, TypeError, IndexError) as error:
                shapes = f"outputs {list(getattr(outputs, 'shape', []))}, targets {list(targets.shape)}"
                raise UsageError(f"the loss does not take {shapes}: {str(error).splitlines()[0]}") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(f"the loss gives {what}: it must give one number, the mean over the batch")
    return outputs, targets.to(device)


def _batch(batch: int | str | None, data: loading.Data, choices: list[Choice]) -> tuple[int, str]:
    if isinstance(data.train, loading.LoaderSource):
        return data.train.loader.batch_size or 1, "the DataLoader's own"
    taken, reason = loading.batches.batch_size(
        64 if batch is None else batch, len(data.train), data.sample_bytes()
    )
    if batch is None or batch == "auto" or taken != batch:
        why = "the field's usual size: good use of the machine, and enough steps an epoch"
        choices.append(Choice("batch size", taken, why if batch is None and taken == 64 else reason))
    return taken, reason


def _limits(
    epochs: int | None,
    steps: int | None,
    minutes: float | None,
    patience: int | str | None,
    objective: DataObjective,
    batch: int,
    choices: list[Choice],
) -> dict[str, Any]:
    unlimited = epochs is None and steps is None and minutes is None
    if unlimited:
        epochs, why = models.default_epochs(len(objective.train), batch * objective.accumulate)
        choices.append(Choice("epochs", epochs, why))
    if patience == "auto":
        patience = None
        if unlimited or epochs is None:
            patience = PATIENCE
            what = "held-out" if objective.validation is not None else "training"
            choices.append(
                Choice(
                    "patience", PATIENCE, f"epochs without a lower {what} loss: going on would only cost time"
                )
            )
    elif isinstance(patience, str):
        patience = _patience(patience, objective.steps_per_epoch)
    return {"epochs": epochs, "steps": steps, "minutes": minutes, "patience": patience}


def _patience(text: str, steps_per_epoch: int) -> int:
    number, _, unit = text.strip().partition(" ")
    unit = unit.strip().removesuffix("s")
    if not number.isdecimal() or unit not in ("", "epoch", "step"):
        raise UsageError(
            f"patience {text!r}: give a number of epochs, as in 20 or '20 epochs', or '500 steps'"
        )
    return -(-int(number) // steps_per_epoch) if unit == "step" else int(number)


def _target(given: float | str | None, objective: DataObjective) -> Any:
    if given is None:
        return None
    names = ["train_loss"]
    if objective.validation is not None:
        names = ["validation_loss", *(f"validation_{name}" for name in objective.metrics), *names]
    return target_of(given, names[0], names)


def _total(stop: Stop, steps_per_epoch: int) -> int | None:
    limits = [] if stop.steps is None else [stop.steps]
    if stop.epochs is not None:
        limits.append(stop.epochs * steps_per_epoch)
    return min(limits, default=None)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}={value!r}: give a whole number from 1")
    return value
