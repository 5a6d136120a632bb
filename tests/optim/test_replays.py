"""Steps that are replayed: the bits of steps through Python, and what makes one go through Python again."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import descend
from descend import chain, modifiers, rules
from descend.formula import State, rule_of, stage
from descend.formula.vocabulary import exp, floor, global_norm, log, maximum, norm, sqrt, where
from descend.kernels import cpu
from descend.kernels.cpu import replay, scalars
from descend.kernels.cpu.compiler import c_function, optimised
from descend.kernels.cpu.team import openmp
from descend.optim import replays
from descend.wrappers import EMA, SAM, Lookahead

pytestmark = pytest.mark.skipif(
    not replay._is_possible() or not openmp() or scalars.compiled(stage(rules.get("adamw")).scalars) is None,
    reason="this Python, torch or system has not what replays read; every step goes through Python",
)

SOON, NEVER = 2, 1 << 40
STEPS, CHANGED = 14, 7
SHAPES = ((6, 5), (4, 7), (9, 3))

CHAINS = {
    "clip by value, cautious, ema": ("clip_value", "adamw", "cautious_unscaled", "ema_weights"),
    "global clip": ("clip_global_norm", "adamw"),
    "per tensor": ("agc", "lamb"),
    "noise": ("gradient_noise", "adamw"),
    "caution": ("adamw", "cautious"),
}


def rule(name: str) -> Any:
    if name not in CHAINS:
        return rules.get(name)
    return chain(*(getattr(modifiers, part, None) or rules.get(part) for part in CHAINS[name]))


LATER = {"radam": 4}
"""Steps after the second in which Python raises an error over scalars, and NumPy computes them."""


def adds_up(p, g, d=State(scalar=True), lr=0.1):
    d = d + norm(g)
    p = p - lr * g / (1 + d)
    return p, d


def hooks_of(opt: Any) -> tuple[Any, ...]:
    return opt._optimizer_step_pre_hooks, opt._optimizer_step_post_hooks


class Run:
    """Some steps of an optimizer on gradients that are always the same, with `change` before some of them."""

    def __init__(
        self,
        patience: int,
        make: Callable[[list[torch.Tensor]], Any],
        change: Callable[[Run], None] = lambda run: None,
        shapes: tuple[tuple[int, ...], ...] = SHAPES,
        dtype: torch.dtype = torch.float32,
        steps: int = STEPS,
        at: tuple[int, ...] = (CHANGED,),
    ) -> None:
        self.source = torch.Generator().manual_seed(1)
        self.params = [self.random(s, dtype).requires_grad_() for s in shapes]
        self.taken = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replays, "CALM", patience)
            self.opt = make(self.params)
            for self.k in range(steps):
                for p in self.params:
                    p.grad = self.random(tuple(p.shape), p.dtype)
                if self.k in at:
                    self.before = self.replayed
                    change(self)
                self.opt.step()
        self.after = self.replayed

    def random(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(shape, generator=self.source).to(dtype)

    @property
    def replayed(self) -> int:
        """Steps that the replay that stands now has taken."""
        found = self.opt._replays._replay
        return 0 if found is None else found.taken

    def outcome(self) -> list[Any]:
        states = [sorted(self.opt.state[p].items()) for p in self.params if p in self.opt.state]
        tensors = [*self.params, *(v for s in states for _, v in s if isinstance(v, torch.Tensor))]
        return [x.detach().clone() for x in tensors] + [torch.tensor(p._version) for p in self.params]


def same(a: Run, b: Run) -> bool:
    pairs = [*zip(a.outcome(), b.outcome(), strict=True)]
    return all(x.dtype == y.dtype and torch.equal(x.nan_to_num(7e7), y.nan_to_num(7e7)) for x, y in pairs)


def both(make: Callable[[list[torch.Tensor]], Any], **given: Any) -> Run:
    """The run with replays, which ends as the one without."""
    found, wanted = Run(SOON, make, **given), Run(NEVER, make, **given)
    assert wanted.after == 0
    assert same(found, wanted)
    return found


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


# -- what differs -----------------------------------------------------------------------------------------


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


# -- the scalars, and when it pays ------------------------------------------------------------------------


def odd(p, g, a=1.0, b=2.0, c=3.0):
    p = p - g * where(a < b, exp(a) / b, log(c)) * maximum(sqrt(b), a**c)
    p = p - g * (a**2 + b**0.5) - (2**c + 10**a) * floor(a) - where(a < b, 0, 1) * -where(b < c, 0, floor(c))
    return p


ODD = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-300, 1e300, math.inf, -math.inf, math.nan, 1e6)


@pytest.mark.parametrize("name", [*rules.names(), *CHAINS, "odd"])
def test_compiled_scalars_have_pythons_bits_or_say_that_they_may_not(name):
    program = stage(rule_of(odd) if name == "odd" else rule(name)).scalars
    first = c_function(scalars.compiled(program), replay.ctypes.c_int64, *[replay.ctypes.c_void_p] * 3)
    source = np.random.default_rng(0)
    certain = 0
    for k in range(300):
        given = source.uniform(0.001, 0.999, len(program.arguments))
        given[0] = k + 1
        if k % 3 == 2:
            given[source.integers(len(given))] = source.choice(ODD)
        found = [np.zeros(len(program.row)), np.zeros(len(program.states))]
        if first(given.ctypes.data, *(x.ctypes.data for x in found)):
            continue
        certain += 1
        wanted = [np.array(x, np.float64) for x in program(*given.tolist())]
        for a, b in zip(found, wanted, strict=True):
            assert np.array_equal(a, b, equal_nan=True)
            assert np.array_equal(np.signbit(a), np.signbit(b)) or np.isnan(a).any()
    assert certain > 150 or name == "odd"


def test_the_c_library_is_asked_what_python_asks_it():
    code = str(optimised(scalars.render(stage(rule_of(odd)).scalars)))
    assert code.count("call double @pow(") == 5
    assert "exp2" not in code


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
