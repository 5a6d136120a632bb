"""A user's own model, loss and data from a Python file: `descend fit mine.py:make`."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError, nearest

_FORM = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)\Z")
_PARTS = ("model", "loss", "data")


@dataclass(frozen=True)
class Own:
    """What a user's function made: a `torch.nn.Module`, its loss (None: one that suits), the data."""

    model: Any
    loss: Any
    data: Any


class OwnCodeError(Exception):
    """The user's own code raised; the message says where."""


def is_own(source: str) -> bool:
    """Whether `source` names a function in a Python file.

    >>> is_own("mine.py:make"), is_own("table.csv"), is_own("C:/work/mine.py:make")
    (True, False, True)
    """
    return _FORM.match(source) is not None


def absolute(source: str) -> str:
    """`source` with the whole path of its file, so that a run finds it again from anywhere."""
    form = _FORM.match(source)
    assert form is not None
    return f"{Path(form['file']).resolve()}:{form['name']}"


def make(source: str) -> Own:
    """Runs the function that `source` names, `FILE.py:FUNCTION`, and takes what it returns.

    The function takes no arguments and returns `(model, loss, data)`, or a dict with these names of which
    `loss` may be left out. `data` is anything that `descend.data.load` takes: a pair of tensors, a `Dataset`.

    Raises:
        UsageError: no such file or function, or something else returned.
        OwnCodeError: the user's code raised an exception.
    """
    form = _FORM.match(source)
    assert form is not None
    path, name = Path(form["file"]), form["name"]
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; wanted FILE.py:FUNCTION, as in mine.py:make")
    module = _loaded(path)
    function = getattr(module, name, None)
    if not callable(function):
        functions = [
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        ]
        raise UsageError(f"{path} has no function '{name}'{nearest(name, functions)}")
    try:
        made = function()
    except Exception as error:
        raise OwnCodeError(_where(error, path)) from error
    return _taken(made, source)


def _loaded(path: Path) -> Any:
    name = path.stem if path.stem not in sys.modules else f"own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # the file's neighbours, as when Python runs it
    sys.modules[name] = module  # so that a DataLoader's workers and dataclasses find it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise OwnCodeError(_where(error, path)) from error
    return module


def _taken(made: Any, source: str) -> Own:
    wanted = "wanted (model, loss, data), or a dict with model, data and perhaps loss"
    if isinstance(made, Mapping):
        unknown = [key for key in made if key not in _PARTS]
        missing = [key for key in ("model", "data") if key not in made]
        if unknown or missing:
            what = f"has no '{missing[0]}'" if missing else f"has an unknown '{unknown[0]}'"
            raise UsageError(f"the dict that {source} returned {what}; {wanted}")
        return Own(made["model"], made.get("loss"), made["data"])
    if isinstance(made, tuple) and len(made) == len(_PARTS):
        return Own(*made)
    raise UsageError(f"{source} returned {_described(made)}; {wanted}")


def _described(made: Any) -> str:
    return f"a tuple of {len(made)}" if isinstance(made, tuple) else f"{type(made).__name__}"


def _where(error: Exception, path: Path) -> str:
    """The last line of the user's own file on the way to the error."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = own[-1].lineno if own else getattr(error, "lineno", None)
    place = f"{path}, line {line}" if line else str(path)
    return f"{place}: {type(error).__name__}: {error}"
