"""`descend check RULE`: tests a rule and says what holds and what does not."""

from __future__ import annotations

import click

from .app import debug_option


@click.command("check")
@click.argument("rule", metavar="RULE")
@click.option("--quick", is_flag=True, help="Fewer types, shapes, problems and steps: a few seconds.")
@click.option("--dialect", help="Whose form of it: torch, keras, optax or paper.")
@debug_option
def command(rule: str, quick: bool, dialect: str | None) -> int:
    """Test RULE, a name of `descend rules` or a file of yours, and say what holds and what does not.

    \b
    descend check my_rule.py
    descend check my_rule.py:mine --quick
    descend check adam

    The exit code is 0 where all holds, 1 where something does not.
    """
    from .. import rules
    from ..study import check
    from ..study.check_page import heading, line, summary
    from ..study.check_subject import Finding

    started = False

    def show(finding: Finding) -> None:
        nonlocal started
        if not started:
            click.echo(heading(rule))
            started = True
        word, text = line(finding)[:5], line(finding)[5:]
        colour = {"holds": "green", "fails": "red"}.get(finding.word)
        click.echo(click.style(word, fg=colour, bold=finding.word == "fails") + text)

    found = check(rules.get(rule, dialect) if dialect else rule, quick=quick, listener=show)
    click.echo(summary(found.findings, found.seconds))
    return 0 if found.holds else 1
