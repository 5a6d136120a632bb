"""Steps that are replayed have the bits of steps through Python; and when it pays to write one down."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from replay_runs import CHAINS, CHANGED, NEEDED, NEVER, SOON, STEPS, Run, both, rule

import descend
from descend import rules
from descend.formula import State, stage
from descend.formula.vocabulary import global_norm, norm
from descend.kernels import cpu
from descend.kernels.cpu import replay, scalars
from descend.optim import replays

pytestmark = NEEDED


LATER = {"radam": 4}
"""Steps after the second in which Python raises an error over scalars, and NumPy computes them."""


def adds_up(p, g, d=State(scalar=True), lr=0.1):
    d = d + norm(g)
    p = p - lr * g / (1 + d)
    return p, d


def falling(run: Run) -> None:
    for group in run.opt.param_groups:
        group["lr"] *= 0.7


@pytest.mark.parametrize("name", [*rules.names(), *CHAINS])
def test_a_replayed_step_has_the_bits_of_one_through_python(name):
    found = both(descend.optimizer(rule(name)), change=falling)
    by_kernel = all(plan.backend == cpu.NAME for plan in [*found.opt._plans, *found.opt._staged])
    python = rule(name).has_matrices or not by_kernel  # Python calls torch's routines
    assert found.after == (0 if python else STEPS - SOON - LATER.get(name, 0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_of_every_type(dtype):
    assert both(descend.AdamW, dtype=dtype).after == STEPS - SOON


def test_of_several_types_groups_and_plans():
    def make(params: list[torch.Tensor]) -> Any:
        params[1].data = params[1].data.double()
        groups = [{"params": params[:2], "lr": 0.1}, {"params": params[2:], "betas": (0.5, 0.6)}]
        return descend.AdamW(groups)

    assert both(make, change=falling).after == STEPS - SOON


@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy", "global clip"])
def test_on_several_threads(name):
    torch.set_num_threads(2)
    make = descend.optimizer(rule(name))
    assert both(make, shapes=((300, 401), (3, 2)), steps=10).after == 10 - SOON


def test_counts_beyond_what_one_thread_takes_with_pythons_lock():
    assert both(descend.SGD, shapes=((200, 300),)).after == STEPS - SOON


def test_plans_that_sum_over_all_tensors_together_go_through_python():
    def make(params: list[torch.Tensor]) -> Any:
        params[1].data = params[1].data.double()
        return descend.optimizer(rule("global clip"))(params)

    assert both(make).after == 0


def lone(p, g, d=State(scalar=True), lr=0.1):
    p = p - lr * g
    d = d + global_norm(g)
    return p, d


def test_so_do_those_that_have_but_one_pass():
    def make(params: list[torch.Tensor]) -> Any:
        params[1].data = params[1].data.double()
        return descend.optimizer(lone)(params)

    assert both(make).after == 0


def test_threads_of_python_go_on_beside_a_long_step():
    runs = [Run(SOON, descend.SGD, shapes=(shape,)) for shape in ((2, 3), (300, 401))]
    assert [run.opt._plans[0].table.words()["release"] for run in runs] == [False, True]


def test_states_that_come_apart_are_sorted_anew():
    def run(patience: int) -> list[torch.Tensor]:
        params, cohorts = [torch.ones(3, 4, requires_grad=True) for _ in range(3)], []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replays, "CALM", patience)
            opt: Any = descend.optimizer(adds_up)(params)
            for k in range(STEPS):
                for i, p in enumerate(params):
                    p.grad = torch.full_like(p, 1.0 + (i if k > CHANGED else 0))
                opt.step()
                cohorts.append(len(opt._staged[0].counters.cohorts))
        assert cohorts == [1] * (CHANGED + 2) + [3] * (STEPS - CHANGED - 2)
        return [*params, *(opt.state[p]["d"] for p in params)]

    assert all(map(torch.equal, run(SOON), run(NEVER)))


def test_without_torchs_functions_every_step_goes_through_python(monkeypatch):
    monkeypatch.setattr(replay, "_is_possible", lambda: False)
    assert Run(SOON, descend.AdamW).after == 0


def test_scalars_that_do_not_agree_are_not_taken(monkeypatch):
    other = scalars.compiled(stage(rules.get("adamax")).scalars)
    monkeypatch.setattr(replay, "compiled", lambda program: other)
    assert Run(SOON, descend.AdamW).after == 0


def test_what_is_given_up_at_once_is_written_down_later():
    found = replays.Replays()
    written: list[int] = []
    steps = 0

    class Short:
        taken = 0
        again = staticmethod(lambda *_: False)

    def write_down() -> Any:
        written.append(steps)
        return Short()

    while steps < 100:
        steps += 1
        found.leave()
        found.note(write_down)
    assert written == [replays.CALM * k for k in (1, 3, 7)]


def test_nothing_keeps_an_optimizer_alive():
    run = Run(SOON, descend.AdamW)
    assert run.after
    held = weakref.ref(run.opt), weakref.ref(run.opt._plans[0]), weakref.ref(run.params[0])
    gc.disable()
    try:
        run.opt = run.params = None
        assert [ref() for ref in held] == [None, None, None]
    finally:
        gc.enable()


def test_kernels_see_one_launch_after_another():
    run = Run(SOON, descend.optimizer("lamb"))
    (plan,) = run.opt._staged
    assert isinstance(plan.table, cpu.Table)
    assert plan.table._epoch.value == STEPS
