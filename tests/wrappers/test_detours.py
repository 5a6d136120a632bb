"""Wrappers around a rule of ours take a step as one program: the same step, in fewer sweeps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from wrapper_cases import Problem, equal

from descend import optim, rules
from descend.formula import State, stage
from descend.formula.detour import Detoured, idle_at_zero
from descend.optim import optimizer
from descend.wrappers import ASAM, SAM, ScheduleFree, Wrapper

# those of Adafactor that take some shapes only step the others by torch operations, and so go by hand
RULES = [name for name in rules.names() if not name.startswith("adafactor") and name != "sgd"]
WRAPS: dict[str, Callable[[torch.optim.Optimizer], Wrapper]] = {
    "ScheduleFree": lambda b: ScheduleFree(b, weight_decay=0.1, warmup_steps=3, r=0.5),
    "SAM": lambda b: SAM(b, rho=0.1),
    "ASAM": lambda b: ASAM(b, rho=0.1),
}


def programs(opt: Wrapper) -> list[Any]:
    return [plan.program for plan in (*opt.base._plans, *opt.base._staged)]


def went(opt: Wrapper) -> bool:
    """Whether the last step was one program with the base's rule."""
    return bool(programs(opt)) and all(isinstance(one.rule, Detoured) for one in programs(opt))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", WRAPS)
@pytest.mark.filterwarnings("ignore:.*makes no sense")
def test_it_is_the_step_that_is_taken_by_hand(name: str, rule: str) -> None:
    ends = []
    for by_hand in (False, True):
        problem = Problem()
        opt = WRAPS[name](optimizer(rule)(problem.named, lr=1e-2))
        opt._passable = opt._climbable = not by_hand
        if rule == "prodigy" and name == "ScheduleFree":
            opt.param_groups[0]["schedule_free_weight_decay"] = 0.0  # by hand its start is decayed once
        for t in range(6):
            problem.steps(opt, t, t + 1)
        assert went(opt) != by_hand
        with opt.applied():
            inside = problem.bits()
        ends.append(problem.bits() + inside)
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)  # some rules enlarge roundings


@pytest.mark.parametrize("rule", RULES)
def test_switching_computes_y_to_the_bit(rule: str) -> None:
    problem = Problem(torch.float32)
    opt = ScheduleFree(optimizer(rule)(problem.params, lr=1e-2), beta=0.7, weight_decay=0.1)
    problem.steps(opt, 0, 3)
    assert went(opt)
    y = problem.bits()
    opt.eval()
    assert not equal(y, problem.bits())
    opt.train()
    assert equal(y, problem.bits())


def test_schedule_free_around_adam_sweeps_once_and_leaves_m_out() -> None:
    problem = Problem(torch.float32)
    opt = ScheduleFree(optim.Adam(problem.params, lr=0.1, betas=(0.0, 0.99)), weight_decay=0.1)
    problem.steps(opt, 0, 2)
    (program,) = programs(opt)
    assert len(program.passes) == 1
    assert program.bytes_moved == 9  # p, g, z, x and v are read; all but g are written
    assert not opt.base.state[problem.params[0]]["exp_avg"].any()
    opt.param_groups[0]["schedule_free_weight_decay"] = 0.0
    problem.steps(opt, 2, 3)
    assert programs(opt)[0].bytes_moved == 8  # y is not read
    opt.param_groups[0]["betas"] = (0.9, 0.99)
    problem.steps(opt, 3, 4)
    assert programs(opt)[0].bytes_moved == 10
    assert opt.base.state[problem.params[0]]["exp_avg"].any()


def test_what_is_idle_at_zero() -> None:
    assert idle_at_zero(rules.get("adam")) == ("beta1", "beta2")
    assert idle_at_zero(rules.get("gradient_descent")) == ()
    assert "weight_decay" not in idle_at_zero(rules.get("adamw"))


