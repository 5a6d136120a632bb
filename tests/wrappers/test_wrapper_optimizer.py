"""Every wrapper is a torch.optim.Optimizer: state dicts, copies, hooks, schedulers, groups, GradScaler."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from wrapper_cases import BASES, WRAPPERS, Problem, equal

from descend import UsageError
from descend.wrappers import ASAM, EMA, SAM, SWA, Accumulate, Lookahead, ScheduleFree, Wrapper
from descend.wrappers.tensors import norm

STEPS = 9


def run(problem: Problem, opt: Wrapper, start: int, stop: int) -> None:
    """Steps; wrappers that take two gradients or none run the same closures."""
    problem.steps(opt, start, stop)


def evaluated(problem: Problem, opt: Wrapper) -> list[torch.Tensor]:
    with opt.applied():
        return problem.bits()


def saved(state: Any) -> Any:
    """Through a file and back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", WRAPPERS)
def test_resumes_to_the_bit_from_every_step(name: str, base: str) -> None:
    whole = Problem(torch.float32)
    opt = WRAPPERS[name](BASES[base](whole.named))
    stops = []
    for t in range(STEPS):
        stops.append((saved(opt.state_dict()), whole.bits()))
        run(whole, opt, t, t + 1)
    for t, (state, weights) in enumerate(stops):
        part = Problem(torch.float32, seed=1)
        part.curvature = whole.curvature
        with torch.no_grad():
            for p, w in zip(part.params, weights, strict=True):
                p.copy_(w)
        again = WRAPPERS[name](BASES[base](part.named))
        again.load_state_dict(state)
        run(part, again, t, STEPS)
        assert equal(part.bits(), whole.bits())
        assert equal(evaluated(part, again), evaluated(whole, opt))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_state_dict_has_the_form_of_torch(name: str) -> None:
    problem = Problem(torch.float32)
    opt = WRAPPERS[name](BASES["torch Adam"](problem.named))
    run(problem, opt, 0, 4)
    state = opt.state_dict()
    assert set(state) == {"state", "param_groups"}
    assert set(state["state"]) <= set(range(4))
    assert all(isinstance(key, str) for entry in state["state"].values() for key in entry)
    fresh = copy.deepcopy(opt.base.state_dict())
    opt.state_dict()
    assert fresh.keys() == opt.base.state_dict().keys()  # asking changes nothing in the base
    assert [sorted(e) for e in fresh["state"].values()] == [
        sorted(e) for e in opt.base.state_dict()["state"].values()
    ]


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_copies_go_on_to_the_bit(name: str, how: str) -> None:
    problem = Problem(torch.float32)
    opt = WRAPPERS[name](BASES["torch Adam"](problem.named))
    torch.optim.lr_scheduler.ConstantLR(opt, factor=1.0)  # it replaces opt.step
    run(problem, opt, 0, 4)
    pair = (problem, opt)
    other, again = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    assert again.param_groups[0]["params"][0] is other.params[0]
    run(problem, opt, 4, STEPS)
    assert not equal(problem.bits(), other.bits())
    run(other, again, 4, STEPS)
    assert equal(problem.bits(), other.bits())
    assert equal(evaluated(problem, opt), evaluated(other, again))


@pytest.mark.parametrize("name", WRAPPERS)
def test_schedulers_hooks_and_zero_grad(name: str) -> None:
    problem = Problem(torch.float32)
    opt = WRAPPERS[name](BASES["torch SGD"](problem.named))
    heard: list[str] = []
    opt.register_step_pre_hook(lambda *_: heard.append("before"))
    opt.register_step_post_hook(lambda *_: heard.append("after"))
    opt.register_state_dict_post_hook(lambda *_: heard.append("saved"))
    opt.register_load_state_dict_pre_hook(lambda *_: heard.append("loading"))
    opt.register_load_state_dict_post_hook(lambda *_: heard.append("loaded"))
    schedule = torch.optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.5)
    for t in range(3):
        run(problem, opt, t, t + 1)
        schedule.step()
    assert heard == ["before", "after"] * 3
    assert opt.param_groups[0]["lr"] == pytest.approx(0.05 / 8)
    assert opt.param_groups is opt.base.param_groups
    opt.load_state_dict(opt.state_dict())
    assert heard[6:] == ["saved", "loading", "loaded"]
    problem.loss(0).backward()
    opt.zero_grad()
    assert all(p.grad is None for p in problem.params)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_group_added_later_takes_part(name: str) -> None:
    problem = Problem(torch.float32)
    opt = WRAPPERS[name](BASES["torch SGD"](problem.named[:2]))
    run(problem, opt, 0, 2)
    opt.add_param_group({"params": problem.named[2:], "lr": 0.01})
    before = problem.bits()
    run(problem, opt, 2, 8)
    assert not any(torch.equal(a, b) for a, b in zip(before, problem.bits(), strict=True))
    state = saved(opt.state_dict())
    opt.load_state_dict(state)
    assert opt.param_groups[1]["lr"] == 0.01


