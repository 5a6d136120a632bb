"""The examples in the docstrings of the wrappers run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import descend.wrappers

MODULES = [f"descend.wrappers.{m.name}" for m in pkgutil.iter_modules(descend.wrappers.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


@pytest.mark.parametrize("wrapper", [w for w in descend.wrappers.__all__ if w != "Wrapper"])
def test_every_wrapper_has_one(wrapper: str) -> None:
    assert ">>> " in getattr(descend.wrappers, wrapper).__doc__
