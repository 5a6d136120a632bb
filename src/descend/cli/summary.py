"""What a run has come to, in words on stdout: read from the run directory, as the report is."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import text

if TYPE_CHECKING:
    from ..descent import Minimum, Result
    from ..record import Run

DIVERGED = 4
_WORDS = {"diverged": ("diverged", "red"), "interrupted": ("interrupted", "yellow")}


def finish(directory: Path, outcome: Result | Minimum, quiet: bool) -> int:
    """Writes the report, prints the summary, and gives the exit code of the run.

    A report that cannot be written, or a stdout that is closed, costs the run nothing.
    """
    from .. import record
    from ..descent import Minimum

    page = _report(directory)
    with contextlib.suppress(BrokenPipeError):
        if quiet:
            click.echo(directory)
        else:
            run = record.read(directory)
            found = _point(outcome, run) if isinstance(outcome, Minimum) else _values(run.result or {})
            _show(directory, run, found, page)
    result = outcome.result if isinstance(outcome, Minimum) else outcome
    return exit_code(result.reason, result.signal)


def _report(directory: Path) -> Path | None:
    from .. import report

    try:
        return report.write([directory])
    except Exception as error:
        click.echo(f"note: the report could not be written: {error}. The run itself is complete.", err=True)
        return None


def _show(directory: Path, run: Run, found: list[str], page: Path | None) -> None:
    result: dict[str, Any] = run.result or {}
    kind = run.config.get("run", {}).get("kind")
    reason = result.get("reason", "interrupted")
    word, colour = _WORDS.get(reason, ("stopped", "green"))
    click.echo(f"{click.style(word, fg=colour, bold=True)}: {_sentence(result.get('explanation', ''))}")
    for line in found:
        click.echo(line)
    click.echo()
    if kind == "fit":
        for sentence in (run.data or {}).get("summary", []):
            if "to learn from" in sentence:
                click.echo(f"data      {sentence}")
        click.echo(f"with      {_chosen(run.config)}")
    click.echo(f"run       {directory}")
    if page is not None:
        click.echo(f"report    {page}  (open it in a browser)")
    if reason == "interrupted":
        click.echo(f"go on     descend {kind} --resume {directory}")
    elif kind == "fit" and "recipe" in (run.data or {}):
        click.echo(f"predict   descend predict {directory} NEW.csv")


def exit_code(reason: str, signal: int | None) -> int:
    """The process's exit code for the reason that a run stopped for.

    >>> exit_code("epoch_limit", None), exit_code("diverged", None), exit_code("interrupted", 15)
    (0, 4, 143)
    """
    if reason == "diverged":
        return DIVERGED
    if reason == "interrupted":
        return 128 + (signal or 2)
    return 0


def _chosen(config: dict[str, Any]) -> str:
    """Model, rule, rate and batch, and that the report says why where someone had to choose."""
    rule = config["rule"]
    rate = f" at rate {text.number(float(rule['lr']))}" if "lr" in rule else ""
    model = config["model"]["name"].removeprefix("own:")
    words = f"{model}, {text.short(rule['name'])}{rate}, batch {config['batch']['taken']}"
    return words + (" (what was chosen for you, and why, is in the report)" if config.get("choices") else "")


def _point(minimum: Minimum, run: Run) -> list[str]:
    """Where `minimize` came to: at most eight coordinates, and the value there."""
    import torch

    state = minimum.result.model.state_dict()
    numbers = torch.cat([value.reshape(-1) for value in state.values()]).tolist()
    keys = list(state) if len(state) == len(numbers) else [f"x{place + 1}" for place in range(len(numbers))]
    names = (run.surface or {}).get("names") or keys
    shown = [f"{name} = {text.number(value, 6)}" for name, value in zip(names, numbers, strict=True)][:8]
    more = [f"and {len(numbers) - 8} more"] if len(numbers) > 8 else []
    took = f"{text.count(minimum.steps, 'step')} in {text.duration(minimum.result.seconds)}"
    return [took, ", ".join([*shown, *more]), f"value {text.number(minimum.value, 6)}"]


def _values(result: dict[str, Any]) -> list[str]:
    steps = text.count(int(result.get("steps", 0)), "step")
    epochs = result.get("epochs")
    passes = f"{float(epochs or 0.0):.2f}".rstrip("0").rstrip(".")
    amount = f"{passes} epochs, {steps}" if epochs else steps
    lines = [f"{amount} in {text.duration(float(result.get('seconds', 0.0)))}"]
    if result.get("loss") is not None:
        lines.append(f"training loss {text.number(float(result['loss']))}")
    if result.get("validation_loss") is not None:
        held_out = [f"loss {text.number(float(result['validation_loss']))}"]
        held_out += _metrics(result)
        lines.append(f"held-out {', '.join(held_out)}")
    best = result.get("best")
    if best and best.get("validation_loss") is not None:
        reached = [f"loss {text.number(float(best['validation_loss']))}", *_metrics(best)]
        where = f"at step {best['step']:,}, its weights kept in best.safetensors"
        lines.append(f"best held-out {', '.join(reached)} {where}")
    return lines


def _metrics(of: dict[str, Any]) -> list[str]:
    return text.metrics({name: float(v) for name, v in (of.get("metrics") or {}).items() if v is not None})


def _sentence(explanation: str) -> str:
    return explanation if explanation.endswith((".", "!", "?")) or not explanation else f"{explanation}."
