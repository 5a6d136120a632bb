"""What is descended: the loss of a model on data, or a function of a point. The loop knows only that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data import LoaderSource, Source, TensorSource
from ..data.batches import batches, count, order
from .gathering import Gatherer

Part = tuple[Any, Any]
Loss = Callable[[Any, Any], Tensor]
Metric = Callable[[Any, Any], float]

# Evaluation takes batches of at most this many samples.
EVALUATED = 2048


class Objective(Protocol):
    """A loss, and the epochs of windows that it is descended on. A window is what a step takes: parts.

    Attributes:
        module: holds the parameters and buffers.
        steps_per_epoch: the number of windows in an epoch.
        unit: what an epoch is called in sentences, "epoch" or "step".
        sign: -1.0 where the objective is the negative of what the user asked for.
    """

    module: nn.Module
    steps_per_epoch: int
    unit: str
    sign: float

    def windows(self, epoch: int, start: int) -> Iterator[list[Part]]:
        """The windows of an epoch, from number `start` on: a pure function of its arguments."""
        ...

    def size(self, part: Part) -> int:
        """How many samples a part has."""
        ...

    def loss(self, part: Part) -> Tensor:
        """The mean loss of a part, a scalar."""
        ...

    def evaluate(self) -> dict[str, float]:
        """The loss and metrics of the held-out part, by the names of the history; empty without one."""
        ...

    def full_gradient_norm(self) -> float | None:
        """The norm of the gradient over all samples, or None where the step's own gradient is that."""
        ...

    def samples(self, epoch: int, position: int) -> list[int] | None:
        """The numbers of a window's samples, where they have numbers."""
        ...


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule is in the mode it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


