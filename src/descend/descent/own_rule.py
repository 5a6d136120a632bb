"""A rule of one's own in a run: its text is kept in the run directory, and a resume reads it there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import rules
from ..errors import StorageError, UsageError
from ..formula import Rule
from ..optim.rule_optimizer import RuleOptimizer, class_of
from ..record import storing
from ..rules import kept, loading

FILE = "rule.py"
TABLE = "own_rule"


@dataclass(frozen=True)
class Keeping:
    """What a run keeps of a rule: the table of its `config.toml`, and its text."""

    table: dict[str, Any]
    text: bytes

    @property
    def files(self) -> dict[str, bytes]:
        """As a part of the run directory."""
        return {FILE: self.text}


def keeping(maker: Callable[..., Any] | None, name: str) -> Keeping | None:
    """What to keep of the rule that `maker` makes optimizers of; None where it is built in, or no formula."""
    if not (isinstance(maker, type) and issubclass(maker, RuleOptimizer)):
        return None
    rule = maker.the_rule
    if rules.name_of(rule):
        return None
    try:
        text = kept.text_of(rule).encode()
    except UsageError:
        return None
    table: dict[str, Any] = {"kept": FILE, "sha256": _hash(text)}
    if loading.is_file(name):
        table["file_sha256"] = _hash(loading.parts(name)[0].read_bytes())
    return Keeping(table, text)


def again(run: Path, config: Mapping[str, Any], given: Any) -> tuple[type[RuleOptimizer] | None, list[str]]:
    """The optimizer class of the rule that a run has kept, and what to tell; None where it kept none.

    Where the rule was `given` again, the kept one is not looked at.

    Raises:
        StorageError: the text is missing, or is not what the run wrote.
    """
    rule = kept_rule(run, config) if given is None else None
    if rule is None:
        return None, []
    name, path = config["rule"]["name"], run / FILE
    why = None
    if loading.is_file(name):
        file = loading.parts(name)[0]
        if not file.is_file():
            why = f"{file} is no longer there"
        elif _hash(file.read_bytes()) != config[TABLE]["file_sha256"]:
            why = f"{file} has changed since the run began"
    elif not name.startswith("own:"):
        try:
            same = kept.text_of(rules.get(name)) == kept.text_of(rule)
            why = None if same else f"the installed rule {name} is not the one that the run began with"
        except UsageError as error:
            why = str(error)
    return class_of(rule), [f"{why}: the run goes on with the rule as it was, kept in {path}"] if why else []


def kept_rule(run: Path, config: Mapping[str, Any]) -> Rule | None:
    """The rule that a run has kept, or None.

    Raises:
        StorageError: the text is missing, or is not what the run wrote.
    """
    if TABLE not in config:
        return None
    path = run / FILE
    with storing(path, "read"):
        text = path.read_bytes()
    if _hash(text) != config[TABLE]["sha256"]:
        raise StorageError(
            f"{path}: is not the rule that the run was made with (its hash is another one): "
            f"restore it, or start a new run with --rule {path}"
        )
    try:
        return kept.from_text(text.decode(), str(path))
    except UsageError as error:
        raise StorageError(str(error)) from error


def whole_name(rule: str) -> str:
    """A rule's name as a configuration has it: a file with its whole path."""
    if not loading.is_file(rule):
        return rule
    path, name = loading.parts(rule)
    return f"{path.resolve()}:{name}" if name else str(path.resolve())


def is_formula(given: Any) -> bool:
    """Whether something is a Rule, or a bare formula: a function of p and g."""
    if isinstance(given, (type, torch.optim.Optimizer)):
        return False
    code = getattr(given, "__code__", None)
    return isinstance(given, Rule) or (
        code is not None and {"p", "g"} <= set(code.co_varnames[: code.co_argcount])
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