def test_sam_neither_copies_nor_reads_the_moved_weights() -> None:
    problem = Problem(torch.float32)
    opt = SAM(optim.AdamW(problem.params))
    problem.steps(opt, 0, 1)
    (program,) = programs(opt)
    assert (program.passes[0].reads, [*program.passes[0].written]) == (
        ("g", "sam_saved", "m", "v"),
        ["p", "m", "v"],
    )
    assert all("saved" not in own for own in opt.kept.values())
    assert not any("sam_saved" in state for state in opt.base.state.values())


@pytest.mark.parametrize("rule", ["adamw", "lamb"])
@pytest.mark.parametrize("name", WRAPS)
def test_the_same_bits_for_any_number_of_threads(name: str, rule: str) -> None:
    start = torch.get_num_threads()
    ends = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            w = torch.nn.Parameter(torch.linspace(-2, 3, 200_003))
            opt = WRAPS[name](optimizer(rule)([("weight", w)], lr=0.01))
            for _ in range(3):
                opt.step(lambda opt=opt, w=w: (opt.zero_grad(), w.sin().sum().backward()))
            assert went(opt)
            ends.append([w.detach().clone()])
    finally:
        torch.set_num_threads(start)
    assert equal(ends[0], ends[1])
    assert equal(ends[0], ends[2])


def test_hooks_of_the_base_see_z() -> None:
    problem = Problem(torch.float32)
    opt = ScheduleFree(optim.Adam(problem.params, lr=0.1))
    problem.steps(opt, 0, 3)
    z = [opt.kept[p]["z"].clone() for p in problem.params]
    seen: list[list[torch.Tensor]] = []
    opt.base.register_step_pre_hook(lambda *_: seen.append(problem.bits()))
    problem.steps(opt, 3, 4)
    assert equal(seen[0], z)
    assert not went(opt)


def test_the_base_alone_steps_the_parameters() -> None:
    w = torch.nn.Parameter(torch.tensor([1.0]))
    opt = ScheduleFree(optim.SGD([w], lr=0.5))
    for _ in range(2):
        w.grad = torch.ones(1)
        opt.step()
    y, z = w.item(), opt.kept[w]["z"].item()
    opt.base.step()
    assert (w.item(), opt.kept[w]["z"].item()) == (y - 0.5, z)


@pytest.mark.parametrize("name", WRAPS)
def test_missing_gradients_are_those_of_the_step_by_hand(name: str) -> None:
    ends = []
    for by_hand in (False, True):
        draw = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(5, generator=draw)) for _ in range(4)]
        opt = WRAPS[name](optim.Adam([(f"{k}.weight", p) for k, p in enumerate(params)], lr=0.1))
        opt._passable = opt._climbable = not by_hand
        for t in range(8):
            calls = iter((t, t + 1))

            def closure(opt: Wrapper = opt, params: Any = params, calls: Any = calls) -> None:
                opt.zero_grad()
                at = next(calls)
                for k, p in enumerate(params):
                    if (at + k) % 3:  # so some have the first gradient only, some the second
                        p.grad = torch.full_like(p, 0.1 * (at + 1)) + p.detach()

            opt.step(closure)
        ends.append([p.detach().clone() for p in params])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_sam_takes_back_what_has_no_second_gradient() -> None:
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = SAM(optim.SGD([a, b], lr=0.5), rho=0.5)
    (a.sum() + b.sum()).backward()
    opt.first_step()
    a.sum().backward()
    opt.second_step()
    assert went(opt)
    assert (a.tolist(), b.tolist()) == ([0.5, 0.5], [1.0, 1.0])
    assert all("saved" not in own for own in opt.kept.values())


