"""The examples in the docstrings of the data, the models and the initialisers run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import descend.data

MODULES = [f"descend.data.{m.name}" for m in pkgutil.iter_modules(descend.data.__path__)]


@pytest.mark.parametrize("name", ["descend.data", *MODULES, "descend.models", "descend.initialisers"])
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    counted = [t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples]
    assert len(counted) >= 10
