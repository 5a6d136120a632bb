"""`descend report RUN ...`: one HTML page for one run, or for several side by side."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from .app import debug_option


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="The file to write. [default: report.html in the run]"
)
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@debug_option
def command(runs: tuple[Path, ...], out: Path | None, show: bool) -> None:
    """Write one self-contained HTML page, readable offline, for RUN; several are put side by side."""
    from .. import report

    path = report.write(list(runs), out=out)
    click.echo(path)
    if show:
        webbrowser.open(path.resolve().as_uri())
