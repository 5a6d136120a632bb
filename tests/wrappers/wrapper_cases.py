"""A small problem in torch and in NumPy, and every wrapper around several bases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from descend import optim, wrappers

Array = np.ndarray[Any, Any]
Arrays = list[Array]

SHAPES = [(3, 4), (4,), (), (2, 1, 3)]


class Problem:
    """Sum of a(t)/2 w**2 - 0.3 cos(w), with another curvature a at every step: a noisy, curved loss."""

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.start: Arrays = [np.asarray(draw.normal(size=shape)) for shape in SHAPES]
        self.curvature: list[Arrays] = [
            [np.asarray(draw.uniform(0.5, 3, size=shape)) for shape in SHAPES] for _ in range(32)
        ]
        self.named = [
            ("first.weight", self._parameter(0, dtype)),
            ("first.bias", self._parameter(1, dtype)),
            ("scale", self._parameter(2, dtype)),
            ("second.weight", self._parameter(3, dtype)),
        ]
        self.params = [p for _, p in self.named]

    def _parameter(self, n: int, dtype: torch.dtype) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.tensor(self.start[n], dtype=dtype))

    def loss(self, t: int) -> torch.Tensor:
        total = torch.zeros((), dtype=self.params[0].dtype)
        for p, a in zip(self.params, self.curvature[t], strict=True):
            total = total + (torch.tensor(a, dtype=p.dtype) / 2 * p**2 - 0.3 * p.cos()).sum()
        return total

    def gradient(self, ws: Arrays, t: int) -> Arrays:
        return [a * w + 0.3 * np.sin(w) for a, w in zip(self.curvature[t], ws, strict=True)]

    def closure(self, optimizer: torch.optim.Optimizer, t: int) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            optimizer.zero_grad()
            loss = self.loss(t)
            loss.backward()
            return loss

        return run

    def steps(self, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
        for t in range(start, stop):
            optimizer.step(self.closure(optimizer, t))

    def weights(self) -> Arrays:
        return [p.detach().double().numpy().copy() for p in self.params]

    def bits(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.params]


def equal(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    """Whether two lists of tensors are the same to the bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def furthest(ours: Sequence[Array], reference: Sequence[Array]) -> float:
    """The largest difference between two lists of arrays."""
    return max(float(np.max(np.abs(a - b))) for a, b in zip(ours, reference, strict=True))


class Sgd:
    """The base of the references: gradient descent with momentum, on lists of arrays."""

    def __init__(self, lr: float, momentum: float = 0.0) -> None:
        self.lr, self.momentum, self.velocity = lr, momentum, None

    def __call__(self, ws: Arrays, gs: Arrays, lr: float | None = None) -> Arrays:
        if self.velocity is None:
            self.velocity = [np.zeros_like(g) for g in gs]
        self.velocity = [self.momentum * v + g for v, g in zip(self.velocity, gs, strict=True)]
        rate = self.lr if lr is None else lr
        return [w - rate * v for w, v in zip(ws, self.velocity, strict=True)]


BASES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "torch SGD": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "torch Adam": lambda params: torch.optim.Adam(params, lr=0.05),
    "descend Adam": lambda params: optim.Adam(params, lr=0.05),
    "descend SGD": lambda params: optim.SGD(params, lr=0.05, momentum=0.5),
}

WRAPPERS: dict[str, Callable[[torch.optim.Optimizer], wrappers.Wrapper]] = {
    "SAM": lambda base: wrappers.SAM(base, rho=0.3),
    "ASAM": lambda base: wrappers.ASAM(base, rho=0.3),
    "Lookahead": lambda base: wrappers.Lookahead(base, k=3, alpha=0.4),
    "ScheduleFree": lambda base: wrappers.ScheduleFree(base, weight_decay=0.1, warmup_steps=4, r=0.5),
    "EMA": lambda base: wrappers.EMA(base, decay=0.7),
    "EMA corrected": lambda base: wrappers.EMA(base, decay=0.7, bias_correction=True),
    "SWA": lambda base: wrappers.SWA(base, start=2, every=2),
    "Accumulate": lambda base: wrappers.Accumulate(base, every=3),
    "EMA of Lookahead": lambda base: wrappers.EMA(wrappers.Lookahead(base, k=2), decay=0.5),
    "EMA of EMA": lambda base: wrappers.EMA(wrappers.EMA(base, decay=0.5), decay=0.9),
    "SAM of ScheduleFree": lambda base: wrappers.SAM(wrappers.ScheduleFree(base), rho=0.1),
    "SAM of Accumulate": lambda base: wrappers.SAM(wrappers.Accumulate(base, every=2), rho=0.1),
    "Accumulate of EMA": lambda base: wrappers.Accumulate(wrappers.EMA(base, decay=0.8), every=2),
}
