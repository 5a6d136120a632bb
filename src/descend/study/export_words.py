"""What an exported file may take along: each function is copied into it by its source, where it is called.

They stand alone: torch and math are all that they use, and each other only by name.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _computable(x: Tensor) -> Tensor:
    """A tensor as the step computes with it: pairs of reals for complex, float32 for half types."""
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _over_whole(x: Tensor) -> Tensor:
    """As `_computable`; a number becomes a tensor of one element, so that what is summed stays apart."""
    x = _computable(x)
    return x.unsqueeze(0) if x.dim() == 0 else x


def _filled_like(p: Tensor, start: float) -> Tensor:
    """A tensor like p that starts at a number, a complex one in both of its parts."""
    return torch.full_like(p, complex(start, start) if p.is_complex() else start)


def _total(x: Tensor) -> Tensor:
    """The sum of all elements, in float64."""
    return x.sum(dtype=torch.float64)


def _mean(x: Tensor) -> Tensor:
    """The mean of all elements, in float64."""
    return x.mean(dtype=torch.float64)


def _largest(x: Tensor) -> Tensor:
    """The largest element, in float64; minus infinity where there is none."""
    return x.double().amax() if x.numel() else x.new_tensor(-math.inf, dtype=torch.float64)


def _norm(x: Tensor) -> Tensor:
    """The Euclidean length, in float64."""
    length: Tensor = torch.linalg.vector_norm(x, dtype=torch.float64)
    return length


def _total_along(x: Tensor, dim: int) -> Tensor:
    """The sums along a dimension, added in float64."""
    return x.sum(dim, keepdim=True, dtype=torch.float64).to(x.dtype)


def _mean_along(x: Tensor, dim: int) -> Tensor:
    """The means along a dimension, added in float64."""
    return x.mean(dim, keepdim=True, dtype=torch.float64).to(x.dtype)


def _largest_along(x: Tensor, dim: int) -> Tensor:
    """The largest elements along a dimension."""
    return x.amax(dim, keepdim=True)


def _norm_along(x: Tensor, dim: int) -> Tensor:
    """The Euclidean lengths along a dimension, added in float64."""
    lengths: Tensor = torch.linalg.vector_norm(x, 2, dim, True, dtype=torch.float64)
    return lengths.to(x.dtype)


def _sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; NaN of NaN, of which torch.sign makes 0."""
    return torch.where(torch.isnan(x), x, torch.sign(x))


def _maximum(values: list[float]) -> float:
    """The largest number; NaN if any is."""
    return torch.tensor(values, dtype=torch.float64).amax().item()


def _divide(x: float, y: float) -> float:
    """x / y; infinity or NaN where y is zero."""
    return (torch.tensor(x, dtype=torch.float64) / y).item()


def _power(x: float, y: float) -> float:
    """x**y; infinity or NaN where Python raises."""
    return (torch.tensor(x, dtype=torch.float64) ** y).item()


def _sqrt(x: float) -> float:
    """The square root; NaN below zero."""
    return math.sqrt(x) if x >= 0 else math.nan


def _log(x: float) -> float:
    """The natural logarithm; -infinity of zero, NaN below it."""
    return math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan)


def _exp(x: float) -> float:
    """e to the power of x; infinity where Python raises."""
    return math.inf if x >= 709 else math.exp(x)


def _sign_of(x: float) -> float:
    """-1, 0 or 1; NaN of NaN."""
    return x if x != x or x == 0 else math.copysign(1.0, x)
