"""What the matrix words do: torch's routines, on all matrices of one shape in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ..errors import UsageError
from ..formula.rewrite import SIDES
from . import steady


@dataclass(frozen=True)
class Shape:
    """A parameter as a matrix, and the blocks into which rules cut it.

    `block` is the longest side of a block, `limit` the longest side that has a square matrix of its own; None
    where the rule sets no bound.
    """

    rows: int
    columns: int
    block: int | None = None
    limit: int | None = None

    @staticmethod
    def of(p: torch.Tensor, block: float | None = None, limit: float | None = None) -> Shape:
        """The first dimension is the rows, all others together are the columns; a vector is one column."""
        rows = p.shape[0] if p.dim() else 1
        bounds = (None if x is None else int(x) for x in (block, limit))
        return Shape(rows, p.numel() // max(1, rows), *bounds)

    @cached_property
    def sides(self) -> dict[str, list[int]]:
        """How long the blocks are."""
        return {"rows": _pieces(self.rows, self.block), "columns": _pieces(self.columns, self.block)}

    @property
    def is_whole(self) -> bool:
        """Whether the matrix is one block."""
        return len(self.sides["rows"]) == 1 and len(self.sides["columns"]) == 1

    def has(self, domain: str) -> bool:
        """Whether matrices of a domain exist: those that are left out stand for the identity."""
        if domain not in ("left", "right") or self.limit is None:
            return True
        return (self.rows if domain == "left" else self.columns) <= self.limit

    def size(self, domain: str) -> torch.Size:
        """The shape of an operand in memory: square matrices of several blocks lie one after the other."""
        if not self.has(domain):
            return torch.Size([0])
        if self.is_whole or domain in ("element", "turned"):
            return torch.Size(self._whole(domain))
        return torch.Size([sum(h * w for h, w in self._each(domain))])

    def _whole(self, domain: str) -> tuple[int, int]:
        sides = {"rows": self.rows, "columns": self.columns}
        height, width = SIDES[domain]
        return sides[height], sides[width]

    def _each(self, domain: str) -> list[tuple[int, int]]:
        """The shape of every block's matrix of a domain, block row by block row."""
        height, width = SIDES[domain]
        blocks = [{"rows": h, "columns": w} for h in self.sides["rows"] for w in self.sides["columns"]]
        return [(block[height], block[width]) for block in blocks]

    @cached_property
    def kinds(self) -> list[list[int]]:
        """The numbers of the blocks, those of one shape together: at most four lists."""
        found: dict[tuple[int, int], list[int]] = {}
        for k, shape in enumerate(self._each("element")):
            found.setdefault(shape, []).append(k)
        return list(found.values())

    def blocks(self, x: torch.Tensor, domain: str) -> list[torch.Tensor]:
        """Every block of an operand, as a view where the operand's memory allows it."""
        if self.is_whole or domain == "element":
            x = x.reshape(self._whole(domain))
            if self.is_whole:
                return [x]
            strips = torch.split(x, self.sides["rows"], 0)
            return [block for strip in strips for block in torch.split(strip, self.sides["columns"], 1)]
        each = self._each(domain)
        parts = torch.split(x, [h * w for h, w in each])
        return [part.view(shape) for part, shape in zip(parts, each, strict=True)]


def vector_shape(p: torch.Tensor, domain: str, flat: bool) -> torch.Size:
    """The shape of one number for each of the "rows" or "columns" of a tensor.

    They are those of its last two dimensions, or where it is `flat` of the one matrix that it stands for.
    """
    if flat:
        rest = p.shape[1:]
        return torch.Size([len(p), *(1 for _ in rest)] if domain == "rows" else [1, *rest])
    rows, columns = p.shape[-2:]
    return torch.Size([*p.shape[:-2], *((rows, 1) if domain == "rows" else (1, columns))])


def _pieces(length: int, longest: int | None) -> list[int]:
    if longest is None or length <= longest:
        return [length]
    return [min(longest, length - k) for k in range(0, length, longest)]


ALONE = 512
"""Sides from which one product fills the processor, and a batch only crowds the caches.

A batch of smaller ones in bfloat16 is torch's, which has the same bits on any number of threads.
"""

SMALL = 128
"""Sides up to which one thread does all iterations of a matrix."""


