"""What a descent reads: sources of samples, and `Data`, which holds them and what was decided about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .batches import sample_seed

Transform = Callable[[Tensor, torch.Generator], Tensor]


@runtime_checkable
class Source(Protocol):
    """Samples by number. `batch` is a pure function of (indices, epoch) and of the source's own seed."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Inputs [B, ...] and targets [B, ...] of the samples `indices` (int64 [B]) in this epoch."""
        ...


class TensorSource:
    """Samples held as two whole tensors, so that a loop may gather a whole epoch at once and slice it.

    Args:
        inputs: [N, ...].
        targets: [N, ...], on the same device.
        transform: augmentation, `transform(x, generator) -> x` for one sample `x`; its generator is seeded
            from (seed, epoch, index). With a transform, a loop must go through `batch`: `gatherable` is then
            False.
        seed: the seed of the transform's randomness.

    >>> source = TensorSource(torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 0]))
    >>> source.batch(torch.tensor([2, 0]), epoch=0)[0].tolist()
    [[4.0, 5.0], [0.0, 1.0]]
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, *, transform: Transform | None = None, seed: int = 0
    ) -> None:
        assert len(inputs) == len(targets)
        self.inputs = inputs
        self.targets = targets
        self.transform = transform
        self.seed = seed

    @property
    def gatherable(self) -> bool:
        """Whether `inputs[indices]` and `targets[indices]` are what `batch` returns."""
        return self.transform is None

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        place = indices.to(self.inputs.device)
        inputs, targets = self.inputs.index_select(0, place), self.targets.index_select(0, place)
        if self.transform is not None:
            inputs = torch.stack(
                [
                    self.transform(x, torch.Generator().manual_seed(sample_seed(self.seed, epoch, index)))
                    for x, index in zip(inputs, indices.tolist(), strict=True)
                ]
            )
        return inputs, targets


@dataclass
class Data:
    """Everything a descent needs to know of its data.

    Attributes:
        name: what it is called in reports.
        task: "regression", "binary", "classification" or "custom". Targets are float32 [N, K] for a
            regression, float32 [N] of 0 and 1 for "binary", int64 [N] for a classification, as given for
            "custom".
        train: the samples to learn from.
        validation: the held-out samples, or None.
        features: the names of the input columns; empty where they have none.
        classes: the names of the classes in the order of their numbers, or None.
        input_shape: the shape of one sample.
        outputs: how many numbers a model has to give for a sample (0 where that is not known).
        recipe: JSON-able: how rows were encoded, so that new ones can be, and how the data were loaded.
        fingerprint: SHA-256, in hex, of the content used; for a Dataset or DataLoader of what it says of
        itself. summary: plain sentences about the data.
        notices: what the user should know.
    """

    name: str
    task: str
    train: Source
    validation: Source | None
    input_shape: tuple[int, ...]
    outputs: int
    recipe: dict[str, Any]
    fingerprint: str
    features: list[str] = field(default_factory=list)
    classes: list[str] | None = None
    summary: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def sample_bytes(self) -> int:
        """Bytes of one sample's input and target."""
        if isinstance(self.train, TensorSource):
            tensors = (self.train.inputs[:1], self.train.targets[:1])
        else:
            tensors = self.train.batch(torch.zeros(1, dtype=torch.int64), 0)
        return sum(t.numel() * t.element_size() for t in tensors)
