"""Steps that autograd records: derivatives of what follows a step, by hyper-parameters and first point."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import descend


def derivative(module: Any, name: str, word: str, value: Any, **kwargs: Any) -> list[torch.Tensor]:
    """How a loss after three steps changes with a hyper-parameter and with the first point."""
    hyper = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    given: Any = hyper
    if word == "betas":
        given = (hyper, torch.tensor(0.99, dtype=torch.float64))
    p = start.clone()
    optimizer = getattr(module, name)([p], differentiable=True, **{word: given, **kwargs})
    for step in range(3):
        p.grad = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64) * (step + 1) + 0.1 * p.clone()
        optimizer.step()
    (p**2).sum().backward()
    assert hyper.grad is not None
    return [hyper.grad, start.grad, p.detach()]


@pytest.mark.parametrize(
    ("name", "word", "value", "kwargs"),
    [
        ("SGD", "lr", 0.1, {"momentum": 0.9}),
        ("SGD", "weight_decay", 0.1, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("Adam", "lr", 0.1, {}),
        ("Adam", "betas", 0.9, {"lr": 0.1}),
        ("Adam", "weight_decay", 0.1, {"lr": 0.1, "amsgrad": True}),
        ("AdamW", "lr", 0.1, {"weight_decay": 0.1}),
        ("Adagrad", "lr", 0.1, {}),
        ("Adadelta", "lr", 0.5, {"weight_decay": 0.1}),
        ("RMSprop", "lr", 0.1, {"centered": True, "momentum": 0.5}),
        ("Adamax", "lr", 0.1, {}),
        ("NAdam", "lr", 0.1, {}),
        ("RAdam", "lr", 0.1, {}),
        ("ASGD", "lr", 0.1, {"t0": 1}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*requires_grad=True to a scalar")
@pytest.mark.filterwarnings("ignore:.*non-leaf Tensor")
def test_differentiable_steps(name: str, word: str, value: Any, kwargs: dict[str, Any]) -> None:
    """Derivatives through three steps are central differences', and torch's where torch has them.

    torch cuts SGD's first buffer out of the graph, writes over what the graph kept of Adam's maximum, and
    computes powers of betas in float32.
    """
    found = derivative(descend, name, word, value, **kwargs)
    if name in ("Adam", "AdamW") and not kwargs.get("amsgrad"):
        for mine, torchs in zip(found, derivative(torch.optim, name, word, value, **kwargs), strict=True):
            torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-6)
    h = 1e-6
    ends = [(derivative(descend, name, word, value + d, **kwargs)[2] ** 2).sum().item() for d in (-h, h)]
    assert found[0].item() == pytest.approx((ends[1] - ends[0]) / (2 * h), rel=1e-4, abs=1e-7)


@pytest.mark.filterwarnings("ignore:.*non-leaf Tensor")
def test_differentiable_state_is_part_of_the_graph() -> None:
    p = torch.ones(2, requires_grad=True).clone()
    optimizer = descend.Adam([p], differentiable=True)
    p.grad = torch.ones(2, requires_grad=True) * 2
    optimizer.step()
    assert optimizer.state[p]["exp_avg"].requires_grad
    assert optimizer.state[p]["step"] == 1
