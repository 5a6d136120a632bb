"""The short way to autograd's engine gives what `loss.backward()` gives, and refuses what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from descend.descent import backward
from descend.descent.backward import Backward


def model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("engine", [True, False], ids=["engine", "without"])
def test_equals_backward_to_the_bit(
    dtype: torch.dtype, engine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine:
        monkeypatch.setattr(backward, "_engine", None)
    ours, theirs, run = model(dtype), model(dtype), Backward()
    for step in range(3):  # the gradients add up
        x = torch.randn(11, 5, generator=torch.Generator().manual_seed(step)).to(dtype)
        run(ours(x).square().mean())
        theirs(x).square().mean().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_follows_the_dtype_of_the_loss() -> None:
    run, x = Backward(), torch.ones(2, requires_grad=True)
    run(x.sum())
    run(x.double().sum())
    run(x.sum().reshape(1))
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]


def test_hooks_and_subclasses_are_seen() -> None:
    class Named(torch.Tensor):
        pass

    run, seen = Backward(), []
    x = torch.ones(2, requires_grad=True)
    x.register_hook(seen.append)
    run((x * 2).sum())
    run((x * 2).sum().as_subclass(Named))
    assert [part.tolist() for part in seen] == [[2.0, 2.0], [2.0, 2.0]]


def test_a_loss_without_gradient_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        Backward()(torch.tensor(1.0))
