"""Wrong use of the wrappers: every message says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from wrapper_cases import BASES, WRAPPERS, Problem, equal

from descend import UsageError
from descend.wrappers import ASAM, EMA, SAM, SWA, Accumulate, Lookahead, ScheduleFree


def base() -> torch.optim.Optimizer:
    return torch.optim.SGD([("weight", torch.nn.Parameter(torch.ones(2)))], lr=0.1)


def unnamed() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: SAM(base(), rho=-0.1), r"rho must lie in \[0, inf\), got -0.1"),
    (lambda: SAM(base(), rho=float("nan")), r"rho must lie in"),
    (lambda: SAM(base(), rho="big"), r"rho must be a number in \[0, inf\), got 'big'"),
    (lambda: SAM(torch.nn.Linear(1, 1)), r"SAM wraps an optimizer"),
    (lambda: SAM(torch.optim.SGD), r"wraps an optimizer, such as torch.optim.SGD\(model"),
    (lambda: SAM([torch.ones(1)]), r"wraps an optimizer"),
    (lambda: SAM(base()).step(), r"two gradients a step"),
    (lambda: SAM(base()).first_step(), r"no parameter has a gradient"),
    (lambda: SAM(base()).second_step(), r"follows first_step"),
    (lambda: SAM(base()).step(lambda: None), r"no parameter has a gradient"),
    (lambda: ASAM(base(), eta=-1), r"eta must lie in"),
    (lambda: ASAM(unnamed()), r"model.named_parameters\(\)"),
    (lambda: Lookahead(base(), k=0), r"k must lie in \[1, inf\)"),
    (lambda: Lookahead(base(), k=2.5), r"k must be a whole number"),
    (lambda: Lookahead(base(), k=True), r"k must be a whole number"),
    (lambda: Lookahead(base(), k=float("inf")), r"k must"),
    (lambda: Lookahead(base(), alpha=1.5), r"alpha must lie in \[0, 1\]"),
    (lambda: ScheduleFree(base(), beta=1.1), r"beta must lie in \[0, 1\]"),
    (lambda: ScheduleFree(base(), weight_decay=-1), r"weight_decay must lie in"),
    (lambda: ScheduleFree(base(), warmup_steps=-1), r"warmup_steps must lie in"),
    (lambda: ScheduleFree(base(), r=-1), r"r must lie in"),
    (lambda: EMA(base(), decay=1.01), r"decay must lie in \[0, 1\]"),
    (lambda: EMA(base(), model=[1]), r"model must be a torch.nn.Module"),
    (lambda: SWA(base(), start=-1), r"start must lie in"),
    (lambda: SWA(base(), every=0), r"every must lie in \[1, inf\)"),
    (lambda: Accumulate(base(), every=0), r"every must lie in \[1, inf\)"),
]


@pytest.mark.parametrize(("act", "message"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_says_what_is_allowed(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        act()


def test_a_base_wrapped_twice_is_refused() -> None:
    one = base()
    EMA(one)
    with pytest.raises(UsageError, match="already has 'ema_decay'"):
        EMA(one)
    SAM(one)  # another wrapper may


def test_a_base_that_asam_refused_is_as_before() -> None:
    model = torch.nn.Linear(2, 1)
    one = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="named_parameters"):
        ASAM(one)
    ASAM(one, model=model)


def test_first_step_twice_is_refused() -> None:
    problem = Problem()
    opt = SAM(torch.optim.SGD(problem.params, lr=0.1))
    problem.loss(0).backward()
    opt.first_step()
    with pytest.raises(UsageError, match="came twice"):
        opt.first_step()


def test_a_second_step_without_a_gradient_is_refused_and_takes_the_weights_back() -> None:
    problem = Problem()
    opt = SAM(torch.optim.SGD(problem.params, lr=0.1))
    before = problem.bits()
    problem.loss(0).backward()
    opt.first_step()
    with pytest.raises(UsageError, match="between first_step"):
        opt.second_step()
    assert equal(before, problem.bits())


def test_sparse_gradients_are_refused_by_sam() -> None:
    table = torch.nn.Embedding(5, 2, sparse=True)
    opt = SAM(torch.optim.SGD(table.parameters(), lr=1.0))
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="sparse=False"):
        opt.first_step()


def test_asam_refuses_a_group_without_names_and_stays_as_it_was() -> None:
    model = torch.nn.Linear(2, 1)
    opt = ASAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    with pytest.raises(UsageError, match="named_parameters"):
        opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_foreign_state_dict_is_refused_and_changes_nothing(name: str) -> None:
    problem = Problem(torch.float32)
    opt = WRAPPERS[name](BASES["torch Adam"](problem.named))
    problem.steps(opt, 0, 4)
    state = opt.state_dict()

    def untouched() -> bool:
        now = opt.state_dict()
        return str(now) == before

    before = str(state)
    alone = BASES["torch Adam"](Problem(torch.float32).params)
    with pytest.raises(UsageError, match="is not one of"):
        opt.load_state_dict(alone.state_dict())
    assert untouched()
    broken = {**state, "param_groups": [{**g, opt._names()[0]: -1.0} for g in state["param_groups"]]}
    with pytest.raises(UsageError, match="must lie in"):
        opt.load_state_dict(broken)
    assert untouched()
    own = [key for entry in state["state"].values() for key in entry if key.startswith(opt.tag + "_")]
    for key in own[:1]:
        entries = {n: {**e, key: torch.ones(7)} for n, e in state["state"].items()}
        with pytest.raises(UsageError, match=r"has shape \(7,\)"):
            opt.load_state_dict({**state, "state": entries})
        assert untouched()
    smaller = WRAPPERS[name](BASES["torch Adam"](Problem(torch.float32).named[:2]))
    with pytest.raises(ValueError):
        smaller.load_state_dict(state)
