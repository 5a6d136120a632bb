"""The words of a formula. Each works on float64 NumPy arrays as it stands: that is the reference.

A formula is made of assignments, `+ - * / **`, comparisons and these words, nothing else.
Comparisons only choose inside `where`; every word lets NaN through.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def sqrt(x: Any) -> Any:
    """The square root; NaN below zero."""
    return np.sqrt(x)


def abs(x: Any) -> Any:
    """The distance from zero."""
    return np.abs(x)


def sign(x: Any) -> Any:
    """-1, 0 or 1; NaN of NaN."""
    return np.sign(x)


def exp(x: Any) -> Any:
    """e to the power of x."""
    return np.exp(x)


def log(x: Any) -> Any:
    """The natural logarithm; NaN below zero."""
    return np.log(x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return np.tanh(x)


def sin(x: Any) -> Any:
    """The sine of x in radians."""
    return np.sin(x)


def cos(x: Any) -> Any:
    """The cosine of x in radians."""
    return np.cos(x)


def floor(x: Any) -> Any:
    """The largest whole number that is not above x."""
    return np.floor(x)


def minimum(x: Any, y: Any) -> Any:
    """The smaller of two; NaN if either is."""
    return np.minimum(x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger of two; NaN if either is."""
    return np.maximum(x, y)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the comparison holds, y elsewhere."""
    return np.where(condition, x, y)


WORDS: dict[str, int] = {
    "sqrt": 1,
    "abs": 1,
    "sign": 1,
    "exp": 1,
    "log": 1,
    "tanh": 1,
    "sin": 1,
    "cos": 1,
    "floor": 1,
    "minimum": 2,
    "maximum": 2,
    "where": 3,
}
"""Each word and how many arguments it takes."""
