"""The examples in the docstrings of the wrappers run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import descend.wrappers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "wrappers.md"
MODULES = [f"descend.wrappers.{m.name}" for m in pkgutil.iter_modules(descend.wrappers.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


@pytest.mark.parametrize("wrapper", [w for w in descend.wrappers.__all__ if w != "Wrapper"])
def test_every_wrapper_has_one(wrapper: str) -> None:
    assert ">>> " in getattr(descend.wrappers, wrapper).__doc__


def test_the_program_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    exec(program, {})
    assert 0 < float(capsys.readouterr().out) < 2