def test_a_group_brings_values_of_its_own() -> None:
    problem = Problem()
    opt = SAM(torch.optim.SGD(problem.params[:2], lr=0.1), rho=0.5)
    opt.add_param_group({"params": problem.params[2:], "sam_rho": 0.0})
    assert [g["sam_rho"] for g in opt.param_groups] == [0.5, 0.0]
    problem.loss(0).backward()
    before = problem.bits()
    opt.first_step()
    moved = [not torch.equal(a, b) for a, b in zip(before, problem.bits(), strict=True)]
    assert moved == [True, True, False, False]
    with pytest.raises(UsageError, match="rho must lie in"):
        opt.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "sam_rho": -1.0})
    assert len(opt.param_groups) == 2


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_closure_is_called_with_gradients_on_and_its_loss_returned(name: str) -> None:
    problem = Problem()
    opt = WRAPPERS[name](BASES["torch SGD"](problem.named))
    expected = problem.loss(0).item()
    with torch.no_grad():
        assert opt.step(problem.closure(opt, 0)).item() == expected


@pytest.mark.parametrize("name", ["ScheduleFree", "EMA", "SWA", "Lookahead", "Accumulate"])
def test_steps_without_a_closure_are_the_same(name: str) -> None:
    ends = []
    for with_closure in (True, False):
        problem = Problem(torch.float32)
        opt = WRAPPERS[name](BASES["descend Adam"](problem.params))
        for t in range(6):
            closure = problem.closure(opt, t)
            if with_closure:
                opt.step(closure)
            else:
                closure()
                opt.step()
        ends.append(problem.bits())
    assert equal(*ends)


@pytest.mark.parametrize("wrap", [SAM, ASAM])
def test_first_and_second_step_are_the_closure_s(wrap: Any) -> None:
    one, other = Problem(torch.float32), Problem(torch.float32)
    opt, by_hand = (wrap(BASES["torch Adam"](problem.named)) for problem in (one, other))
    one.steps(opt, 0, 5)
    for t in range(5):
        other.loss(t).backward()
        by_hand.first_step()
        other.loss(t).backward()
        by_hand.second_step()
        by_hand.zero_grad()
    assert equal(one.bits(), other.bits())


def test_sam_resumes_between_its_two_steps() -> None:
    one, other = Problem(torch.float32), Problem(torch.float32)
    opt = SAM(BASES["torch Adam"](one.params), rho=0.4)
    one.steps(opt, 0, 3)
    one.loss(3).backward()
    opt.first_step()
    state = saved(opt.state_dict())
    with torch.no_grad():
        for p, w in zip(other.params, one.bits(), strict=True):
            p.copy_(w)
    again = SAM(BASES["torch Adam"](other.params), rho=0.4)
    again.load_state_dict(state)
    for problem, optimizer in ((one, opt), (other, again)):
        problem.loss(3).backward()
        optimizer.second_step()
    assert equal(one.bits(), other.bits())


@pytest.mark.parametrize("name", [n for n in WRAPPERS if "SAM" not in n])
def test_a_grad_scaler_drives_it_and_leaves_infinite_steps_out(name: str) -> None:
    one, other = Problem(torch.float32), Problem(torch.float32)
    opt, plain = (WRAPPERS[name](BASES["torch SGD"](problem.params)) for problem in (one, other))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in range(8):
        opt.zero_grad()
        scaler.scale(one.loss(t)).backward()
        if t == 3:
            one.params[0].grad[0, 0] = torch.inf
        scaler.step(opt)
        scaler.update()
        if t != 3:
            other.steps(plain, t, t + 1)
    assert equal(one.bits(), other.bits())
    assert equal(evaluated(one, opt), evaluated(other, plain))


def test_a_grad_scaler_drives_sam_and_restores_after_an_infinite_gradient() -> None:
    one, other = Problem(torch.float32), Problem(torch.float32)
    opt, plain = (SAM(BASES["torch SGD"](problem.params), rho=0.4) for problem in (one, other))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in range(8):
        opt.zero_grad()
        scaler.scale(one.loss(t)).backward()
        scaler.unscale_(opt)
        if t == 5:
            one.params[0].grad[0, 0] = torch.inf
        opt.first_step()
        scaler.update()
        scaler.scale(one.loss(t)).backward()
        scaler.step(opt)
        opt.restore()
        scaler.update()
        if t != 5:
            other.steps(plain, t, t + 1)
    assert equal(one.bits(), other.bits())


