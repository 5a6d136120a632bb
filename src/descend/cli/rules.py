"""`descend rules`: every update rule, a row each."""

from __future__ import annotations

import io
import re
import sys

import click

from .app import debug_option

_WIDE = 150  # columns of a terminal that has room for every hyper-parameter


@click.command("rules")
@debug_option
def command() -> None:
    """List the update rules: what each does and keeps, its hyper-parameters and source.

    State is in bytes an element of a float32 parameter; passes are sweeps over memory in a step.
    """
    from rich.console import Console
    from rich.table import Table

    from .. import rules
    from ..errors import UsageError
    from ..formula import DIALECTS, stage
    from ..study.costs import state_bytes

    piped = not sys.stdout.isatty()
    page = io.StringIO()
    console = Console(highlight=False, file=page, width=600) if piped else Console(highlight=False)
    wide = console.width >= _WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    table.add_column("rule", style="cyan", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("state", no_wrap=piped, max_width=None if piped else 15)
    table.add_column("passes", justify="right", no_wrap=True)
    table.add_column("what it does", ratio=3)
    if wide:
        table.add_column("dialects", ratio=1)
        table.add_column("hyper-parameters", ratio=3)
    table.add_column("source", style="dim", ratio=3 if piped else 2)
    notices = list(rules.notices())
    for name in rules.names():
        try:
            rule = rules.get(name)
            cost = state_bytes(rule), str(stage(rule).sweeps)
        except UsageError as error:
            notices.append(str(error))
            continue
        hypers = ", ".join(f"{hyper.name}={_value(hyper.default)}" for hyper in rule.hypers)
        spoken = " ".join(word for word in DIALECTS if word in rule.dialects)
        source = rule.source if piped else _short(rule.source)
        table.add_row(name, rule.kind, *cost, rule.summary, *((spoken, hypers) if wide else ()), source)
    console.print(table)
    if piped:
        click.echo("\n".join(line.rstrip() for line in page.getvalue().splitlines()))
    else:
        console.print(
            "\n[dim]State: bytes an element in float32. descend show RULE prints a rule's formula and code, "
            "descend check RULE tests it.[/]"
        )
    for notice in notices:
        click.echo(f"note: {notice}", err=True)


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
