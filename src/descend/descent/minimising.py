"""`minimize`: a function of tensors, a named surface or an expression, from a start to where it stops."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import record
from ..errors import UsageError
from . import checkpoint
from .configuration import needs_again, stop_arguments, stop_table, versions
from .events import Listener, Minimum
from .landscape import landscape
from .loop import Descent
from .objectives import FunctionObjective
from .optimizers import Choice, Rule, check_rate, make
from .points import Point, Start, problem, start_again
from .rates import default_rate
from .recording import Place
from .scheduling import Given, Schedules
from .stopping import Stop
from .stopping import target as target_of

TOLERANCE = 1e-6
CHECKPOINT_EVERY = "5 min"
ROWS = 1000


def minimize(
    f: str | Callable[..., Any],
    x0: Start | None = None,
    *,
    listener: Listener | None = None,
    **options: Any,
) -> Minimum:
    """Descends a function; says where it came to and why it stopped. Other arguments as in `prepare_minimum`.

    Args:
        f: a function of tensors that gives a scalar tensor; the name of a surface (`surfaces.names()`); or an
            expression such as "x**2 + 10*y**2".
        x0: the start: a number, a list of numbers or a tensor for one argument; a tuple for several; a dict
            for arguments by name. For an expression, numbers in the order of its names. None takes a
            surface's usual.
        listener: called with each `Event`.

    >>> found = minimize("(x - 3)**2 + 1", [0.0])
    >>> found.reason, round(found.value, 6)
    ('converged', 1.0)
    """
    descent = prepare_minimum(f, x0, **options)
    for event in descent:
        if listener is not None:
            listener(event)
    return minimum(descent)


def prepare_minimum(
    f: str | Callable[..., Any],
    x0: Start | None = None,
    *,
    rule: Rule = "gradient_descent",
    lr: float | None = None,
    hypers: Mapping[str, Any] | None = None,
    steps: int | None = 1000,
    minutes: float | None = None,
    tolerance: float | None = TOLERANCE,
    patience: int | None = None,
    min_change: float = 1e-4,
    target_loss: float | str | None = None,
    maximize: bool = False,
    schedule: Given | Mapping[str, Any] | None = None,
    clip_norm: float | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    checkpoint_every: int | str | None = None,
    log_every: int | None = None,
) -> Descent:
    """A descent on a function, ready to be iterated over; `minimum(descent)` is its outcome.

    Args:
        f, x0: see `minimize`.
        rule: as in `prepare`.
        lr, hypers: hyper-parameters. Without `lr`, one is measured at the start: one over the largest
            curvature for rules whose step grows with the gradient, a part of the start's size for those
            whose does not.
        steps, minutes, patience (in steps), min_change: limits, as in `prepare`.
        tolerance: "converged" once the gradient's norm is at or below it; None never.
        target_loss: stop at a value this low, or with `maximize` this high.
        maximize: climbs instead.
        schedule, clip_norm, seed, out, checkpoint_every, log_every: as in `prepare`.

    Raises:
        UsageError: something that cannot be descended, before the first step.
        StorageError: `out` cannot be used.
    """
    if out is not None:
        record.preflight(out)
    asked = problem(f, x0)
    module, parameters = asked.module, list(asked.module.parameters())
    asked.check()
    choices: list[Choice] = []
    if x0 is None:
        choices.append(Choice("start", asked.start["start"], f"the usual start of {asked.name}"))
    objective = FunctionObjective(module, maximize)
    if lr is None and not isinstance(rule, torch.optim.Optimizer):
        lr, why = default_rate(rule, hypers or {}, objective)
        if lr is not None:
            choices.append(Choice("learning rate", lr, why))
    made = make(rule, parameters, check_rate(lr), hypers or {})
    choices += made.choices
    target = None
    if target_loss is not None:
        target = target_of(target_loss, "loss", ["loss"], ">=" if maximize else "<=")
    stop = Stop(
        steps=steps,
        minutes=minutes,
        tolerance=tolerance,
        patience=patience,
        min_change=min_change,
        target=target,
    )
    schedules = Schedules(made.optimizer, schedule, steps)
    saving = CHECKPOINT_EVERY if checkpoint_every is None else checkpoint_every
    rows = log_every if log_every is not None else max(1, (steps or 10 * ROWS) // ROWS)
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise UsageError(f"log_every={log_every!r}: give a whole number from 1")
    place = None
    if out is not None:
        tables = {
            "run": {"kind": "minimize", "seed": seed, "log_every": rows, **versions()},
            "problem": {"function": asked.name, "maximize": maximize, **asked.start},
            "rule": {"name": made.name, **made.hypers},
            "own_rule": made.keeping and made.keeping.table,
            "schedule": schedules.text() or None,
            "stop": stop_table(stop),
            "checkpoint": {"every": str(saving), "clip_norm": clip_norm},
            "choices": [choice.table() for choice in choices],
        }
        place = Place(Path(out), tables, files=made.files)
    small = sum(p.numel() for p in parameters) <= 2
    return Descent(
        objective,
        made.optimizer,
        stop=stop,
        schedules=schedules,
        clip_norm=clip_norm,
        seed=seed,
        log_every=rows,
        checkpoint_every=checkpoint.every(saving),
        place=place,
        trace=small,
        surface=partial(landscape, names=asked.axes, window=asked.window) if small else None,
    )


def minimum(descent: Descent) -> Minimum:
    """The outcome of an ended descent of `prepare_minimum`."""
    result, module, progress = descent.result, descent.module, descent.progress
    assert result is not None
    assert isinstance(module, Point)
    best = result.best.get("loss")
    return Minimum(
        point=module.as_given({key: value.detach().clone() for key, value in module.state_dict().items()}),
        value=result.loss,
        path=[{"step": int(step), "x": x} for step, *x in progress.points],
        reason=result.reason,
        explanation=result.explanation,
        steps=result.steps,
        best_point=module.as_given(descent.best),
        best_value=result.loss if best is None else best,
        result=result,
    )


def prepare_again(
    config: Mapping[str, Any],
    function: Any,
    rule: Rule | None,
    schedule: Given | None,
    kept: Rule | None = None,
) -> Descent:
    """The descent of a recorded run of `minimize`, without its state."""
    asked, hypers = config["problem"], dict(config["rule"])
    name = hypers.pop("name")
    if function is None:
        if asked["function"].startswith("own:"):
            raise needs_again("function", asked["function"].removeprefix("own:"), "function")
        function = asked["function"]
    if rule is None and kept is None and name.startswith("own:"):
        raise needs_again("rule", name.removeprefix("own:"), "rule")
    texts = config.get("schedule")
    if schedule is None and str((texts or {}).get("lr", "")).startswith("torch:"):
        raise needs_again("schedule", "a torch scheduler", "schedule")
    conditions = stop_arguments(dict(config["stop"]))
    conditions.pop("epochs")
    own = rule is not None and not isinstance(rule, str)
    return prepare_minimum(
        function,
        start_again(asked),
        rule=rule or kept or name,
        lr=None if own else hypers.pop("lr", None),
        hypers={} if own else hypers,
        maximize=asked["maximize"],
        schedule=schedule if schedule is not None else texts,
        seed=config["run"]["seed"],
        log_every=config["run"]["log_every"],
        clip_norm=config["checkpoint"].get("clip_norm"),
        checkpoint_every=config["checkpoint"]["every"],
        **conditions,
    )
