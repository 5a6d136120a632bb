"""`descend export RULE`: one dependency-free file, the rule as a plain torch optimizer."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import StorageError
from .app import debug_option


@click.command("export")
@click.argument("rule")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The file to write. [default: stdout]"
)
@click.option("--dialect", help="Whose form of it: torch, keras, optax or paper.")
@debug_option
def command(rule: str, dialect: str | None, out: Path | None) -> None:
    """Write RULE as one Python file that needs nothing but torch, to hand to someone without descend.

    RULE is a name of `descend rules`, or a file with a formula: my_rule.py, or my_rule.py:name.
    """
    from .. import rules, study

    text = study.export(rules.get(rule, dialect))
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"--out {out} cannot be written: {error.strerror}") from None
    click.echo(f"{rule} in {out}", err=True)
