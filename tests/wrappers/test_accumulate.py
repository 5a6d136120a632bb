"""Accumulation: many small batches make the step of one large one, whatever their sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from wrapper_cases import equal

from descend import UsageError, optim
from descend.wrappers import Accumulate

SIZES = [[4, 4, 4], [1, 7, 4], [3, 3, 1]]


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)


def data(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=dtype)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("make", [torch.optim.SGD, optim.Adam, torch.optim.Adagrad])
def test_windows_equal_large_batches(make: Any) -> None:
    small, large = network(), network()
    opt = Accumulate(make(small.parameters(), lr=0.1), every=3)
    plain = make(large.parameters(), lr=0.1)
    for sizes in SIZES:
        batch = data(sum(sizes))
        for n, part in enumerate(batch.split(sizes)):
            small(part).square().mean().backward()
            opt.step(samples=len(part))
            assert opt.stepped == (n == 2)
        plain.zero_grad()
        large(batch).square().mean().backward()
        plain.step()
    for one, other in zip(weights(small), weights(large), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_short_last_window_is_divided_by_what_it_holds() -> None:
    small, large = network(), network()
    opt = Accumulate(torch.optim.SGD(small.parameters(), lr=0.1), every=4)
    batch = data(9)
    for part in batch.split([4, 4, 1]):
        small(part).square().mean().backward()
        opt.step(samples=len(part))
        assert not opt.stepped
    opt.flush()
    assert opt.stepped
    after = weights(small)
    opt.flush()
    assert not opt.stepped
    assert equal(after, weights(small))
    plain = torch.optim.SGD(large.parameters(), lr=0.1)
    large(batch).square().mean().backward()
    plain.step()
    for one, other in zip(after, weights(large), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("every", [1, 2, 4])
def test_equal_batches_are_the_usual_recipe_to_the_bit(every: int) -> None:
    ours, theirs = network(torch.float32), network(torch.float32)
    opt = Accumulate(torch.optim.SGD(ours.parameters(), lr=0.1), every=every)
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for part in data(32, torch.float32).split(4):
        opt.zero_grad()  # a loop that clears gradients every time is as good
        ours(part).square().mean().backward()
        opt.step()
    for n, part in enumerate(data(32, torch.float32).split(4)):
        (theirs(part).square().mean() / every).backward()
        if (n + 1) % every == 0:
            plain.step()
            plain.zero_grad()
    assert equal(weights(ours), weights(theirs))


def test_steps_leave_no_gradient_behind() -> None:
    model = network()
    opt = Accumulate(torch.optim.SGD(model.parameters(), lr=0.1), every=2)
    for _ in range(2):
        model(data(2)).sum().backward()
        opt.step()
        assert all(p.grad is None for p in model.parameters())


def test_a_parameter_without_a_gradient_counts_as_zero() -> None:
    a, b, c = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(3))
    opt = Accumulate(torch.optim.SGD([a, b, c], lr=1.0, weight_decay=0.1), every=2)
    a.sum().backward()
    opt.step(samples=1)
    (a + b).sum().backward()
    opt.step(samples=3)
    assert [p.item() for p in (a, b)] == [-1.0, -0.75]
    assert c.item() == 0.0


def test_the_window_s_gradient_can_be_clipped() -> None:
    w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    opt = Accumulate(torch.optim.SGD([w], lr=1.0), every=2)
    opt.base.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_([w], 1.0) and None)
    for _ in range(2):
        (30 * w[0] + 40 * w[1]).backward()
        opt.step()
    torch.testing.assert_close(w.detach(), torch.tensor([-0.6, -0.8], dtype=torch.float64), rtol=1e-6, atol=0)


def test_half_precision_gradients_are_summed_in_float32() -> None:
    w = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    opt = Accumulate(torch.optim.SGD([w], lr=1.0), every=512)
    for _ in range(512):
        w.grad = torch.ones_like(w)  # in bfloat16 a sum of ones ends at 256
        opt.step()
    assert w.item() == -1.0


def test_sparse_gradients_accumulate() -> None:
    ends = []
    for every in (1, 2):
        torch.manual_seed(0)
        table = nn.Embedding(5, 2, sparse=True)
        opt = Accumulate(torch.optim.SGD(table.parameters(), lr=1.0), every=every)
        rows = torch.tensor([0, 3, 3, 1])
        for part in rows.split(4 // every):
            table(part).sum().div(len(part)).backward()
            opt.step(samples=len(part))
        ends.append(table.weight.detach().clone())
    torch.testing.assert_close(*ends)


def test_samples_are_given_always_or_never() -> None:
    model = network()
    opt = Accumulate(torch.optim.SGD(model.parameters(), lr=0.1), every=2)
    for first, second in ((None, 3), (3, None)):
        model(data(2)).sum().backward()
        opt.step(samples=first)
        with pytest.raises(UsageError, match="always"):
            opt.step(samples=second)
        opt.flush()
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="finite number above 0"):
            opt.step(samples=wrong)
