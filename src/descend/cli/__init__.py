"""The command line. `main` is what `descend` runs; each command is a file of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_PARTS = ("click", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        argv: the arguments after the program's name; those of the process unless given.

    Returns:
        0 stopped normally, 1 error, 2 usage, 3 data, 4 diverged, 5 storage, 130 SIGINT, 143 SIGTERM.

    >>> main(["--version"])
    descend 0.1.0
    0
    """
    try:
        from .app import run
    except ModuleNotFoundError as missing:
        if missing.name not in _PARTS:
            raise
        print(
            f"descend: error: the command line needs {missing.name}, which is not installed. "
            'Install it with: pip install "descend[cli]"',
            file=sys.stderr,
        )
        return 1
    return run(sys.argv[1:] if argv is None else argv)
