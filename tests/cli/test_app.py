"""The shell around the commands: help, missing parts, an unwritable stdout, docstrings that run."""

from __future__ import annotations

import doctest
import errno
import importlib
import io
import sys
from typing import Any

import pytest

from descend.cli import main
from descend.cli.app import _COMMANDS

Command = Any
MODULES = ["", ".config", ".options", ".own", ".rules", ".summary", ".text", ".minimize"]


@pytest.mark.parametrize("name", list(_COMMANDS))
def test_every_command_explains_itself(descend: Command, name: str) -> None:
    for flag in ("-h", "--help"):
        said = descend([name, flag])
        assert said.code == 0
        assert said.out.startswith(f"Usage: descend {name} ")
        assert "--debug" in said.out


def test_without_a_command_the_help_is_shown_and_it_is_a_usage_error(descend: Command) -> None:
    said = descend([])
    assert said.code == 2
    assert all(name in said.err for name in _COMMANDS)


def test_a_missing_part_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "descend.cli.app")
    monkeypatch.setitem(sys.modules, "click", None)
    assert main(["rules"]) == 1
    assert 'pip install "descend[cli]"' in capsys.readouterr().err


class Full(io.StringIO):
    """A stdout on a full disk: what is buffered cannot be flushed."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_stdout_is_a_storage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["rules"]) == 5
    assert "No space left" in capsys.readouterr().err


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["rules"]) == 0
    assert main(["show", "nothing"]) == 2
    assert sys.stdout is None


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"descend.cli{name}"))
    assert found.attempted
    assert not found.failed