def test_a_failing_closure_leaves_sam_where_it_was() -> None:
    problem = Problem(torch.float32)
    opt = SAM(BASES["torch SGD"](problem.params), rho=0.4)
    before, calls = problem.bits(), []

    def closure() -> torch.Tensor:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return problem.closure(opt, 0)()

    with pytest.raises(KeyboardInterrupt):
        opt.step(closure)
    assert equal(before, problem.bits())


def test_sam_takes_back_a_parameter_whose_second_gradient_is_missing() -> None:
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = SAM(torch.optim.SGD([a, b], lr=0.0), rho=0.5)
    (a.sum() + b.sum()).backward()
    opt.first_step()
    a.sum().backward()
    opt.second_step()
    assert torch.equal(b, torch.ones(2))


def test_the_same_bits_for_any_number_of_threads() -> None:
    start = torch.get_num_threads()
    ends, norms = [], []
    many = torch.randn(4, 1_000_000, generator=torch.Generator().manual_seed(0))
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            norms.append(tuple(norm([one, one[:7]]).item().hex() for one in many))
            w = torch.nn.Parameter(torch.linspace(-2, 3, 200_003))
            opt = SAM(torch.optim.SGD([("weight", w)], lr=0.1), rho=0.05)
            opt.step(lambda opt=opt, w=w: (opt.zero_grad(), w.sin().sum().backward()))
            ends.append(w.detach().clone())
    finally:
        torch.set_num_threads(start)
    assert equal(ends[:1] * 2, ends[1:])
    assert len(set(norms)) == 1


def test_the_norm_neither_overflows_nor_drifts() -> None:
    w = torch.nn.Parameter(torch.zeros(3))
    opt = SAM(torch.optim.SGD([w], lr=0.0), rho=1.0)
    w.grad = torch.tensor([3e25, 0.0, 4e25])
    opt.first_step()
    assert w.tolist() == pytest.approx([0.6, 0.0, 0.8])
    big = torch.full((3_000_001,), 0.1)
    assert norm([big, big[:5]]).item() == pytest.approx(float(torch.tensor(0.1)) * 3_000_006**0.5, rel=1e-12)


def test_tiny_half_precision_gradients_do_not_overflow() -> None:
    w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))
    opt = SAM(torch.optim.SGD([w], lr=0.0), rho=1.0)
    w.grad = torch.full_like(w, 1e-7)
    opt.first_step()  # 1 / 1.7e-7 is no float16
    assert w.tolist() == pytest.approx([0.5**0.5] * 2, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64])
@pytest.mark.parametrize("name", [n for n in WRAPPERS if " " not in n or "corrected" in n])
def test_other_types_go_through(name: str, dtype: torch.dtype) -> None:
    w = torch.nn.Parameter(torch.linspace(0.5, 2, 6).to(dtype).view(2, 3))
    opt = WRAPPERS[name](torch.optim.SGD([("weight", w)], lr=0.1))

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = w.abs().float().square().sum()
        loss.backward()
        return loss

    first = opt.step(closure)
    for _ in range(5):
        opt.step(closure)
    assert closure() < first
    with opt.applied():
        assert w.dtype == dtype
        assert closure() < first


def test_half_precision_weights_have_averages_that_do_not_stall() -> None:
    for wrap in (lambda b: EMA(b, decay=0.999), SWA, ScheduleFree):
        w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
        opt = wrap(torch.optim.SGD([w], lr=2.0**-9))  # too small for w itself: it rounds to 1
        for _ in range(3):
            w.grad = torch.ones_like(w)
            opt.step()
        kept = [t for t in opt.kept[w].values() if t.dtype == torch.float32]
        assert len(kept) == 1
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    opt = EMA(torch.optim.SGD([w], lr=0.0), decay=0.999)
    opt.step()
    with torch.no_grad():
        w.fill_(2)
    for _ in range(10):
        opt.step()
    assert opt.kept[w]["average"].item() == pytest.approx(2 - 0.999**10, rel=1e-6)


@pytest.mark.parametrize("wrap", [Lookahead, EMA, SWA, ScheduleFree, lambda b: Accumulate(b, every=2)])
def test_layouts_of_memory_are_kept(wrap: Any) -> None:
    w = torch.nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    opt = wrap(torch.optim.SGD([w], lr=0.1))
    for _ in range(2):
        w.square().sum().backward()
        opt.step()
    assert all(t.stride() == w.stride() for t in opt.kept[w].values())
