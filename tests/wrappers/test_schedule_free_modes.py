"""Schedule-Free's two modes: exact to switch, hard to forget, safe to save in either."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from torch import nn
from wrapper_cases import Problem, equal

from descend import UsageError, optim
from descend.wrappers import ScheduleFree


def wrapped(problem: Problem, **values: float) -> ScheduleFree:
    return ScheduleFree(optim.Adam(problem.params, lr=0.1, betas=(0.0, 0.99)), **values)


def test_switching_changes_no_bit_of_the_run() -> None:
    straight, often = Problem(torch.float32), Problem(torch.float32)
    one, other = wrapped(straight), wrapped(often)
    straight.steps(one, 0, 8)
    for t in range(8):
        often.steps(other, t, t + 1)
        y = often.bits()
        for _ in range(3):
            other.eval()
            other.eval()
            x = often.bits()
            other.train()
            other.train()
        assert equal(often.bits(), y)
        assert equal(x, [other.kept[p]["x"] for p in often.params])
    assert equal(straight.bits(), often.bits())


def test_stepping_in_eval_mode_raises() -> None:
    problem = Problem()
    opt = wrapped(problem)
    opt.eval()  # before the first step too
    with pytest.raises(UsageError, match="call train"):
        problem.steps(opt, 0, 1)
    opt.train()
    problem.steps(opt, 0, 1)
    with opt.applied(), pytest.raises(UsageError, match="call train"):
        opt.step()
    problem.steps(opt, 1, 2)


def test_applied_leaves_the_mode_as_it_was() -> None:
    problem = Problem()
    opt = wrapped(problem)
    problem.steps(opt, 0, 3)
    opt.eval()
    x = problem.bits()
    with opt.applied():
        assert equal(problem.bits(), x)
    assert not opt.training
    opt.train()
    with pytest.raises(KeyboardInterrupt), opt.applied():
        raise KeyboardInterrupt
    assert opt.training


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("other_mode", ["train", "eval"])
def test_a_state_dict_of_either_mode_goes_on_whatever_the_model_holds(mode: str, other_mode: str) -> None:
    whole, part = Problem(torch.float32), Problem(torch.float32, seed=3)
    part.curvature = whole.curvature
    opt, again = wrapped(whole), wrapped(part)
    whole.steps(opt, 0, 4)
    part.steps(again, 0, 2)
    getattr(opt, mode)()
    getattr(again, other_mode)()
    again.load_state_dict(
        pickle.loads(pickle.dumps(opt.state_dict()))
    )  # the model's own weights are not loaded
    assert opt.training == again.training
    assert equal(whole.bits(), part.bits())
    for problem, optimizer in ((whole, opt), (part, again)):
        optimizer.train()
        problem.steps(optimizer, 4, 8)
    assert equal(whole.bits(), part.bits())


def test_weights_changed_from_outside_are_noticed() -> None:
    problem = Problem()
    opt = wrapped(problem)
    with torch.no_grad():
        problem.params[0].mul_(2)  # before the first step: fine
    problem.steps(opt, 0, 2)
    same = problem.bits()
    with torch.no_grad():
        for p, w in zip(problem.params, same, strict=True):
            p.copy_(w)  # the same weights again: fine
    problem.steps(opt, 2, 3)
    with torch.no_grad():
        problem.params[1].mul_(2)
    for act in (opt.step, opt.eval):
        with pytest.raises(UsageError, match="was changed since the last step"):
            act()


def test_evaluating_y_is_noticed_where_the_model_is_given() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1))
    opt = ScheduleFree(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    x = torch.ones(2, 3)

    def step() -> None:
        opt.zero_grad()
        model(x).sum().backward()
        opt.step()

    model.eval()
    with torch.no_grad():
        model(x)  # nothing is averaged yet
    step()
    step()  # frozen dropout, with gradients: training
    with torch.no_grad():
        with pytest.raises(UsageError, match=r"with optimizer\.applied"):
            model(x)
        with opt.applied():
            model(x)
        model.train()
        model(x)  # statistics, not evaluation
    model.eval()
    other, again = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    with torch.inference_mode():
        other(x)
        again(x)  # copies are models of their own, and bring no optimizer along
        for one in (other, again):
            assert next(iter(one._forward_pre_hooks.values())).optimizer is None
        with pytest.raises(UsageError):
            model(x)


def test_an_optimizer_that_is_gone_watches_no_longer() -> None:
    model = nn.Linear(3, 1)
    opt = ScheduleFree(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    model(torch.ones(3)).backward()
    opt.step()
    del opt
    gc.collect()
    model.eval()
    with torch.no_grad():
        model(torch.ones(3))


def test_a_base_that_fails_leaves_y_in_place() -> None:
    problem = Problem(torch.float32)
    opt = ScheduleFree(torch.optim.SGD(problem.params, lr=0.1), warmup_steps=5)
    problem.steps(opt, 0, 2)
    y = problem.bits()

    def fail(*_: object) -> None:
        raise RuntimeError("no step today")

    handle = opt.base.register_step_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no step today"):
        problem.steps(opt, 2, 3)
    assert equal(problem.bits(), y)
    assert opt.param_groups[0]["lr"] == 0.1
    handle.remove()
    problem.steps(opt, 2, 3)


def test_a_learning_rate_that_is_a_tensor_stays_the_same_tensor() -> None:
    problem = Problem(torch.float32)
    rate = torch.tensor(0.1)
    opt = ScheduleFree(torch.optim.SGD(problem.params, lr=rate), warmup_steps=5)
    problem.steps(opt, 0, 3)
    assert opt.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.1)


def test_a_learning_rate_of_zero_moves_nothing() -> None:
    problem = Problem(torch.float32)
    start = problem.bits()
    opt = ScheduleFree(torch.optim.SGD(problem.params, lr=0.0))
    problem.steps(opt, 0, 3)
    assert equal(problem.bits(), start)
