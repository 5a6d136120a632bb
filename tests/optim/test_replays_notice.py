"""What makes a step that could have been replayed go through Python again, and what does not."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from replay_runs import CHANGED, NEEDED, NEVER, SHAPES, SOON, STEPS, Run, both, hooks_of, same
from torch.optim.optimizer import register_optimizer_step_post_hook

import descend
from descend.formula.vocabulary import log, maximum, where
from descend.optim import replays
from descend.wrappers import EMA, SAM, Lookahead

pytestmark = NEEDED


def group(**values: Any) -> Callable[[Run], None]:
    return lambda run: run.opt.param_groups[0].update(values)


def without(*places: int) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        for place in places:
            run.params[place].grad = None

    return change


def on_grad(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        run.params[0].grad = make(run.params[0].grad)

    return change


def elsewhere(run: Run) -> None:
    run.params[0].data = run.params[0].data.clone()


def longer(run: Run) -> None:
    run.params.append(torch.ones(3, requires_grad=True))
    run.params[-1].grad = torch.ones(3)
    run.opt.param_groups[0]["params"].append(run.params[-1])


def shorter(run: Run) -> None:
    run.opt.param_groups[0]["params"] = run.opt.param_groups[0]["params"][1:]


def one_more_group(run: Run) -> None:
    run.params.append(torch.ones(3, requires_grad=True))
    run.params[-1].grad = torch.ones(3)
    run.opt.add_param_group({"params": [run.params[-1]], "lr": 0.3})


def other_groups(run: Run) -> None:
    (held,) = run.opt.param_groups
    run.opt.param_groups = [{**held, "lr": 0.7}]


def edited_count(run: Run) -> None:
    run.opt.state[run.params[1]]["step"] += 5


def edited_state(run: Run) -> None:
    run.opt.state[run.params[1]]["exp_avg"].mul_(2)


def replaced_state(run: Run) -> None:
    run.opt.state[run.params[1]]["exp_avg"] = torch.ones(4, 7)


def no_state(run: Run) -> None:
    run.opt.state.clear()


def loaded(run: Run) -> None:
    run.opt.load_state_dict(run.opt.state_dict())


def other_threads(run: Run) -> None:
    torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)


DIFFERENT = {
    "a learning rate of zero": group(weight_decay=0.0),
    "a whole number": group(lr=1),
    "a tensor": group(lr=torch.tensor(0.5)),
    "a number of NumPy's": group(lr=np.float64(0.5)),
    "other betas": group(betas=(0.3, 0.4)),
    "betas that may change in place": group(betas=[0.3, 0.4]),
    "another variant": group(maximize=True),
    "a new key": group(new=3),
    "a gradient less": without(1),
    "no gradient": without(0, 1, 2),
    "a gradient not yet negated": on_grad(torch._neg_view),
    "a gradient of another order": on_grad(lambda g: g.mT.contiguous().mT),
    "one more parameter": longer,
    "one parameter less": shorter,
    "one more group": one_more_group,
    "other groups": other_groups,
    "an edited count": edited_count,
    "an edited state": edited_state,
    "a replaced state": replaced_state,
    "no state": no_state,
    "a loaded state": loaded,
    "another number of threads": other_threads,
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs_is_noticed(what):
    threads = torch.get_num_threads()

    def make(params: list[torch.Tensor]) -> Any:
        torch.set_num_threads(threads)
        return descend.AdamW(params, lr=0.1)

    found = both(make, change=DIFFERENT[what], shapes=SHAPES if "threads" not in what else ((300, 401),))
    assert found.before == CHANGED - SOON
    assert found.after < STEPS - SOON


def test_a_parameter_that_moves_is_no_difference():
    assert both(descend.AdamW, change=elsewhere).after == STEPS - SOON


def test_a_number_that_changes_is_no_difference():
    found = both(descend.AdamW, change=group(lr=0.03, eps=1e-3))
    assert found.after == STEPS - SOON


def test_a_key_of_somebody_elses_may_change():
    def make(params: list[torch.Tensor]) -> Any:
        return descend.AdamW([{"params": params, "seen": 0}])

    assert both(make, change=group(seen=[1, 2])).after == STEPS - SOON


def test_what_can_change_in_place_is_looked_at_by_python():
    def tensor(run: Run) -> None:
        run.opt.param_groups[0]["lr"].fill_(0.7)

    def listed(run: Run) -> None:
        run.opt.param_groups[0]["betas"][0] = 0.3

    makers = (
        (lambda params: descend.AdamW(params, lr=torch.tensor(0.1)), tensor),
        (lambda params: descend.AdamW([{"params": params, "betas": [0.9, 0.99]}]), listed),
    )
    assert [both(make, change=change).after for make, change in makers] == [0, 0]


def test_a_parameter_without_a_gradient_is_waited_for():
    def make(params: list[torch.Tensor]) -> Any:
        return descend.AdamW([*params, torch.ones(3, requires_grad=True)])

    def awake(run: Run) -> None:
        run.params.append(run.opt.param_groups[0]["params"][-1])
        run.params[-1].grad = torch.ones(3)

    found = both(make, change=awake)
    assert found.before == 0
    assert found.after > 0


def test_plans_of_which_one_was_never_launched():
    def make(params: list[torch.Tensor]) -> Any:
        params[0].data = params[0].data.double()
        opt: Any = descend.AdamW(params)
        opt.register_step_post_hook(lambda *_: opt.state[params[0]])  # whoever looks has it planned anew
        return opt

    def asleep(run: Run) -> None:
        run.opt._optimizer_step_post_hooks.clear()
        run.params[0].grad = None

    assert both(make, change=asleep, at=tuple(range(1, STEPS))).after == 0


class Halved(dict[str, Any]):
    """A group that says something else than it holds."""

    def __getitem__(self, key: str) -> Any:
        found = super().__getitem__(key)
        return found / 2 if key == "lr" else found


def test_a_group_of_another_class_is_read_by_python():
    assert both(lambda params: descend.AdamW([Halved(params=params)])).after == 0


def test_a_replay_holds_what_it_reads():
    run = Run(SOON, descend.AdamW)
    p, given = run.params[0], (run.opt.param_groups, *hooks_of(run.opt))
    again, before = run.opt._replays.again, p.detach().clone()
    run.opt = None
    gc.collect()
    assert again(*given)
    assert not torch.equal(p, before)
    assert not again(*given[:2])
    assert not again(*given[::-1])


@pytest.mark.parametrize(("name", "key"), [("adamw", "step"), ("nadam", "mu_product"), ("prodigy", "d")])
def test_a_number_that_somebody_holds_may_be_edited(name, key):
    held: list[torch.Tensor] = []

    def make(params: list[torch.Tensor]) -> Any:
        opt: Any = descend.optimizer(name)(params)
        opt.register_step_post_hook(lambda *_: held.append(opt.state[params[1]][key]))
        return opt

    def edit(run: Run) -> None:
        if run.k == 3:  # by now nothing is planned anew because somebody looks
            run.opt._optimizer_step_post_hooks.clear()
        if run.k == CHANGED:
            held[-1].mul_(1.5)

    found = both(make, change=edit, at=(3, CHANGED))
    assert found.before > 0
    assert found.after < STEPS - CHANGED


def infinite_once(p, g, t, lr=0.1):
    p = p - lr * g * maximum(where(t < 10, log(9 - t), 1), -1)
    return p


def test_scalars_that_are_numpys_at_one_step_are_computed_by_python_there():
    found = both(descend.optimizer(infinite_once))
    assert 0 < found.after < STEPS - SOON


def test_hooks_are_called():
    calls = []

    def change(run: Run) -> None:
        run.opt.register_step_pre_hook(lambda *_: calls.append("before"))
        run.opt.register_step_post_hook(lambda *_: calls.append("after"))

    assert Run(SOON, descend.AdamW, change).before == CHANGED - SOON
    assert calls == ["before", "after"] * (STEPS - CHANGED)


def test_hooks_of_all_optimizers_are_called():
    calls, handles = [], []

    def change(run: Run) -> None:
        handles.append(register_optimizer_step_post_hook(lambda *_: calls.append("after")))

    assert Run(SOON, descend.AdamW, change).before == CHANGED - SOON
    handles[0].remove()
    assert calls == ["after"] * (STEPS - CHANGED)


def test_the_profiler_sees_the_steps():
    run = Run(SOON, descend.AdamW)
    assert run.after == STEPS - SOON
    with torch.profiler.profile() as profile:
        run.opt.step()
    assert "Optimizer.step#AdamW.step" in {event.key for event in profile.key_averages()}


def test_a_closure_is_called_before_a_step_is_replayed():
    run, other = Run(SOON, descend.AdamW), Run(NEVER, descend.AdamW)
    for one in (run, other):

        def closure(one: Run = one) -> float:
            for p in one.params:
                p.grad = torch.ones_like(p)
            return 3.0

        assert one.opt.step(closure) == 3.0
    assert run.replayed == run.after + 1
    assert same(run, other)


@pytest.mark.parametrize("flush", [False, True])
def test_denormal_numbers_as_the_caller_takes_them(flush):
    def change(run: Run) -> None:
        run.params[0].data.fill_(1e-40)
        run.params[0].grad.fill_(0)
        torch.set_flush_denormal(flush)

    torch.set_num_threads(2)
    try:
        run = both(descend.SGD, change=change, shapes=((300, 401),), steps=CHANGED + 1)
        assert run.after == CHANGED + 1 - SOON
        assert bool((run.params[0] == 0).all()) is flush
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("wrap", [SAM, lambda o: Lookahead(o, k=3), EMA], ids=["SAM", "Lookahead", "EMA"])
def test_steps_of_a_wrapper_and_of_its_optimizer_may_take_turns(wrap):
    def run(patience: int) -> list[torch.Tensor]:
        source = torch.Generator().manual_seed(0)
        params = [torch.randn(s, generator=source).requires_grad_() for s in SHAPES]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replays, "CALM", patience)
            inner = descend.AdamW(params, lr=0.1)
            outer = wrap(inner)

            def closure() -> torch.Tensor:
                outer.zero_grad()
                loss = sum((p * p).sum() for p in params)
                loss.backward()
                return loss

            for k in range(16):
                closure()
                outer.step(closure) if k % 8 > 4 else inner.step()
        return params

    assert all(map(torch.equal, run(SOON), run(NEVER)))
