"""`descend fit`: train a model on data by an update rule, or go on with a run that was stopped."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from . import options, own, progress, resuming, summary
from .app import debug_option
from .config import FIT, Settings

# flag -> (setting, option). The values of all others are settings of the process, not of the run.
_FLAGS = {
    "target": "data.target",
    "validation": "data.validation",
    "encoding": "data.encoding",
    "task": "data.task",
    "model": "model.name",
    "init": "model.init",
    "rule": "rule.name",
    "dialect": "rule.dialect",
    "lr": "rule.lr",
    "clip_norm": "batch.clip_norm",
    "batch": "batch.size",
    "epochs": "stop.epochs",
    "steps": "stop.steps",
    "minutes": "stop.minutes",
    "patience": "stop.patience",
    "tolerance": "stop.tolerance",
    "target_loss": "stop.target",
    "checkpoint_every": "checkpoint.every",
    "seed": "run.seed",
    "threads": "run.threads",
}


# argument of descend.fit -> (setting, type, what is wanted)
_ARGUMENTS: dict[str, options.Argument] = {
    "init": ("model.init", str, "the name of an initialiser"),
    "accumulate": ("batch.accumulate", int, "a whole number"),
    "shuffle": ("batch.shuffle", bool, "true or false"),
    "drop_last": ("batch.drop_last", bool, "true or false"),
    "clip_norm": ("batch.clip_norm", (int, float), "a number"),
    "epochs": ("stop.epochs", int, "a whole number"),
    "threads": ("run.threads", int, "a whole number"),
}


@click.command("fit")
@click.argument("source", required=False)
@click.option("--target", metavar="COLUMN", help="The column of a table to predict.")
@click.option(
    "--validation", metavar="PART", help="The part held out, as in 0.2; or a file of its own. [default: 0.2]"
)
@click.option("--encoding", help="The encoding of a CSV file, as in gb18030. [default: utf-8]")
@click.option("--task", help="regression, binary or classification, where the data leave it open.")
@click.option("--model", help="linear, logistic, softmax, mlp or cnn. [default: one that suits the data]")
@click.option("--init", help="The initialiser of the weights, as in he_normal.")
@click.option(
    "--rule",
    help="The update rule: see descend rules; a file, my_rule.py; or a chain, 'clip_norm + adamw'. "
    "[default: adam]",
)
@click.option("--dialect", help="Whose form of the rule: torch, keras, optax or paper. [default: torch]")
@click.option("--lr", type=float, help="The learning rate. [default: the rule's]")
@click.option("--clip-norm", type=float, help="Scale the gradient down to this norm where it is longer.")
@click.option("--batch", metavar="SIZE", help="Samples a step: a number, full or auto. [default: 64]")
@click.option("--epochs", type=int, help="Stop after so many passes over the data.")
@click.option("--steps", type=int, help="Stop after so many steps.")
@click.option("--minutes", type=float, help="Stop after so many minutes.")
@click.option("--patience", help="Stop when the loss falls no more for so long.")
@click.option("--tolerance", type=float, help="Stop when the norm of the whole gradient is below this.")
@click.option(
    "--target-loss", metavar="LEVEL", help='Stop at this held-out loss, or as in "accuracy >= 0.98".'
)
@click.option("--seed", type=int, help="The seed of the weights, the split and the order. [default: 0]")
@click.option("--threads", type=int, help="Processor threads. [default: one for small models]")
@click.option("--checkpoint-every", metavar="TIME", help='As in 25 (steps), "2 epochs" or "5 min".')
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
    source: str | None,
    out: Path | None,
    resume: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
    schedules: tuple[str, ...],
    quiet: bool,
    **given: Any,
) -> int:
    """Train a model on SOURCE and write everything about it into a run directory.

    SOURCE is a table (.csv, .tsv, .parquet), an .npz file, IDX images, a folder of images, the name of a set
    (digits, iris, wine, breast_cancer, diabetes), or mine.py:make, a function of yours that returns
    (model, loss, data).

    \b
    descend fit digits
    descend fit table.csv --target price --rule nadam --lr 0.01 --batch 64 --model mlp
    descend fit --config runs/digits/config.toml --set rule.lr=0.003
    descend fit --resume runs/digits
    """
    if resume is not None:
        return resuming.go_on(ctx, resume, quiet)
    flags = {_FLAGS[name]: (f"--{name.replace('_', '-')}", value) for name, value in given.items()}
    settings = options.collect(Settings("fit", FIT), config, overrides, schedules, flags)
    settings.flag("data.source", source, "SOURCE")
    if "data.source" not in settings.values:
        raise UsageError(
            "nothing to fit: name a file, a set such as digits, or --resume RUN. See: descend fit --help"
        )
    return _fit(settings, out, quiet)


def _fit(settings: Settings, out: Path | None, quiet: bool) -> int:
    from .. import descent, record

    source = settings.get("data.source", str, "the name of a file or set")
    arguments = {"threads": "auto", **_arguments(settings)}
    directory = out or record.fresh("runs", options.slug(source))
    if own.is_own(source):
        origin = own.absolute(source)
        made = own.make(origin)
        model, data, more = made.model, made.data, {"loss": made.loss, "origin": origin}
    else:
        model, data, more = settings.get("model.name", str, "the name of a model"), source, {}
    with progress.choose(directory.name, quiet=quiet, minutes=arguments.get("minutes")) as shown:
        result = descent.fit(model, data, out=directory, listener=shown, **arguments, **more)
    return summary.finish(directory, result, quiet)


def _arguments(settings: Settings) -> dict[str, Any]:
    """The settings as the arguments of `descend.fit`."""
    found = options.arguments(settings, _ARGUMENTS)
    batch = options.batch(settings)
    if batch is not None:
        found["batch"] = batch
    reading = {key: value for key, value in settings.table("data").items() if key != "source"}
    if isinstance(reading.get("validation"), str):
        with contextlib.suppress(ValueError):  # a file of its own, where it is no number
            reading["validation"] = float(reading["validation"])
    return found | reading
