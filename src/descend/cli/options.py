"""Options that several commands take, and how they become settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import UsageError
from .config import Settings

Function = TypeVar("Function", bound=Callable[..., Any])

Argument = tuple[str, "type | tuple[type, ...]", str]

# argument -> (setting, type, what is wanted), of both descents
ARGUMENTS: dict[str, Argument] = {
    "rule": ("rule.name", str, "the name of a rule, or a file such as my_rule.py"),
    "lr": ("rule.lr", (int, float), "a number"),
    "steps": ("stop.steps", int, "a whole number"),
    "minutes": ("stop.minutes", (int, float), "a number"),
    "tolerance": ("stop.tolerance", (int, float), "a number"),
    "patience": ("stop.patience", (int, str), "a whole number, or as in '20 epochs'"),
    "min_change": ("stop.min_change", (int, float), "a number"),
    "target_loss": ("stop.target", (int, float, str), "a number, or as in 'validation_accuracy >= 0.98'"),
    "seed": ("run.seed", int, "a whole number"),
    "log_every": ("run.log_every", int, "a whole number"),
    "checkpoint_every": ("checkpoint.every", (int, str), "as in 25, '2 epochs' or '5 min'"),
}

_NAMED = re.compile(r"(?P<hyper>[^\W\d]\w*)\s*=\s*(?P<text>.+)\Z", re.DOTALL)


def settings_options(function: Function) -> Function:
    """`--config`, `--set` and `--schedule`: what every descent takes besides its own flags."""
    for option in (
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            help="A TOML file instead of flags, in the form of a run's config.toml. Flags win over it.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any setting by its dotted name, as in --set rule.beta1=0.95. Wins over the file.",
        ),
        click.option(
            "--schedule",
            "schedules",
            multiple=True,
            metavar="[HYPER=]TEXT",
            help='How the rate changes, as in "cosine"; or another hyper-parameter, as in "momentum=...".',
        ),
    ):
        function = option(function)
    return function


def collect(
    settings: Settings,
    config: Path | None,
    overrides: tuple[str, ...],
    schedules: tuple[str, ...],
    flags: dict[str, tuple[str, Any]],
) -> Settings:
    """Fills `settings` from the file, the overrides and the flags, in that order.

    Args:
        settings: the empty settings of the command.
        config: the TOML file.
        overrides: the `KEY=VALUE` texts.
        schedules: the `[HYPER=]TEXT` texts; without a name it is the learning rate's.
        flags: dotted key -> (the option's name, its value or None).
    """
    if config is not None:
        settings.read(config)
    for assignment in overrides:
        settings.override(assignment)
    for key, (option, value) in flags.items():
        settings.flag(key, value, option)
    for text in schedules:
        named = _NAMED.match(text)
        hyper, schedule = (named["hyper"], named["text"]) if named else ("lr", text)
        settings.flag(f"schedule.{hyper}", schedule, "--schedule")
    return settings


def batch(settings: Settings) -> int | str | None:
    """`batch.size`: a number of samples, "full" or "auto".

    Raises:
        UsageError: anything else.
    """
    size = settings.get("batch.size", (int, str), 'a number of samples, "full" or "auto"')
    if isinstance(size, str) and size.isdecimal():
        size = int(size)
    if isinstance(size, int) and size >= 1:
        return size
    if size is None or size in ("full", "auto"):
        return str(size) if size else None
    raise UsageError(
        f"{settings.origin['batch.size']}: the batch is {size!r}, wanted 1 or more, full or auto"
    )


def arguments(settings: Settings, more: Mapping[str, Argument] | None = None) -> dict[str, Any]:
    """The settings as arguments of `fit` or `minimize`; what nobody set is left to their defaults.

    Args:
        settings: where the values are.
        more: arguments besides those of `ARGUMENTS`.
    """
    table = {**ARGUMENTS, **(more or {})}
    found = {name: settings.get(*argument) for name, argument in table.items()}
    if isinstance(found["patience"], str) and found["patience"].isdecimal():
        found["patience"] = int(found["patience"])
    found["hypers"] = {k: v for k, v in settings.table("rule").items() if k not in ("name", "lr")} or None
    found["schedule"] = settings.table("schedule") or None
    options = {k: v for k, v in settings.table("model").items() if k not in ("name", "init")}
    found["model_options"] = options or None
    return {name: value for name, value in found.items() if value is not None}


def slug(source: str) -> str:
    """A name for a run's directory, from what was asked for.

    >>> slug("data/house prices.csv"), slug("mine.py:make"), slug("x**2 + 10*y**2"), slug("***")
    ('house-prices', 'mine', 'x-2-10-y-2', 'run')
    """
    last = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    stem = re.sub(r"\.(py(:\w+)?|csv|tsv|parquet|npz|gz)\Z", "", last)
    return re.sub(r"[^\w]+", "-", stem).strip("-")[:40] or "run"