def newton_schulz(
    x: torch.Tensor, steps: float, a: float, b: float, c: float, eps: float, bits: float
) -> torch.Tensor:
    """Matrices [n, rows, columns] with their singular values brought near 1, in bfloat16 for 16 bits."""
    types = {16: torch.bfloat16, 32: torch.float32, 64: torch.float64}
    if bits not in types:
        raise UsageError(f"newton_schulz multiplies in 16 (bfloat16), 32 or 64 bits, got {bits:g}")
    tall = x.shape[-2] > x.shape[-1]
    x = x.to(types[int(bits)])
    x = x.mT.contiguous() if tall else x
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=eps)
    numbers = (int(steps), a, b, c)
    if x.device.type != "cpu" or (bits == 16 and len(x) > 1 and min(x.shape[1:]) < ALONE):
        x = _iterated(x, *numbers)
    elif min(x.shape[1:]) <= SMALL:
        x = steady.each([(_iterated, [x], numbers)])[0]
    else:
        x = _iterated_together(x, *numbers)
    return x.mT if tall else x


def _iterated(x: torch.Tensor, steps: int, a: float, b: float, c: float) -> torch.Tensor:
    """The iterations in torch's own hands; they round where torch's Muon does."""
    lone = len(x) == 1
    x, update = (x[0], torch.addmm) if lone else (x, torch.baddbmm)
    for _ in range(steps):
        square = x @ x.mT
        x = update(x, update(square, square, square, beta=b, alpha=c), x, beta=a)
    return x[None] if lone else x


def _iterated_together(x: torch.Tensor, steps: int, a: float, b: float, c: float) -> torch.Tensor:
    """The same in one launch, every matrix by itself where it is large."""
    many = 1 if x.shape[1] >= ALONE else len(x)
    square, polynomial = (x.new_empty(many, x.shape[1], x.shape[1]) for _ in range(2))
    other = torch.empty_like(x)
    stages = []
    for old, new in zip(torch.split(x, many), torch.split(other, many), strict=True):
        there, back = (
            [
                steady.pieces(square, given, given.mT, symmetric=True),
                steady.pieces(polynomial, square, square, square, b, c, symmetric=True),
                steady.pieces(made, polynomial, given, given, a),
            ]
            for given, made in ((old, new), (new, old))
        )
        stages += [stage for k in range(steps) for stage in (back if k % 2 else there)]
    steady.run(stages)
    return other if steps % 2 else x


def _eigh(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and eigenvectors; NaN for a matrix that is not finite, where LAPACK would raise."""
    finite = x.isfinite().all(-1).all(-1)[..., None, None]
    values, vectors = torch.linalg.eigh(torch.where(finite, x, 0.0))
    return torch.where(finite[..., 0], values, torch.nan), torch.where(finite, vectors, torch.nan)


def inverse_root(x: torch.Tensor, root: float, eps: float) -> torch.Tensor:
    """(x + eps)**(-1/root) of symmetric matrices [n, side, side], worked out in float64."""
    values, vectors = _eigh(x.double())
    scaled = vectors * (values.clamp(min=0) + eps).pow(-1 / root).unsqueeze(-2)
    return (scaled @ vectors.mT).to(x.dtype)


def eigenbasis(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Eigenvectors of symmetric matrices [n, side, side] as columns, from those of a while ago or zeros."""
    old = q[:, :1].flatten(1).any(1)  # no row of a basis is zero
    if not old.any():
        return _eigh(x)[1].flip(-1)
    if not old.all():
        return torch.cat([eigenbasis(x[i : i + 1], q[i : i + 1]) for i in range(len(x))])
    moved = x @ q if len(x) > 1 else (x[0] @ q[0])[None]  # torch rounds a batch of one otherwise
    order = torch.sort((q * moved).sum(-2), dim=-1, descending=True, stable=True)[1]
    basis = torch.linalg.householder_product(*torch.geqrf(_columns(moved, order)))
    return _columns(basis, torch.argsort(order))  # much quicker than scatter


def _columns(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return x.gather(-1, places.unsqueeze(-2).expand_as(x))


_ONE_BY_ONE: dict[str, Callable[..., torch.Tensor]] = {"inverse_root": inverse_root, "eigenbasis": eigenbasis}
"""Words of which one thread does one matrix."""


def made(words: Sequence[tuple[str, Sequence[torch.Tensor], Sequence[float]]]) -> list[torch.Tensor]:
    """What words other than products make of matrices [n, height, width] and numbers, one result for each."""
    if words[0][0] == "newton_schulz":
        return [newton_schulz(given[0], *numbers) for _, given, numbers in words]
    return steady.each([(_ONE_BY_ONE[op], given, numbers) for op, given, numbers in words])
