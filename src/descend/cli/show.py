"""`descend show RULE`: the formula, its stages, and the code that each back end runs."""

from __future__ import annotations

import click

from .app import debug_option


@click.command("show")
@click.argument("rule")
@click.option("--dialect", help="Whose form of it: torch, keras, optax or paper.")
@debug_option
def command(rule: str, dialect: str | None) -> None:
    """Show RULE: its formula as written, what is computed when, and the code of each back end."""
    from .. import kernels, rules

    click.echo(kernels.show(rules.get(rule, dialect)))
