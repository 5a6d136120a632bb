"""`descend rules`: every update rule, a row each."""

from __future__ import annotations

import io
import re
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
    from ..formula import DIALECTS

    piped = not sys.stdout.isatty()
    page = io.StringIO()
    console = Console(highlight=False, file=page, width=400) if piped else Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    table.add_column("rule", style="cyan", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("what it does", ratio=3)
    table.add_column("dialects", ratio=1)
    table.add_column("hyper-parameters", ratio=3)
    table.add_column("source", style="dim", ratio=3 if piped else 2)
    for name in rules.names():
        rule = rules.get(name)
        hypers = ", ".join(f"{hyper.name}={_value(hyper.default)}" for hyper in rule.hypers)
        spoken = " ".join(word for word in DIALECTS if word in rule.dialects)
        source = rule.source if piped else _short(rule.source)
        table.add_row(name, rule.kind, rule.summary, spoken, hypers, source)
    console.print(table)
    if piped:
        click.echo("\n".join(line.rstrip() for line in page.getvalue().splitlines()))
    else:
        console.print("\n[dim]descend show RULE prints a rule's formula and the code made from it.[/]")


def _short(source: str) -> str:
    """The authors and the year: for a terminal's width.

    >>> _short("Kingma and Ba 2015, Algorithm 1, arXiv:1412.6980")
    'Kingma and Ba 2015'
    """
    found = re.match(r".*?\d{4}", source)
    return found[0] if found else source


def _value(default: object) -> str:
    return (
        f"{default:g}"
        if isinstance(default, (int, float)) and not isinstance(default, bool)
        else str(default)
    )
