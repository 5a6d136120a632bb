"""Arithmetic over lists of tensors, a few launches for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)
_CHUNK = 16384  # below the size from which torch splits one sum over its threads
_ROWS = 16  # chunks in float64 that stay in a core's cache


def sets(*columns: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """The rows of some columns of tensors, sorted by device and types: what one foreach call takes."""
    kinds = [{(t.dtype, t.device) for t in column} for column in columns]
    if all(len(kind) == 1 for kind in kinds):
        yield tuple(list(column) for column in columns)
        return
    found: dict[tuple[object, ...], list[tuple[Tensor, ...]]] = {}
    for row in zip(*columns, strict=True):
        found.setdefault((row[0].device, *(t.dtype for t in row)), []).append(row)
    for rows in found.values():
        yield tuple([row[n] for row in rows] for n in range(len(columns)))


def averaging_dtype(p: Tensor) -> torch.dtype:
    """What an average is kept in: float32 for half precision, where small steps round to nothing."""
    return torch.float32 if p.dtype in _HALF else p.dtype


def copy_(into: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    """Copy tensor by tensor, to the bit where the types are equal."""
    if into:
        torch._foreach_copy_(list(into), list(source))


def lerp_(into: Sequence[Tensor], end: Sequence[Tensor], weight: float) -> None:
    """`into + weight * (end - into)` in place, in the wider type of the two.

    Exactly `into` at weight 0 and `end` at weight 1.
    """
    for a, b in sets(into, end):
        wide = torch.promote_types(a[0].dtype, b[0].dtype)
        result = alike(a, wide)
        torch._foreach_lerp_(result, alike(b, wide), weight)
        if wide != a[0].dtype:
            torch._foreach_copy_(a, result)


def add_scaled_(into: Sequence[Tensor], vectors: Sequence[Tensor], scale: Tensor) -> None:
    """`into + scale * vectors` in place, the product in float32 at least."""
    for a, b in sets(into, vectors):
        wide = torch.promote_types(b[0].dtype, torch.float32)
        scaled = list(torch._foreach_mul(alike(b, wide), scale.to(a[0].device, wide.to_real())))
        torch._foreach_add_(a, alike(scaled, a[0].dtype))


def alike(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Tensors of one type in another one; themselves where they have it."""
    return tensors if tensors[0].dtype == dtype else [t.to(dtype) for t in tensors]


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all elements of all tensors, in float64, on the first tensor's device.

    float64, because squares of 1e20 overflow in float32, and a float32 norm of 16 million elements is
    wrong in the fourth digit. Partial sums over fixed chunks give the same bits for any number of threads.
    """
    device = tensors[0].device
    parts = torch.cat([part.to(device) for t in tensors for part in _partial_norms(t)])
    while parts.numel() > _CHUNK:
        parts = torch.cat(_partial_norms(parts))
    return parts.square().sum().sqrt()


def _partial_norms(t: Tensor) -> list[Tensor]:
    flat = (torch.view_as_real(t) if t.is_complex() else t).detach().reshape(-1)
    wide = torch.float32 if flat.device.type == "mps" else torch.float64  # there is no float64 on mps
    whole = flat.numel() // _CHUNK * _CHUNK
    blocks = list(torch.split(flat[:whole].view(-1, _CHUNK), _ROWS)) if whole else []
    if whole < flat.numel():
        blocks.append(flat[whole:].view(1, -1))
    return [block.to(wide).square().sum(1).sqrt() for block in blocks]
