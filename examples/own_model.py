"""A model, a loss and data of one's own: `descend fit examples/own_model.py:make`, or run as a program."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import descend


def make() -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    """A small network for a noisy sine, with a loss that outliers pull less."""
    source = torch.Generator().manual_seed(0)
    x = torch.rand(400, 1, generator=source) * 6 - 3
    y = torch.sin(x) + 0.1 * torch.randn(400, 1, generator=source)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    return model, nn.HuberLoss(), (x, y)


if __name__ == "__main__":
    model, loss, data = make()
    result = descend.fit(model, data, loss=loss, rule="adam", lr=0.01, epochs=40)
    print(result.explanation)
