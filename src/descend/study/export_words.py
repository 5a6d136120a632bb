"""What an exported file may take along: each function is copied into it by its source, where it is called.

They stand alone: torch and math are all that they use, and each other only by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

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


def _by_rows(x: Tensor) -> Tensor:
    """As `_over_whole`; of more than two dimensions the first is the rows, all others together a row."""
    x = _over_whole(x)
    return x.flatten(1) if x.dim() > 2 else x


def _matrix(x: Tensor) -> Tensor | None:
    """A tensor as the step computes with it, its first dimension by all others; None for what is left out."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return x.reshape(x.shape[0], -1) if x.dim() > 1 else x if x.numel() else None


def _squares(p: Tensor, side: str, block: int | None, limit: int | None) -> Tensor:
    """Zeros for the square matrices of the rows ("left") or columns ("right") of a matrix and its blocks.

    Several blocks' lie one after the other. A side above the limit has none.
    """
    rows, columns = p.shape[0], p.numel() // max(1, p.shape[0])
    dtype = torch.float32 if p.dtype in (torch.float16, torch.bfloat16) else p.dtype
    length = rows if side == "left" else columns
    if limit is not None and length > limit:
        return p.new_zeros(0, dtype=dtype)
    if block is None or max(rows, columns) <= block:
        return p.new_zeros(length, length, dtype=dtype)
    heights, widths = _pieces(rows, block), _pieces(columns, block)
    each = [h if side == "left" else w for h in heights for w in widths]
    return p.new_zeros(sum(k * k for k in each), dtype=dtype)


def _pieces(length: int, longest: int) -> list[int]:
    """The sides of the blocks that a side is cut into."""
    return [min(longest, length - k) for k in range(0, length, longest)]


def _blocks(tensors: list[Any], shapes: list[str], block: int) -> Iterator[list[Any]]:
    """The blocks of a matrix, block row by block row, each with its part of every tensor."""
    rows, columns = tensors[0].shape
    heights, widths = _pieces(rows, block), _pieces(columns, block)
    starts = dict.fromkeys(("left", "right"), 0)
    for i, height in enumerate(heights):
        for j, width in enumerate(widths):
            parts = []
            for k, x in enumerate(tensors):
                shape = shapes[k]
                if shape == "element":
                    parts.append(x[i * block :, j * block :][:height, :width])
                    continue
                side = height if shape == "left" else width
                start = starts[shape]
                parts.append(x.view(-1)[start : start + side**2].view(side, side))
            starts["left"] += height**2
            starts["right"] += width**2
            yield parts


def _product(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    """The product of two matrices, of which None stands for the identity."""
    return y if x is None else x if y is None else x @ y


def _turned(x: Tensor | None) -> Tensor | None:
    """The transposed matrix; None stands for the identity."""
    return None if x is None else x.mT


def _newton_schulz(
    x: Tensor,
    steps: float,
    a: float,
    b: float,
    c: float,
    eps: float,
    bits: float,
) -> Tensor:
    """The matrix with its singular values brought near 1, in bfloat16, float32 or float64."""
    types = {16: torch.bfloat16, 32: torch.float32, 64: torch.float64}
    tall = x.shape[0] > x.shape[1]
    y = (x.mT if tall else x).to(types[int(bits)])
    y = y / torch.linalg.vector_norm(y).clamp(min=eps)
    for _ in range(int(steps)):
        square = y @ y.mT
        square = torch.addmm(square, square, square, beta=b, alpha=c)
        y = torch.addmm(y, square, y, beta=a)
    return (y.mT if tall else y).to(x.dtype)


def _inverse_root(x: Tensor, root: float, eps: float) -> Tensor:
    """(x + eps)**(-1/root) of a symmetric matrix, worked out in float64."""
    values, vectors = torch.linalg.eigh(x.double())
    made: Tensor = (vectors * (values.clamp(min=0) + eps).pow(-1 / root)) @ vectors.mT
    return made.to(x.dtype)


def _eigenbasis(x: Tensor, q: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix as columns: anew where q is zero, else one step on from q."""
    if not q.any():
        vectors: Tensor = torch.linalg.eigh(x)[1]
        return vectors.flip(-1)
    moved = x @ q
    order = torch.sort((q * moved).sum(0), descending=True, stable=True)[1]
    basis = torch.empty_like(q)
    basis[:, order] = torch.linalg.qr(moved[:, order])[0]
    return basis


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
