"""`help(descend.Adam)` shows formula, arguments with ranges, and source: static text, held to the rules."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest
from optim_docstrings import expected

import descend

KINDS = sorted(descend.optim.CLASSES.values(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_docstring_says_what_the_rule_says(kind: type) -> None:
    """If this fails, run `python tests/optim/optim_docstrings.py`."""
    assert inspect.cleandoc(kind.__doc__ or "") == expected(kind)


@pytest.mark.parametrize("kind", [*KINDS, descend.optimizer], ids=lambda kind: kind.__name__)
def test_the_example_runs(kind: type) -> None:
    found = doctest.DocTestFinder(recurse=False).find(kind, kind.__name__)
    assert found
    assert found[0].examples
    for test in found:
        assert doctest.DocTestRunner().run(test).failed == 0


def test_the_books_page_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "optimizers.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0
