"""`descend show RULE`: the formula, its stages, and the code that each back end runs."""

from __future__ import annotations

import click

from .app import debug_option


@click.command("show")
@click.argument("rule")
@debug_option
def command(rule: str) -> None:
    """Show RULE: its formula as written, what is computed when, and the code of each back end."""
    from .. import kernels, rules

    click.echo(kernels.show(rules.get(rule)))
