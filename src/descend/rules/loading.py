"""Rules in files of one's own: `my_rule.py`, or `my_rule.py:name` where a file holds several.

A file is run as Python runs it. Its rule is the `Rule` or the bare formula (a function of `p` and `g`) that
it defines; what it imports, what changes only `g` or `u`, and the parts of a chain do not count.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ..errors import FormulaError, UsageError, nearest
from ..formula import Rule, rule_of

OWN = "own_rule_"
"""What the names of the modules begin with that files of one's own are run as."""

_FORM = re.compile(r"(?P<file>.*\.py)(?::(?P<name>[^\W\d]\w*))?\Z", re.DOTALL)


def is_file(source: str) -> bool:
    """Whether `source` names a Python file, or a rule in one.

    >>> is_file("my_rule.py"), is_file("C:/rules/my_rule.py:mine"), is_file("adam")
    (True, True, False)
    """
    return _FORM.match(source) is not None


def is_own(rule: Rule) -> bool:
    """Whether a part of a rule comes from a file that was loaded here, and that Python cannot import."""
    return any(formula.function.__module__.startswith(OWN) for formula in rule)


def parts(source: str) -> tuple[Path, str | None]:
    """The file and the name in it, where one is given.

    >>> parts("my_rule.py:mine")[1]
    'mine'
    """
    form = _FORM.match(source)
    assert form is not None
    return Path(form["file"]), form["name"]


def load(source: str) -> Rule:
    """The rule in a file: `my_rule.py`, or `my_rule.py:name`. One and the same for one text of the file.

    Raises:
        UsageError: no such file, none or several rules in it, or code that raises (with file and line).
        FormulaError: a formula that cannot be read.
    """
    path, name = parts(source)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{path}: there is no such file; wanted FILE.py or FILE.py:NAME, as in my_rule.py"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return _loaded(str(path), str(path.resolve().parent), content, name)


@cache
def _loaded(file: str, folder: str, content: bytes, name: str | None) -> Rule:
    with reading(file, content):
        module = _executed(file, folder, content)
        found = _named(module, file, name) if name else _only(module, file)
        rule = rule_of(found)
        read(rule)
    return rule


def read(rule: Rule) -> None:
    """Read all formulas of a rule while their text is at hand: the file may change."""
    _ = rule.outputs
    for formula in rule:
        for other in formula.otherwise:
            _ = other.reading


@contextmanager
def reading(file: str, content: bytes) -> Iterator[None]:
    """While formulas are read, `file` has this content, whatever is on the disk by then."""
    try:
        lines = importlib.util.decode_source(content).splitlines(keepends=True)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: is no Python text: {error}") from error
    linecache.cache[file] = (len(content), None, lines, file)  # without a time nobody looks at the disk
    try:
        yield
    finally:
        linecache.cache.pop(file, None)


def _executed(file: str, folder: str, content: bytes) -> ModuleType:
    module = ModuleType(f"{OWN}{hashlib.sha256(file.encode() + content).hexdigest()[:12]}")
    module.__file__ = file
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    sys.path.insert(0, folder)  # the file's neighbours, as when Python runs it
    try:
        exec(compile(content, file, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _placed(error, file) from error
    finally:
        sys.path.remove(folder)
    return module


def _placed(error: BaseException, file: str) -> UsageError:
    """The error with the last line of the person's own file on the way to it."""
    if isinstance(error, FormulaError) and str(error).startswith(f"{file}:"):
        return error
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    line, said = own[-1].lineno if own else None, str(error)
    if isinstance(error, SyntaxError) and error.filename == file:
        line, said = error.lineno, error.msg
    what = said if isinstance(error, UsageError) else f"{type(error).__name__}: {said}"
    shown = linecache.getline(file, line).strip() if line else ""
    return UsageError(f"{file}{f':{line}' if line else ''}: {what}" + (f"\n    {shown}" if shown else ""))


def _own(module: ModuleType) -> dict[str, Rule | FunctionType]:
    """What the file itself defines that is a rule or may be a formula."""
    found: dict[str, Rule | FunctionType] = {}
    for name, value in vars(module).items():
        if isinstance(value, Rule):
            functions = [formula.function for formula in value]
            if len(functions) > 1 or functions[0].__globals__ is vars(module):
                found[name] = value
        elif isinstance(value, FunctionType) and value.__globals__ is vars(module):
            found[name] = value
    return found


def _named(module: ModuleType, file: str, name: str) -> Any:
    found = getattr(module, name, None)
    if isinstance(found, (Rule, FunctionType)):
        return found
    held = list(_own(module))
    if found is not None:
        raise UsageError(f"{file}: {name!r} is a {type(found).__name__}, neither a Rule nor a function")
    said = f"; it defines {', '.join(held)}" if held else "; it defines no rule"
    raise UsageError(f"{file} has no {name!r}{nearest(name, held)}{said}")


def _only(module: ModuleType, file: str) -> Any:
    own = {
        name: value for name, value in _own(module).items() if not name.startswith("_") and _is_rule(value)
    }
    left: dict[str, Any] = {}
    for name, value in own.items():  # what a later one is made of does not count
        functions = _functions(value)
        left = {n: v for n, v in left.items() if not _functions(v) <= functions} | {name: value}
    if len(left) == 1:
        return next(iter(left.values()))
    if left:
        raise UsageError(
            f"{file} defines several rules ({', '.join(left)}): say which one, "
            f"as in {file}:{next(iter(left))}"
        )
    others = [name for name, value in _own(module).items() if isinstance(value, FunctionType)]
    said = f"; it defines {', '.join(others)}" if others else ""
    raise UsageError(
        f"{file} holds no rule: write a function of p and g, as in def mine(p, g, lr=0.01): ...{said}"
    )


def _functions(value: Rule | FunctionType) -> set[Any]:
    if not isinstance(value, Rule):
        return {value}
    return {part.function for formula in value for part in (formula, *formula.otherwise)}


def _is_rule(value: Rule | FunctionType) -> bool:
    """Whether a formula goes from g to p; one that cannot be read counts, so that its error is seen."""
    if isinstance(value, FunctionType) and not {"p", "g"} <= set(inspect.signature(value).parameters):
        return False
    try:
        return any(formula.place == "rule" for formula in rule_of(value))
    except FormulaError:
        return True
