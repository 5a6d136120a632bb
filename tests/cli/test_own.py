"""A user's own file: what it may return, and what is said where it goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from descend.cli import own
from descend.errors import UsageError


@pytest.fixture(autouse=True)
def _imports_left_as_they_were() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def file(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(body)
    return f"{path}:make"


def test_a_tuple_and_a_dict(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("DATA = [1, 2]\n")
    made = own.make(file(tmp_path, "from neighbour import DATA\ndef make():\n    return 'm', 'l', DATA\n"))
    assert made == own.Own("m", "l", [1, 2])
    made = own.make(file(tmp_path, "def make():\n    return {'model': 'm', 'data': 'd'}\n"))
    assert made == own.Own("m", None, "d")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def mke():\n    pass\n", "has no function 'make' (did you mean 'mke'?)"),
        ("def make():\n    return 1, 2\n", "returned a tuple of 2; wanted (model, loss, data)"),
        ("def make():\n    pass\n", "returned NoneType; wanted"),
        ("def make():\n    return {'model': 1}\n", "has no 'data'"),
        ("def make():\n    return {'model': 1, 'data': 2, 'lr': 3}\n", "has an unknown 'lr'"),
    ],
)
def test_something_else_is_a_usage_error(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        own.make(file(tmp_path, body))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "def help():\n    return 1 / 0\n\n\ndef make():\n    return help()\n",
            "mine.py, line 2: ZeroDivisionError",
        ),
        ("import nowhere_to_be_found\n", "mine.py, line 1: ModuleNotFoundError"),
        ("def make(:\n", "mine.py, line 1: SyntaxError"),
    ],
)
def test_an_exception_names_the_users_line(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(own.OwnCodeError) as caught:
        own.make(file(tmp_path, body))
    assert message in str(caught.value)


def test_a_missing_file() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.py: there is no such file; wanted FILE\.py:FUNCTION"):
        own.make("nowhere.py:make")
