"""`--resume`: a run that was stopped or killed goes on, as it was configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from . import own, progress, summary


def go_on(ctx: click.Context, directory: Path, quiet: bool) -> int:
    """Continues the run in `directory`, of either kind, and gives the exit code.

    Raises:
        UsageError: other settings were given beside it.
    """
    _refuse_others(ctx)
    return _resume(directory, quiet)


def _refuse_others(ctx: click.Context) -> None:
    """`--resume` takes everything from the run; a second source of settings would contradict it."""
    allowed = {"resume", "quiet"}
    given = [
        param.opts[0] if isinstance(param, click.Option) else "SOURCE"
        for param in ctx.command.params
        if param.name not in allowed
        and param.name is not None
        and ctx.get_parameter_source(param.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"--resume goes on with the run as it was configured; leave out {', '.join(given)}. "
            "To start from its configuration with changes: descend fit --config RUN/config.toml ..."
        )


def _resume(directory: Path, quiet: bool) -> int:
    from .. import descent, record

    config = record.read(directory).config
    source = str(config.get("data", {}).get("source", ""))
    given: dict[str, Any] = {}
    if own.is_own(source):
        made = own.make(source)
        given = {"model": made.model, "data": made.data, "loss": made.loss}
    with progress.choose(directory.name, quiet=quiet, minutes=config.get("stop", {}).get("minutes")) as shown:
        found = descent.resume(directory, listener=shown, **given)
    return summary.finish(directory, found, quiet)
