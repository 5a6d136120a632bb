"""The end of a descent: what diverged, the last evaluation, the files that stay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ..record import pretty
from .events import Result
from .guards import all_finite
from .objectives import Part
from .state import pack
from .stopping import Verdict

if TYPE_CHECKING:
    from .loop import Descent

_SAMPLES = 64  # sample numbers named in a divergence's record


def diverged(descent: Descent, window: list[Part], value: float, finite: bool) -> dict[str, Any]:
    """What is wrong with a step whose update was refused: where, in which samples, and since when."""
    progress = descent.progress
    samples = descent.objective.samples(progress.epoch, progress.position)
    if not all_finite(descent.module.state_dict().values()):
        what = "parameters"
    elif not all_finite(_tensors(window)):
        what = "data"
    elif math.isfinite(value) and not finite:
        what = "gradient"
    else:
        what = "loss"
    return {
        "what": what,
        "step": progress.step + 1,
        "epoch": progress.epoch + 1,
        "batch": progress.position + 1,
        "loss": descent.objective.sign * value,
        "samples": None if samples is None else samples[:_SAMPLES],
        "batch_size": None if samples is None else len(samples),
    }


def _tensors(window: list[Part]) -> list[Any]:
    return [tensor for part in window for tensor in part]


def sentence(found: dict[str, Any], value: float) -> str:
    """A divergence as a sentence."""
    where = f"at step {found['step']:,}"
    if found["samples"] is not None:
        where += f" (epoch {found['epoch']}, batch {found['batch']}, first samples {found['samples'][:8]})"
    rate = "the weights of the last good step are kept; try a lower learning rate, or clip the gradient"
    if found["what"] == "parameters":
        return f"the parameters became non-finite before step {found['step']:,}; try a lower learning rate"
    if found["what"] == "data":
        return f"the inputs or targets {where} are not finite: clean them; the weights are untouched"
    if found["what"] == "gradient":
        return f"the gradient became non-finite {where} while the loss is {value:.6g}; {rate}"
    if math.isfinite(value) and value < 0:
        return f"the value fell to {value:.3g} {where}: this function seems to have no lower bound"
    if math.isfinite(value):
        return f"the loss exploded to {value:.3g} {where}; {rate}"
    return f"the loss became {value} {where}; {rate}"


def conclude(descent: Descent, row: dict[str, Any] | None) -> dict[str, Any] | None:
    """The last checks and the last evaluation; `row`, the last of the history, with what they found."""
    verdict, progress = descent.verdict, descent.progress
    assert verdict is not None
    if verdict.reason in ("diverged", "interrupted"):
        return row
    if not all_finite(descent.module.state_dict().values()):
        descent.diverged = diverged(descent, [], math.nan, finite=False)
        descent.verdict = Verdict("diverged", sentence(descent.diverged, math.nan))
        return row
    if progress.evaluated_step == progress.step:
        return row
    values = descent.evaluate()
    if not values:
        return row
    watched = values["validation_loss"]
    if watched < progress.best_value:
        descent.keep_best(watched, values)
    running = progress.loss_sum / progress.loss_count if progress.loss_count else progress.train_loss
    return {**(row or descent.row(None)), "train_loss": running, **values}


def result(descent: Descent) -> Result:
    """The outcome; in a run directory also its files, `result.json` as the last of them."""
    verdict, progress, objective = descent.verdict, descent.progress, descent.objective
    assert verdict is not None
    loss, validation_loss = _final_loss(descent), progress.evaluated.get("validation_loss")
    metrics = _metrics(progress.evaluated)
    best: dict[str, Any] = {"step": progress.best_step, "loss": None, "validation_loss": None}
    if math.isfinite(progress.best_value):
        held_out = progress.best_values.get("validation_loss")
        best["loss"] = objective.sign * progress.best_value if held_out is None else None
        best["validation_loss"] = held_out
        best["metrics"] = _metrics(progress.best_values)
    found = Result(
        reason=verdict.reason,
        explanation=verdict.explanation + _remark(descent, loss),
        steps=progress.step,
        epochs=descent.epoch,
        seconds=descent.seconds,
        loss=loss,
        validation_loss=validation_loss,
        metrics=metrics,
        best=best,
        notices=list(descent.asked_notices),
        diverged=descent.diverged,
        signal=descent.signal,
        resumed=len(descent.recorder.resumes),
        resumes=descent.recorder.resumes,
        path=descent.recorder.directory.path if descent.recorder.directory else None,
        model=descent.module,
        best_weights=descent.best,
        history=descent.recorder.history,
    )
    _write(descent, found)
    return found


def _final_loss(descent: Descent) -> float:
    progress, objective = descent.progress, descent.objective
    if objective.unit == "step":
        if descent.verdict and descent.verdict.reason == "diverged":
            return objective.sign * progress.loss
        with torch.no_grad():
            value = float(objective.loss((None, None)))
        if value < progress.best_value:
            descent.keep_best(value, {})
        return objective.sign * value
    if progress.position and progress.loss_count and not math.isfinite(progress.train_loss):
        return progress.loss_sum / progress.loss_count
    return progress.train_loss


def _metrics(values: dict[str, float]) -> dict[str, float]:
    prefix = "validation_"
    return {
        key[len(prefix) :]: v
        for key, v in values.items()
        if key.startswith(prefix) and key != "validation_loss"
    }


def _remark(descent: Descent, loss: float) -> str:
    first = descent.progress.first_loss
    limits = ("step_limit", "epoch_limit", "time_limit", "no_progress")
    if descent.verdict is None or descent.verdict.reason not in limits or first is None:
        return ""
    if descent.objective.sign * loss > first + 0.01 * abs(first):
        return "; the loss ended above where it began: the learning rate is probably too high"
    return ""


def _write(descent: Descent, found: Result) -> None:
    import safetensors.torch

    directory = descent.recorder.directory
    surface = descent.surface(descent) if descent.surface else None
    if directory is None:
        return
    directory.sync()
    for name, weights in (("final", descent.module.state_dict()), ("best", descent.best)):
        tensors = {key.removeprefix("/"): tensor for key, tensor in pack(weights)[1].items()}
        directory.write(f"{name}.safetensors", safetensors.torch.save(tensors))
    if surface is not None:
        directory.write("surface.json", pretty(surface))
    directory.write("result.json", pretty(found.recorded()))
