"""What the command line's tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from descend.cli import main


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def descend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(line: str | Sequence[str]) -> Said:
        code = main(line.split() if isinstance(line, str) else line)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run