def test_a_state_that_starts_at_p_starts_at_the_weights_and_not_at_the_worst_point() -> None:
    def anchored(p, g, a=State("anchor", init="p"), lr=0.1):  # type: ignore[no-untyped-def]
        p = p - lr * g
        return p, a

    w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    opt = SAM(optimizer(anchored)([w]), rho=0.5)
    opt.step(lambda: (opt.zero_grad(), w.square().sum().backward()))
    assert went(opt)
    assert opt.base.state[w]["anchor"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("name", WRAPS)
@pytest.mark.parametrize("kind", ["bfloat16", "complex64", "subclass"])
def test_what_kernels_cannot_do_is_done_by_hand(name: str, kind: str) -> None:
    class Own(torch.nn.Parameter):
        pass

    start = torch.linspace(0.5, 2, 6)
    own = kind == "subclass"
    w = Own(start) if own else torch.nn.Parameter(start.to(getattr(torch, kind)))
    opt = WRAPS[name](optim.SGD([("weight", w)], lr=0.1))

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = w.abs().float().square().sum()
        loss.backward()
        return loss

    first = opt.step(closure)
    for _ in range(3):
        opt.step(closure)
    assert closure() < first
    assert went(opt) == (name != "ScheduleFree" and not own)


@pytest.mark.parametrize("how", ["load", "copy"])
@pytest.mark.parametrize("wrap", [SAM, ASAM])
def test_sam_goes_on_from_between_its_halves(wrap: Any, how: str) -> None:
    one, other = Problem(torch.float32), Problem(torch.float32)
    opt = wrap(optim.AdamW(one.named), rho=0.4)
    one.steps(opt, 0, 3)
    one.loss(3).backward()
    opt.first_step()
    if how == "copy":
        other, again = copy.deepcopy((one, opt))
    else:
        with torch.no_grad():
            for p, w in zip(other.params, one.bits(), strict=True):
                p.copy_(w)
        again = wrap(optim.AdamW(other.named), rho=0.4)
        other.steps(again, 0, 1)  # what it kept until now must not come back
        with torch.no_grad():
            for p, w in zip(other.params, one.bits(), strict=True):
                p.copy_(w)
        again.load_state_dict(opt.state_dict())
        again.zero_grad()
    for problem, wrapped in ((one, opt), (other, again)):
        problem.loss(3).backward()
        wrapped.second_step()
        problem.steps(wrapped, 4, 7)
    assert equal(one.bits(), other.bits())


def test_a_step_that_fails_takes_the_weights_of_sam_back() -> None:
    problem = Problem(torch.float32)
    opt = SAM(optim.AdamW(problem.params), rho=0.4)
    problem.steps(opt, 0, 1)
    before = problem.bits()
    problem.loss(1).backward()
    opt.first_step()
    problem.loss(1).backward()
    opt.param_groups[0]["lr"] = "fast"
    with pytest.raises(ValueError, match="could not convert"):
        opt.second_step()
    assert equal(before, problem.bits())


def test_a_rule_whose_y_would_be_computed_otherwise_is_stepped_by_hand() -> None:
    def shrinking(p, g, lr=0.1):  # type: ignore[no-untyped-def]
        p = (1 - lr) * (p * (g * g))
        return p

    problem = Problem(torch.float32)
    opt = ScheduleFree(optimizer(shrinking)(problem.params), beta=0.7)
    problem.steps(opt, 0, 3)
    assert not went(opt)
    y = problem.bits()
    opt.eval()
    opt.train()
    assert equal(y, problem.bits())


@pytest.mark.parametrize("kind", [optim.AdamW, optim.Adam])
def test_z_is_rounded_once_as_the_base_rounds_p(kind: Any) -> None:
    problem, plain = Problem(torch.float32), Problem(torch.float32)
    more = {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True}  # p - lr * weight_decay * p - lr * u
    more |= {"decoupled_weight_decay": True} if kind is optim.Adam else {}
    opt = ScheduleFree(kind(problem.params, **more), beta=0)
    problem.steps(opt, 0, 12)
    plain.steps(kind(plain.params, **more), 0, 12)
    assert went(opt)
    assert equal(problem.bits(), plain.bits())


def test_detours_leave_the_rule_as_it_is() -> None:
    assert "p" in stage(rules.get("adam")).passes[0].reads
    assert rules.get("adam").start == "p"