class DataObjective:
    """The mean loss of a module's outputs on the samples of a source.

    Args:
        module: called with a batch of inputs.
        loss: `loss(outputs, targets)` -> the mean over the batch, a scalar.
        train, validation: what to learn from, what to evaluate on.
        metrics: `metric(outputs, targets)` -> a number, over the whole held-out part.
        batch: samples of a part; a `LoaderSource` makes its own.
        accumulate: parts of a window. Its gradient is that of the mean over all its samples, also where the
            last window of an epoch is short.
        seed, shuffle, drop_last: the order of samples, see `descend.data.batches`.
    """

    unit = "epoch"
    sign = 1.0

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        train: Source,
        validation: Source | None = None,
        metrics: dict[str, Metric] | None = None,
        *,
        batch: int = 64,
        accumulate: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self.module = module
        self.loss_function = loss
        self.train = train
        self.validation = validation
        self.metrics = metrics or {}
        self.batch = batch
        self.accumulate = accumulate
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self._gatherer: Gatherer | None = None
        self.device = next(module.parameters()).device
        parts = train.batches if isinstance(train, LoaderSource) else count(len(train), batch, drop_last)
        self.steps_per_epoch = -(-parts // accumulate)

    def _indices(self, epoch: int, start: int) -> Iterator[Tensor]:
        return batches(self.seed, epoch, len(self.train), self.batch, start, self.shuffle, self.drop_last)

    def windows(self, epoch: int, start: int) -> Iterator[list[Part]]:
        parts = self._parts(epoch, start * self.accumulate)
        return ([part] for part in parts) if self.accumulate == 1 else self._grouped(parts)

    def _grouped(self, parts: Iterator[Part]) -> Iterator[list[Part]]:
        window: list[Part] = []
        for part in parts:
            window.append(part)
            if len(window) == self.accumulate:
                yield window
                window = []
        if window:
            yield window

    def _parts(self, epoch: int, start: int) -> Iterator[Part]:
        source = self.train
        if isinstance(source, LoaderSource):
            parts: Iterator[Part] = source.epoch(epoch, start)
        elif isinstance(source, TensorSource) and source.gatherable:
            parts = self._gathered(source, epoch, start)
        else:
            parts = (source.batch(indices, epoch) for indices in self._indices(epoch, start))
        if self.device.type == "cpu":
            return parts
        return ((_moved(inputs, self.device), _moved(targets, self.device)) for inputs, targets in parts)

    def _gathered(self, source: TensorSource, epoch: int, start: int) -> Iterator[Part]:
        if self.batch >= len(source):
            return iter([(source.inputs, source.targets)][start:])
        if self._gatherer is None or self._gatherer.inputs is not source.inputs:
            self._gatherer = Gatherer(source.inputs, source.targets, self.batch)
        samples = len(source)
        indices = order(self.seed, epoch, samples) if self.shuffle else torch.arange(samples)
        last = samples - samples % self.batch if self.drop_last else samples
        return self._gatherer.batches(indices[:last], start)

    def size(self, part: Part) -> int:
        return len(part[1])

    def loss(self, part: Part) -> Tensor:
        return self.loss_function(self.module(part[0]), part[1])

    def samples(self, epoch: int, position: int) -> list[int] | None:
        if isinstance(self.train, LoaderSource):
            return None
        found: list[int] = []
        for number, indices in enumerate(self._indices(epoch, position * self.accumulate)):
            if number == self.accumulate:
                break
            found += indices.tolist()
        return found

    def _all(self, source: Source) -> Iterator[Part]:
        if isinstance(source, LoaderSource):
            parts: Iterator[Part] = source.epoch(0)
        elif isinstance(source, TensorSource):
            parts = zip(
                torch.split(source.inputs, EVALUATED), torch.split(source.targets, EVALUATED), strict=True
            )
        else:
            size = min(EVALUATED, max(1, self.batch))
            parts = (source.batch(indices, 0) for indices in torch.split(torch.arange(len(source)), size))
        return ((_moved(inputs, self.device), _moved(targets, self.device)) for inputs, targets in parts)

    def evaluate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        outputs, targets, total, samples = [], [], 0.0, 0
        with evaluation_mode(self.module), torch.no_grad():
            for part in self._all(self.validation):
                output = self.module(part[0])
                total += float(self.loss_function(output, part[1])) * len(part[1])
                samples += len(part[1])
                if self.metrics:
                    outputs.append(output)
                    targets.append(part[1])
            found = {"validation_loss": total / samples}
            if self.metrics:
                whole, wanted = _joined(outputs), _joined(targets)
                for name, metric in self.metrics.items():
                    found[f"validation_{name}"] = float(metric(whole, wanted))
        return found

    def full_gradient_norm(self) -> float | None:
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        sums = [torch.zeros_like(p) for p in parameters]
        samples = 0
        with evaluation_mode(self.module):
            for part in self._all(self.train):
                size = len(part[1])
                gradients = torch.autograd.grad(self.loss(part) * size, parameters, allow_unused=True)
                for total, gradient in zip(sums, gradients, strict=True):
                    if gradient is not None:
                        total += gradient
                samples += size
        return float(torch.nn.utils.get_total_norm(sums)) / samples


class FunctionObjective:
    """A function of a point. One step is one epoch, and its gradient the full one.

    Args:
        module: whose forward, without arguments, is the value.
        maximize: descends on the negative.
    """

    unit = "step"
    steps_per_epoch = 1

    def __init__(self, module: nn.Module, maximize: bool = False) -> None:
        self.module = module
        self.sign = -1.0 if maximize else 1.0

    def windows(self, epoch: int, start: int) -> Iterator[list[Part]]:
        if start == 0:
            yield [(None, None)]

    def size(self, part: Part) -> int:
        return 1

    def loss(self, part: Part) -> Tensor:
        value: Tensor = self.module()
        return -value if self.sign < 0 else value

    def evaluate(self) -> dict[str, float]:
        return {}

    def full_gradient_norm(self) -> float | None:
        return None

    def samples(self, epoch: int, position: int) -> list[int] | None:
        return None


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    return [piece for part in parts for piece in part]
