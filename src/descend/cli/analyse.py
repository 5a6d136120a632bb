"""`descend analyse RULE`: what its formula says of a rule, checked by running it."""

from __future__ import annotations

import click

from .app import debug_option


@click.command("analyse")
@click.argument("rule")
@click.option("--dialect", help="Whose form of it: torch, keras, optax or paper.")
@debug_option
def command(rule: str, dialect: str | None) -> None:
    """Read from the formula of RULE its first step, stable range, invariances and limits, and check each.

    RULE is a name of `descend rules`, or a file with a formula: my_rule.py, or my_rule.py:name.
    """
    from .. import rules, study

    click.echo(str(study.analyse(rules.get(rule, dialect))))
