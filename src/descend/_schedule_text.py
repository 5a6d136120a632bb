"""Reads a schedule's text, by Python's own parser and never by `eval`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import UsageError, nearest
from .schedules import KINDS, Chain, Constant, Schedule, Warmup, need


def read(text: str, base: float | None, total: int | None) -> Schedule:
    """What `schedules.parse` promises."""
    if not isinstance(text, str):
        raise UsageError(f"schedule {text!r}: give a text such as 'cosine' or 'step(0.1, every=100)'")
    source = re.sub(r"(?<=[A-Za-z])-(?=[A-Za-z])", "_", text.strip())
    source = re.sub(r"(\d+(?:\.\d*)?)\s*%", r"share(\1)", source)
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError):
        raise UsageError(
            f"schedule {text!r} cannot be read: write a name, or a name with its arguments, "
            "as in 'cosine' or 'step(0.1, every=100, factor=0.5)'"
        ) from None
    found = _Reader(text, base, total).read(tree)
    if not isinstance(found, Schedule):
        raise UsageError(f"schedule {text!r} is no schedule: give one of {', '.join(KINDS)}")
    return found


@dataclass(frozen=True)
class _Reader:
    text: str
    base: float | None
    total: int | None

    def read(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.read(node.operand)
        if isinstance(node, (ast.List, ast.Tuple)):
            return tuple(self.read(part) for part in node.elts)
        if isinstance(node, ast.Name):
            return self._make(node.id, [], {})
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "share":
                return round(self._total("a share in %") * self.read(node.args[0]) / 100)
            named = {word.arg: word.value for word in node.keywords if word.arg}
            return self._make(node.func.id, node.args, named)
        raise UsageError(
            f"schedule {self.text!r} cannot be read at {ast.unparse(node)!r}; write as in "
            "cosine, exponential(0.1, 0.99) or warmup(cosine, steps=5%)"
        )

    def _make(self, word: str, args: list[ast.expr], named: Mapping[str, ast.expr]) -> Schedule:
        name = word.replace("_", "-")
        if name not in KINDS:
            raise UsageError(
                f"unknown schedule {name!r}{nearest(name, KINDS)}: give one of {', '.join(KINDS)}"
            )
        kind = KINDS[name]
        order = [field.name for field in fields(kind) if field.name != "value" or kind not in (Warmup, Chain)]
        if kind is Chain:
            parts = [self.read(node) for node in args]
            given: dict[str, Any] = {"parts": tuple(parts)}
        else:
            need(len(args) <= len(order), f"schedule {self.text!r}: {name} takes {', '.join(order)}")
            given = dict(zip(order, args, strict=False))
        for key, node in named.items():
            if key not in order or key in given:
                raise UsageError(
                    f"schedule {self.text!r}: {name} takes {', '.join(order)}{nearest(key, order)}"
                )
            given[key] = node
        if kind is Warmup:
            return self._warmup(given)
        values = {key: self.read(n) if isinstance(n, ast.expr) else n for key, n in given.items()}
        return _built(kind, self._filled(kind, values))

    def _warmup(self, given: dict[str, ast.expr]) -> Schedule:
        values = {key: self.read(node) for key, node in given.items() if key != "then"}
        if "steps" not in values:
            values["steps"] = round(self._total("warmup without steps=") * 0.05)
        left = None if self.total is None else max(1, self.total - int(values["steps"]))
        then = (
            replace(self, total=left).read(given["then"])
            if "then" in given
            else Constant(self._base("warmup"))
        )
        return _built(Warmup, {"then": then, **values})

    def _filled(self, kind: type[Schedule], values: dict[str, Any]) -> dict[str, Any]:
        own = {field.name for field in fields(kind)}
        if kind is not Chain and "value" not in values:
            values["value"] = self._base(kind.name)
        if "total" in own and "total" not in values:
            values["total"] = self._total(kind.name)
        missing = [key for key in _THUMB.get(kind.name, {}) if key not in values]
        for key in missing:
            total = values["total"] if "total" in values else self._total(f"{kind.name} without {key}=")
            values[key] = _THUMB[kind.name][key](values, total)
        return values

    def _base(self, name: str) -> float:
        if self.base is None:
            raise UsageError(
                f"schedule {self.text!r}: {name} needs a value to start from, as in '{name}(0.1, ...)'"
            )
        return self.base

    def _total(self, name: str) -> int:
        if self.total is None:
            raise UsageError(
                f"schedule {self.text!r}: {name} needs the number of steps: limit the run by steps or "
                "epochs, or give it in the schedule, as in 'cosine(total=1000)'"
            )
        return self.total


def _built(kind: type[Schedule], values: dict[str, Any]) -> Schedule:
    try:
        for key, given in values.items():
            if key in ("value", "start", "end", "factor", "rate", "power", "rise", "low", "threshold"):
                values[key] = float(given)
            elif key in ("total", "every", "steps", "warmup", "decay", "patience", "cooldown"):
                need(int(given) == given, f"{kind.name}: {key}={given} must be a whole number")
                values[key] = int(given)
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"schedule {kind.name}: {error}") from None


# Rules of thumb for what a text leaves out: (the values so far, the number of steps) -> the value.
_THUMB: dict[str, dict[str, Any]] = {
    "step": {"every": lambda v, total: max(1, -(-total // 3))},
    "multi-step": {"at": lambda v, total: tuple(sorted({total // 2, total * 3 // 4}))},
    "exponential": {"factor": lambda v, total: 0.01 ** (1.0 / total)},
    "inverse-time": {"rate": lambda v, total: 9.0 / total},
    "one-cycle": {"start": lambda v, total: v["value"] / 25.0, "end": lambda v, total: v["start"] / 1e4},
    "warmup-stable-decay": {
        "warmup": lambda v, total: round(total * 0.05),
        "decay": lambda v, total: round(total * 0.2),
    },
}
