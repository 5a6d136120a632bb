"""`descend rules`: every update rule, a row each."""

from __future__ import annotations

import sys

import click

from .app import debug_option


@click.command("rules")
@debug_option
def command() -> None:
    """List the update rules: what each does, its hyper-parameters and source."""
    from rich.console import Console
    from rich.table import Table

    from .. import rules

    piped = not sys.stdout.isatty()
    console = Console(highlight=False, width=400 if piped else None)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    table.add_column("rule", style="cyan", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("what it does", ratio=3)
    table.add_column("hyper-parameters", ratio=3)
    table.add_column("source", style="dim", ratio=3)
    for name in rules.names():
        rule = rules.get(name)
        hypers = ", ".join(f"{hyper.name}={_value(hyper.default)}" for hyper in rule.hypers)
        table.add_row(name, rule.kind, rule.summary, hypers, rule.source)
    if piped:
        with console.capture() as captured:
            console.print(table)
        click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
    else:
        console.print(table)
        console.print("\n[dim]descend show RULE prints a rule's formula and the code made from it.[/]")


def _value(default: object) -> str:
    return (
        f"{default:g}"
        if isinstance(default, (int, float)) and not isinstance(default, bool)
        else str(default)
    )
