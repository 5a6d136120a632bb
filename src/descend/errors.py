"""Errors that a person can act on. Each names what was given, what is allowed and what to do.

`exit_code` is what the command line answers with.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """A wrong argument, option or configuration."""

    exit_code = 2


class DataError(ValueError):
    """Data that cannot be read, or cannot be trained on."""

    exit_code = 3


class FormulaError(UsageError):
    """A formula outside the subset that the reader accepts; the message starts with file and line."""


class StorageError(OSError):
    """A run directory or checkpoint that cannot be written, read or trusted."""

    exit_code = 5


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the allowed name closest to `name`, or `""` when none is close.

    >>> nearest("adm", ["adam", "momentum"])
    " (did you mean 'adam'?)"
    """
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""
