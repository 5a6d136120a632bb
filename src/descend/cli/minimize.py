"""`descend minimize`: descend a function of a few variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from . import options, progress, resuming, summary
from .app import debug_option
from .config import MINIMIZE, Settings

_FLAGS = {
    "maximize": "problem.maximize",
    "rule": "rule.name",
    "dialect": "rule.dialect",
    "lr": "rule.lr",
    "steps": "stop.steps",
    "minutes": "stop.minutes",
    "patience": "stop.patience",
    "tolerance": "stop.tolerance",
    "target_loss": "stop.target",
    "clip_norm": "checkpoint.clip_norm",
    "checkpoint_every": "checkpoint.every",
    "seed": "run.seed",
}

# argument of descend.minimize -> (setting, type, what is wanted)
_ARGUMENTS: dict[str, options.Argument] = {
    "maximize": ("problem.maximize", bool, "true or false"),
    "clip_norm": ("checkpoint.clip_norm", (int, float), "a number"),
}


@click.command("minimize")
@click.argument("function", required=False)
@click.option("--start", metavar="X,Y,...", help="Where to start: a number for each variable.")
@click.option("--maximize", is_flag=True, default=None, help="Climb instead.")
@click.option("--rule", help="The update rule: see descend rules; or my_rule.py. [default: gradient_descent]")
@click.option("--dialect", help="Whose form of the rule: torch, keras, optax or paper. [default: torch]")
@click.option("--lr", type=float, help="The learning rate. [default: measured at the start]")
@click.option("--steps", type=int, help="Stop after so many steps. [default: 1000]")
@click.option("--minutes", type=float, help="Stop after so many minutes.")
@click.option("--patience", type=int, help="Stop when the value falls no more for so many steps.")
@click.option("--tolerance", type=float, help="Stop when the norm of the gradient is below this.")
@click.option("--target-loss", type=float, help="Stop at this value.")
@click.option("--clip-norm", type=float, help="Scale the gradient down to this norm where it is longer.")
@click.option("--seed", type=int, help="The seed of a function that draws random numbers. [default: 0]")
@click.option("--checkpoint-every", metavar="TIME", help='As in 25 (steps) or "5 min".')
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run directory. [default: runs/NAME, NAME-2, ...]"
)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run that was stopped."
)
@options.settings_options
@click.option(
    "--quiet", "-q", is_flag=True, help="No progress, no summary: only the run directory, on stdout."
)
@debug_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    function: str | None,
    start: str | None,
    out: Path | None,
    resume: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
    schedules: tuple[str, ...],
    quiet: bool,
    **given: Any,
) -> int:
    """Descend FUNCTION from a start: the name of a test surface, or an expression in quotes.

    \b
    descend minimize rosenbrock --rule adam --start -1.2,1
    descend minimize "x**2 + 10*y**2" --start 3,1
    """
    if resume is not None:
        return resuming.go_on(ctx, resume, quiet)
    flags = {_FLAGS[name]: (f"--{name.replace('_', '-')}", value) for name, value in given.items()}
    settings = options.collect(Settings("minimize", MINIMIZE), config, overrides, schedules, flags)
    settings.flag("problem.function", function, "FUNCTION")
    settings.flag("problem.start", None if start is None else _point(start), "--start")
    if "problem.function" not in settings.values:
        raise UsageError('nothing to descend: name a surface, or an expression as in "x**2 + 10*y**2"')
    return _minimize(settings, out, quiet)


def _minimize(settings: Settings, out: Path | None, quiet: bool) -> int:
    from .. import descent, record

    function = settings.get("problem.function", str, "a name or an expression")
    start = settings.get("problem.start", (list, dict), "a list of numbers")
    directory = out or record.fresh("runs", options.slug(function))
    minutes = settings.get("stop.minutes", (int, float), "a number")
    found = options.arguments(settings, _ARGUMENTS)
    with progress.choose(directory.name, quiet=quiet, minutes=minutes) as shown:
        minimum = descent.minimize(function, start, out=directory, listener=shown, **found)
    return summary.finish(directory, minimum, quiet)


def _point(text: str) -> list[float]:
    """The numbers of `--start`.

    >>> _point("-1.2, 1")
    [-1.2, 1.0]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--start {text}: wanted numbers with commas between them, as in -1.2,1") from None
