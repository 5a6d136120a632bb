"""EMA and SWA against torch's AveragedModel; swapping to the bit; buffers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from wrapper_cases import Problem, equal

from descend import UsageError
from descend.wrappers import EMA, SWA, Accumulate, Lookahead, ScheduleFree


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def train(model: nn.Module, opt: torch.optim.Optimizer, steps: int, after: Any = None) -> None:
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        opt.zero_grad()
        model(torch.randn(16, 4, generator=draw) + 1).square().sum().backward()
        opt.step()
        if after is not None:
            after()


def everything(model: nn.Module) -> list[torch.Tensor]:
    return [t.detach().clone() for t in model.state_dict().values()]


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_torch_s_averaged_model_agrees(kind: str, buffers: bool) -> None:
    ours, theirs = network(), network()
    base = torch.optim.Adam(ours.parameters(), lr=0.01)
    plain = torch.optim.Adam(theirs.parameters(), lr=0.01)
    model = ours if buffers else None
    if kind == "ema":
        opt: Any = EMA(base, decay=0.9, model=model)
        averaged = AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=buffers)

        def start(*_: object) -> None:
            if averaged.n_averaged == 0:  # the average starts at the weights before the first step
                averaged.update_parameters(theirs)

        plain.register_step_pre_hook(start)
    else:
        opt = SWA(base, model=model)
        averaged = AveragedModel(theirs, use_buffers=buffers)
    train(ours, opt, 20)
    train(theirs, plain, 20, after=lambda: averaged.update_parameters(theirs))
    with opt.applied():
        for (name, mine), other in zip(
            ours.state_dict().items(), averaged.module.state_dict().values(), strict=True
        ):
            if name.endswith("num_batches_tracked"):
                continue  # torch averages the counter, and cuts it to a whole number
            torch.testing.assert_close(mine, other, rtol=2e-6, atol=2e-7)


def test_swapping_in_and_out_changes_no_bit() -> None:
    for wrap in (EMA, SWA, lambda b, model: Lookahead(b, k=4)):
        model, straight = network(), network()
        opt = wrap(torch.optim.SGD(model.parameters(), lr=0.01), model=model)
        plain = wrap(torch.optim.SGD(straight.parameters(), lr=0.01), model=straight)

        def look(opt: Any = opt, model: nn.Module = model) -> None:
            before = everything(model)
            with opt.applied():
                inside = everything(model)
                with opt.applied():  # twice is once
                    assert equal(inside, everything(model))
                assert equal(inside, everything(model))
                with pytest.raises(UsageError, match="leave the block first"):
                    opt.step()
            assert equal(before, everything(model))

        train(model, opt, 10, after=look)
        train(straight, plain, 10)
        assert equal(everything(model), everything(straight))
        with opt.applied():
            assert not equal(everything(model), everything(straight))


def test_weights_come_back_after_an_exception() -> None:
    model = network()
    opt = EMA(torch.optim.SGD(model.parameters(), lr=0.01), model=model)
    train(model, opt, 3)
    before = everything(model)
    with pytest.raises(KeyboardInterrupt), opt.applied():
        raise KeyboardInterrupt
    assert equal(before, everything(model))
    train(model, opt, 1)  # and steps are allowed again


def test_integer_buffers_are_copied() -> None:
    model = network()
    opt = EMA(torch.optim.SGD(model.parameters(), lr=0.01), decay=0.5, model=model)
    train(model, opt, 5)
    with opt.applied():
        assert model[1].num_batches_tracked.item() == 5


def test_buffers_resume_to_the_bit() -> None:
    whole, part = network(), network()
    opt = EMA(torch.optim.SGD(whole.parameters(), lr=0.01), model=whole)
    train(whole, opt, 4)
    again = EMA(torch.optim.SGD(part.parameters(), lr=0.01), model=part)
    part.load_state_dict(whole.state_dict())
    again.load_state_dict(opt.state_dict())
    train(whole, opt, 3)
    train(part, again, 3)
    with opt.applied(), again.applied():
        assert equal(everything(whole), everything(part))
    unwatched = EMA(torch.optim.SGD(part.parameters(), lr=0.01))
    with pytest.raises(UsageError, match="with averaged buffers: make EMA with model=model"):
        unwatched.load_state_dict(opt.state_dict())
    with pytest.raises(UsageError, match="without averaged buffers"):
        again.load_state_dict(unwatched.state_dict())


def test_buffers_pass_through_another_wrapper() -> None:
    model = network()
    opt = Accumulate(EMA(torch.optim.SGD(model.parameters(), lr=0.01), model=model), every=2)
    train(model, opt, 4)
    state = opt.state_dict()
    assert "1.running_mean" in state["ema_buffers"]
    opt.load_state_dict(state)
    train(model, opt, 2)


def test_statistics_of_the_average_can_be_measured_inside() -> None:
    model = network()
    opt = SWA(torch.optim.SGD(model.parameters(), lr=0.05), model=model)
    train(model, opt, 10)
    batches = [torch.randn(32, 4, generator=torch.Generator().manual_seed(2)) + 1]
    with opt.applied():
        update_bn(batches, model)
        expected = model[0](batches[0]).mean(0)
        torch.testing.assert_close(model[1].running_mean, expected.detach())


@pytest.mark.parametrize("wrap", [EMA, SWA, Lookahead])
def test_what_would_mix_up_the_weights_is_refused_inside(wrap: Any) -> None:
    problem = Problem()
    opt = wrap(torch.optim.SGD(problem.params, lr=0.1))
    problem.steps(opt, 0, 2)
    state = opt.state_dict()
    with opt.applied():
        for act in (opt.step, opt.state_dict, lambda: opt.load_state_dict(state)):
            with pytest.raises(UsageError, match=r"inside `with \w+\.applied\(\)`"):
                act()


def test_a_wrapper_that_keeps_no_weights_asks_its_base() -> None:
    problem = Problem()
    opt = Accumulate(ScheduleFree(torch.optim.SGD(problem.params, lr=0.1)), every=1)
    problem.steps(opt, 0, 4)
    before = problem.bits()
    with opt.applied():
        assert equal(problem.bits(), [opt.base.kept[p]["x"] for p in problem.params])
    assert equal(problem.bits(), before)
    plain = Accumulate(torch.optim.SGD(problem.params, lr=0.1), every=1)
    with plain.applied():
        assert equal(problem.bits(), before)
