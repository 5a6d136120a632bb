"""`check`: tests a rule and says in one page what holds and what does not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from .. import rules
from ..errors import UsageError
from ..formula import Rule, rule_of, stage
from .check_agreement import agreement, threads
from .check_descent import descents
from .check_formula import behaviour, formula
from .check_gradients import gradients
from .check_page import heading, line, summary
from .check_speed import memory_limit
from .check_state import groups, range_ends, schedules, state
from .check_subject import Finding, Subject, fails, note

Given = str | os.PathLike[str] | Rule | Callable[..., Any]

_CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    behaviour,
    agreement,
    state,
    groups,
    schedules,
    range_ends,
    gradients,
    descents,
)
"""All but the first, and the last two, which want the threads as they are."""


@dataclass(frozen=True)
class Check:
    """What the checks of a rule have found; `str()` gives the page.

    Attributes:
        name: the rule's name.
        findings: one for each thing that was looked at, in order.
        seconds: how long it took.
    """

    name: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """What does not hold."""
        return tuple(finding for finding in self.findings if finding.word == "fails")

    def __str__(self) -> str:
        body = "\n".join(map(line, self.findings))
        return f"{heading(self.name)}\n{body}\n{summary(self.findings, self.seconds)}"


def check(rule: Given, *, quick: bool = False, listener: Callable[[Finding], None] | None = None) -> Check:
    """Tests a rule: its formula, back ends, states, odd gradients, descents and speed.

    Args:
        rule: a name of `descend rules`, a file such as "my_rule.py", a Rule or a bare formula.
        quick: fewer types, shapes, problems and steps.
        listener: called with each finding as soon as it is there.

    Returns:
        A `Check`: `check.holds` says whether all holds, `str(check)` is the page.

    Raises:
        UsageError: no such rule or file.
        FormulaError: a formula that cannot be read.

    >>> def climber(p, g, lr=0.01):
    ...     p = p + lr * g
    ...     return p
    >>> found = check(climber, quick=True)
    >>> found.holds, found.failures[0].said
    (False, 'the steps climb: 10 of 10 go up the gradient')
    """
    given = rules.get(os.fspath(rule)) if isinstance(rule, (str, os.PathLike)) else rule_of(rule)
    stage(given)
    subject = Subject(given, quick)
    found: list[Finding] = []
    begin = time.perf_counter()
    for finding in _findings(subject):
        found.append(finding)
        if listener is not None:
            listener(finding)
    return Check(given.name, tuple(found), time.perf_counter() - begin)


def _findings(subject: Subject) -> Iterator[Finding]:
    first = list(guarded(formula, subject))
    yield from first
    if any(finding.word == "fails" and finding.area == "ranges" for finding in first):
        yield note("the rest", "nothing else can be run: no optimizer takes such defaults")
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # most of it is small, and two threads on a busy machine wait for one another
    try:
        for one in _CHECKS:
            yield from guarded(one, subject)
    finally:
        torch.set_num_threads(before)
    yield from guarded(threads, subject)
    yield from guarded(memory_limit, subject)


def guarded(one: Callable[[Subject], Iterator[Finding]], subject: Subject) -> Iterator[Finding]:
    """The findings of one check; what it raises is a finding too, and the other checks go on."""
    try:
        yield from one(subject)
    except Exception as error:
        advice = "see what is allowed" if isinstance(error, UsageError) else "report it, with the formula"
        yield fails(one.__name__.replace("_", " "), f"raised {type(error).__name__}: {error}", advice)
