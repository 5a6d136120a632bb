"""Parts of an exported line: the Python of an expression, and what is known of its value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..formula.masks import Mask

WHOLE = (-math.inf, math.inf)


@dataclass(frozen=True)
class Piece:
    """An expression as text.

    `level` is how tightly its outermost operator binds. `kind` is "float" (of the host), "number" (a float64
    tensor without dimensions) or "tensor". A float lies from `low` to `high`, and is not zero where
    `nonzero` says so. `alias` tells that the text may name a tensor which later lines change in place,
    `optional` that it may be None.
    """

    text: str
    level: int
    kind: str
    low: float = -math.inf
    high: float = math.inf
    nonzero: bool = False
    alias: bool = False
    optional: bool = False

    @property
    def is_float(self) -> bool:
        """Whether the host computes it."""
        return self.kind == "float"

    @property
    def may_be_zero(self) -> bool:
        """Whether a division by it could fail."""
        return self.low <= 0 <= self.high and not self.nonzero

    def at(self, level: int) -> str:
        """The text where an operator of that level stands around it."""
        return f"({self.text})" if self.level < level else self.text


def inside(low: float, high: float, with_low: bool, with_high: bool) -> tuple[float, float]:
    """The floats of an interval; an open end is left out."""
    return (
        low if with_low or math.isinf(low) else math.nextafter(low, math.inf),
        high if with_high or math.isinf(high) else math.nextafter(high, -math.inf),
    )


def joined_kind(*pieces: Piece) -> str:
    """What comes of several values in one operation."""
    kinds = {piece.kind for piece in pieces}
    return "tensor" if "tensor" in kinds else "number" if "number" in kinds else "float"


_LEVELS = {"+": 2, "-": 2, "*": 3, "/": 3, "**": 5}


def binary(op: str, x: Piece, y: Piece) -> Piece:
    """An arithmetic operation; of floats that could raise, a function that gives infinity or NaN instead."""
    level = _LEVELS[op]
    kind = joined_kind(x, y)
    low, high = _bounds(op, x, y) if kind == "float" else WHOLE
    if kind == "float" and op == "/" and y.may_be_zero:
        return Piece(f"_divide({x.text}, {y.text})", 9, kind)
    if kind == "float" and op == "**" and not _power_is_safe(x, y):
        return Piece(f"_power({x.text}, {y.text})", 9, kind)
    if op == "**":
        simple = _is_simple(x.text) and _is_simple(y.text)
        text = f"{x.at(6)}{'**' if simple else ' ** '}{y.at(5)}"
    else:
        text = f"{x.at(level)} {op} {y.at(level + 1)}"
    return Piece(text, level, kind, low, high)


def negative(x: Piece) -> Piece:
    """-x."""
    return Piece(f"-{x.at(4)}", 4, x.kind, -x.high, -x.low, x.nonzero)


def _is_simple(text: str) -> bool:
    """Whether formatters write a power of it without spaces."""
    return text.replace("_", "").replace(".", "").isalnum()


def _power_is_safe(x: Piece, y: Piece) -> bool:
    whole = y.low == y.high == int(y.low) if math.isfinite(y.low) else False
    return (x.low > 0) or (x.low >= 0 and y.low >= 0) or (whole and y.low >= 0)


def _bounds(op: str, x: Piece, y: Piece) -> tuple[float, float]:
    operations: dict[str, Callable[[float, float], float]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: 0.0 if a == 0 or b == 0 else a * b,
        "/": lambda a, b: a / b,
        "**": lambda a, b: a**b,
    }
    if (op == "/" and y.low <= 0 <= y.high) or (op == "**" and x.low < 0):
        return WHOLE
    try:
        corners = [operations[op](a, b) for a in (x.low, x.high) for b in (y.low, y.high)]
    except (ArithmeticError, ValueError):
        return WHOLE
    if any(c != c for c in corners):
        return WHOLE
    return min(corners), max(corners)


def refined(known: dict[str, Piece], left: Piece, op: str, right: Piece, holds: bool) -> dict[str, Piece]:
    """What is known of the names where a comparison of floats does, or does not, hold."""
    found = dict(known)
    opposite = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
    turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
    op = op if holds else opposite[op]
    for one, other, how in ((left, right, op), (right, left, turned[op])):
        word = next((word for word, piece in known.items() if piece == one and piece.is_float), None)
        if word is None:
            continue
        if how in ("<", "<="):
            high = other.high if how == "<=" else math.nextafter(other.high, -math.inf)
            found[word] = replace(found[word], high=min(one.high, high))
        elif how in (">", ">="):
            low = other.low if how == ">=" else math.nextafter(other.low, math.inf)
            found[word] = replace(found[word], low=max(one.low, low))
        elif how == "!=" and other.low == other.high == 0:
            found[word] = replace(found[word], nonzero=True)
    return found


def tensor(word: str, alias: bool | None = None) -> Piece:
    """A tensor by its name; all but g may be changed in place."""
    return Piece(word, 9, "tensor", alias=word != "g" if alias is None else alias)


def condition_of(mask: Mask) -> str:
    """Whether a parameter of `ndim` dimensions is among those of a mask."""
    assert mask.ndim is not None
    first, *more = sorted(mask.ndim)
    if more:
        return f"ndim {'not in' if mask.out else 'in'} {tuple(sorted(mask.ndim))}"
    return f"ndim {'!=' if mask.out else '=='} {first}"


REDUCTIONS = {
    "sum": "_total",
    "mean": "_mean",
    "max": "_largest",
    "norm": "_norm",
    "global_sum": "_total",
    "global_mean": "_total",
    "global_max": "_largest",
    "global_norm": "_norm",
}
"""What each word that sums is called in an exported file."""
