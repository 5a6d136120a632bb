"""The page of a check: one line for each finding, its advice and table below it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from .check_subject import Finding

WIDTH = 100
_MARK = {"holds": "holds", "fails": "FAILS", "note": "note "}
_INDENT = 24


def heading(name: str) -> str:
    """The first line."""
    return f"check of {name}\n"


def line(finding: Finding) -> str:
    """A finding in a line or more, its advice below."""
    start = f"{_MARK[finding.word]}  {finding.area:<{_INDENT - 8}} "
    room = " " * _INDENT
    lines = textwrap.wrap(finding.said, WIDTH - _INDENT, break_long_words=False)
    said = f"\n{room}".join(lines)
    if finding.advice:
        advice = textwrap.wrap(finding.advice, WIDTH - _INDENT - 3, break_long_words=False)
        said += f"\n{room}-> " + f"\n{room}   ".join(advice)
    if finding.table:
        said += "\n\n" + table(finding.table) + "\n"
    return start + said


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of one width, the first row underlined."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "   ".join("-" * width for width in widths))
    return textwrap.indent("\n".join(lines), " " * 7)


def summary(findings: Sequence[Finding], seconds: float) -> str:
    """The last line: how many hold and how many do not."""
    count = {word: sum(finding.word == word for finding in findings) for word in _MARK}
    failed = f"{count['fails']} fail{'s' if count['fails'] == 1 else ''}" if count["fails"] else "none fails"
    return f"\n{count['holds']} hold, {failed}, {count['note']} to know of ({seconds:.1f} s)"
