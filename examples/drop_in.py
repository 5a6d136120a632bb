"""descend.Adam in the place of torch.optim.Adam: the same loop, the same result."""

from __future__ import annotations

import torch
from torch import nn

import descend


def trained(make: type[torch.optim.Optimizer]) -> float:
    """The loss after 300 steps on a sine, from the same start."""
    torch.manual_seed(0)
    x = torch.linspace(-3, 3, 256).unsqueeze(1)
    y = torch.sin(x)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = make(model.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


print(f"torch.optim.Adam  {trained(torch.optim.Adam):.6f}")
print(f"descend.Adam      {trained(descend.Adam):.6f}")
