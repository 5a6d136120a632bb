"""What a run has come to, in words on stdout: read from the run directory, as the report is."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import text

if TYPE_CHECKING:
    from ..record import Run

DIVERGED = 4
_WORDS = {"diverged": ("diverged", "red"), "interrupted": ("interrupted", "yellow")}


def finish(directory: Path, reason: str, signal: int | None, quiet: bool) -> int:
    """Writes the report, prints the summary, and gives the exit code of the run.

    A report that cannot be written, or a stdout that is closed, costs the run nothing.
    """
    from .. import record

    page = _report(directory)
    with contextlib.suppress(BrokenPipeError):
        if quiet:
            click.echo(directory)
        else:
            _show(directory, record.read(directory), page)
    return exit_code(reason, signal)


def _report(directory: Path) -> Path | None:
    from .. import report

    try:
        return report.write([directory])
    except Exception as error:
        click.echo(f"note: the report could not be written: {error}. The run itself is complete.", err=True)
        return None


def _show(directory: Path, run: Run, page: Path | None) -> None:
    result: dict[str, Any] = run.result or {}
    reason = result.get("reason", "interrupted")
    word, colour = _WORDS.get(reason, ("stopped", "green"))
    click.echo(f"{click.style(word, fg=colour, bold=True)}: {_sentence(result.get('explanation', ''))}")
    for line in _values(result):
        click.echo(line)
    click.echo()
    click.echo(f"run       {directory}")
    if page is not None:
        click.echo(f"report    {page}  (open it in a browser)")
    kind = run.config.get("run", {}).get("kind")
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
