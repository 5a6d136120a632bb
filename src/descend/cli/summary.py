"""What a run has come to, in words on stdout: read from the run directory, as the report is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import text

if TYPE_CHECKING:
    from ..record import Run

# The exit code of each reason to stop; every other one is a normal stop.
DIVERGED = 4


def show(directory: Path, run: Run, *, report: Path | None, rerun: str) -> None:
    """Prints the verdict, the values, and where to look.

    Args:
        directory: the run directory, as the person named it.
        run: what the record holds.
        report: the page, where it could be written.
        rerun: the command that continues an interrupted run.
    """
    result: dict[str, Any] = run.result or {}
    reason = result.get("reason", "interrupted")
    mark, colour = ("stopped", "green")
    if reason == "diverged":
        mark, colour = ("diverged", "red")
    elif reason == "interrupted":
        mark, colour = ("interrupted", "yellow")
    click.echo(f"{click.style(mark, fg=colour, bold=True)}: {_sentence(result.get('explanation', ''))}")
    for line in _values(result):
        click.echo(line)
    click.echo()
    click.echo(f"run       {directory}")
    if report is not None:
        click.echo(f"report    {report}  (open it in a browser)")
    if reason == "interrupted":
        click.echo(f"go on     {rerun}")
    elif run.config.get("run", {}).get("kind") == "fit" and "recipe" in (run.data or {}):
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


def _values(result: dict[str, Any]) -> list[str]:
    steps = text.count(int(result.get("steps", 0)), "step")
    epochs = result.get("epochs")
    amount = f"{float(epochs):g} epochs, {steps}" if epochs else steps
    lines = [f"{amount} in {text.duration(float(result.get('seconds', 0.0)))}"]
    if result.get("loss") is not None:
        lines.append(f"training loss {text.number(float(result['loss']))}")
    if result.get("validation_loss") is not None:
        held_out = [f"loss {text.number(float(result['validation_loss']))}"]
        held_out += text.metrics(
            {name: float(v) for name, v in (result.get("metrics") or {}).items() if v is not None}
        )
        lines.append(f"held-out {', '.join(held_out)}")
    best = result.get("best")
    if best and best.get("validation_loss") is not None:
        lines.append(
            f"best held-out loss {text.number(float(best['validation_loss']))} at step {best['step']:,}, "
            "its weights kept in best.safetensors"
        )
    return lines


def _sentence(explanation: str) -> str:
    return explanation if explanation.endswith((".", "!", "?")) or not explanation else f"{explanation}."
