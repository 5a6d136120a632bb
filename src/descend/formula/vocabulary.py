"""The words of a formula. Each works on float64 NumPy arrays as it stands: that is the reference.

A formula is made of assignments, `+ - * / **`, comparisons and these words, nothing else.
Comparisons only choose inside `where`; every word lets NaN through.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from . import chance


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


def sum(x: Any, over: str = "tensor") -> Any:
    """The sum over all elements of the tensor, or over each of its "rows" or "columns"."""
    return np.sum(x, **_axis(over))


def mean(x: Any, over: str = "tensor") -> Any:
    """The mean over all elements of the tensor, or over each of its "rows" or "columns"."""
    return np.mean(x, **_axis(over))


def max(x: Any, over: str = "tensor") -> Any:
    """The largest element of the tensor, or of each of its "rows" or "columns"; NaN if any is."""
    return np.max(x, **_axis(over))


def norm(x: Any, over: str = "tensor") -> Any:
    """The Euclidean length of the tensor, sqrt(sum(x**2)), or of each of its "rows" or "columns"."""
    return np.sqrt(np.sum(np.square(x), **_axis(over)))


def _axis(over: str) -> dict[str, Any]:
    return {"tensor": {}, "rows": {"axis": -1, "keepdims": True}, "columns": {"axis": -2, "keepdims": True}}[
        over
    ]


def global_sum(x: Any) -> Any:
    """The sum over all elements of all tensors of all parameter groups."""
    return together(sum, x, np.sum)


def global_mean(x: Any) -> Any:
    """The mean over all elements of all tensors of all parameter groups."""
    return global_sum(x) / global_sum(np.ones_like(x))


def global_max(x: Any) -> Any:
    """The largest element of all tensors of all parameter groups; NaN if any is."""
    return together(max, x, np.max)


def global_norm(x: Any) -> Any:
    """The Euclidean length of all tensors of all parameter groups taken as one vector."""
    return np.sqrt(global_sum(np.square(x)))


def matmul(x: Any, y: Any) -> Any:
    """The product of two matrices."""
    return np.matmul(x, y)


def transpose(x: Any) -> Any:
    """The matrix with rows and columns exchanged; only inside another matrix word."""
    return np.swapaxes(x, -1, -2)


def newton_schulz(x: Any, steps: Any, a: Any, b: Any, c: Any, eps: Any, bits: Any = 64) -> Any:
    """The matrix with all its singular values brought near 1, by `steps` of a*x + b*(xxᵀ)x + c*(xxᵀ)²x.

    x is divided by its length first, which eps keeps from zero. `bits` (16, 32 or 64) is the precision in
    which the back ends multiply; 16 is bfloat16. The reference always takes 64.
    """
    tall = x.shape[-2] > x.shape[-1]
    x = transpose(x) if tall else x
    x = x / np.maximum(np.sqrt(np.sum(np.square(x))), eps)
    for _ in range(int(steps)):
        square = x @ transpose(x)
        x = a * x + (b * square + c * (square @ square)) @ x
    return transpose(x) if tall else x


def inverse_root(x: Any, root: Any, eps: Any) -> Any:
    """(x + eps)**(-1/root) of a symmetric matrix that has no negative eigenvalues."""
    values, vectors = _eigh(x)
    return (vectors * (np.maximum(values, 0) + eps) ** (-1 / root)) @ transpose(vectors)


def eigenbasis(x: Any, q: Any) -> Any:
    """The eigenvectors of a symmetric matrix, as columns, from those of a while ago.

    Where q is zero they are computed anew. Otherwise by one step of the orthogonal iteration: x @ q, its
    columns made orthogonal from the largest eigenvalue down, each staying in its place.
    """
    if not np.any(q):
        return _eigh(x)[1][..., ::-1]
    moved = x @ q
    order = np.argsort(-np.sum(q * moved, axis=-2), kind="stable")
    basis = np.empty_like(q)
    basis[:, order] = np.linalg.qr(moved[:, order])[0]
    return basis


def _eigh(x: Any) -> Any:
    return np.linalg.eigh(x) if np.all(np.isfinite(x)) else (np.full(x.shape[:-1], np.nan), x * np.nan)


def every(k: Any, t: Any, new: Any, old: Any) -> Any:
    """`new` at the first step and every k steps after it, `old` in between."""
    return new if (t - 1) % k == 0 else old


def uniform(seed: Any, t: Any, k: Any) -> Any:
    """A random number in (0, 1) for every element, decided by three numbers of the whole parameter.

    They are the seed, the step, and which of the optimizer's parameters it is, State(init="place",
    scalar=True). Two of the same numbers are the same; a second, independent one takes another seed.
    """
    return chance.fractions(chance.key(seed, t, k), 0, chance.index())


def normal(seed: Any, t: Any, k: Any) -> Any:
    """A random number of mean 0 and variance 1, normally distributed, for every element; see `uniform`.

    Made of two uniform ones as Box and Muller do, it lies within 5.8 of zero.
    """
    return chance.gaussian(chance.key(seed, t, k), chance.index())


class Meeting:
    """Lets the formulas of several tensors, each on a thread of its own, share one number."""

    here = threading.local()

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties)
        self.values: list[Any] = [None] * parties

    def share(self, place: int, value: Any, join: Any) -> Any:
        """Everyone's values joined, in the order of the places."""
        self.values[place] = value
        self.barrier.wait()
        joined = join(np.array(self.values))
        self.barrier.wait()
        return joined


def together(reduce: Any, x: Any, join: Any) -> Any:
    """Reduce over one tensor, then over all that the reference runs side by side."""
    value = reduce(x)
    meeting = getattr(Meeting.here, "meeting", None)
    return value if meeting is None else meeting.share(Meeting.here.place, value, join)


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

MATRIX: dict[str, int] = {
    "matmul": 2,
    "transpose": 1,
    "newton_schulz": 7,
    "inverse_root": 3,
    "eigenbasis": 2,
    "every": 4,
}
"""Each word for whole matrices and how many arguments it takes."""

RANDOM: dict[str, int] = {"uniform": 3, "normal": 3}
"""Each word for random numbers and how many arguments it takes."""

REDUCTIONS: dict[str, tuple[str, ...]] = {
    "sum": ("tensor", "rows", "columns"),
    "mean": ("tensor", "rows", "columns"),
    "max": ("tensor", "rows", "columns"),
    "norm": ("tensor", "rows", "columns"),
    "global_sum": ("global",),
    "global_mean": ("global",),
    "global_max": ("global",),
    "global_norm": ("global",),
}
"""Each word that makes fewer numbers of many elements, and over what: the first where none is said."""
