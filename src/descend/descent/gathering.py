"""An epoch's samples gathered piece by piece: one indexing for many steps, in memory that is used again.

Fresh memory for every piece costs page faults, 3 % of a small network's step. Used again it would change
under someone who kept a batch; so that is looked at first, and kept memory is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# A piece has at most this many bytes.
PIECE = 2**21
_uses = getattr(torch._C, "_storage_Use_Count", None)


class _Memory:
    """Room for one piece of inputs and targets."""

    def __init__(self, inputs: Tensor, targets: Tensor, samples: int) -> None:
        self.tensors = tuple(t.new_empty((samples, *t.shape[1:])) for t in (inputs, targets))
        self.unheld = self._count()

    def _count(self) -> list[int]:
        return [] if _uses is None else [_uses(t.untyped_storage()._cdata) for t in self.tensors]

    def free(self) -> bool:
        """Whether nobody holds a view of it."""
        return _uses is not None and self._count() == self.unheld


class Gatherer:
    """The batches of two whole tensors.

    Args:
        inputs, targets: [N, ...] each, on one device.
        size: samples of a batch.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, size: int) -> None:
        self.inputs = inputs
        self.targets = targets
        self.size = size
        bytes_each = sum(t[:1].numel() * t.element_size() for t in (inputs, targets))
        self.per_piece = max(1, PIECE // max(1, bytes_each * size))
        # Two, because a loop still holds its last batch of one piece when it asks for the next.
        self._memories: list[_Memory | None] = [None, None]

    def batches(self, indices: Tensor, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `indices` (int64 [M]), from batch number `start` on.

        Where a piece begins depends on the layout only, never on `start`: so a batch has the same place in
        memory, and its products the same rounding, after a resume.
        """
        room = self.per_piece * self.size
        for begin in range(start // self.per_piece * room, len(indices), room):
            chosen = indices[begin : begin + room].to(self.inputs.device)
            memory = self._memory(min(room, len(indices)))
            inputs, targets = (t[: len(chosen)] for t in memory.tensors)
            torch.index_select(self.inputs, 0, chosen, out=inputs)
            torch.index_select(self.targets, 0, chosen, out=targets)
            parts = list(zip(torch.split(inputs, self.size), torch.split(targets, self.size), strict=True))
            del inputs, targets, memory
            del parts[: max(0, start - begin // self.size)]
            parts.reverse()
            while parts:
                yield parts.pop()

    def _memory(self, samples: int) -> _Memory:
        self._memories.reverse()
        memory = self._memories[0]
        if memory is None or len(memory.tensors[0]) < samples or not memory.free():
            memory = self._memories[0] = _Memory(self.inputs, self.targets, samples)
        return memory
