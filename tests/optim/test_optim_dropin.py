"""What surrounds an optimizer works as with torch.optim: schedulers, hooks, scalers, compiled models."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optim_runs import CASES, fresh, ours, same, theirs, walk
from torch.optim.optimizer import register_optimizer_step_post_hook

import descend
import descend as optim

NAMES = sorted(kind.__name__ for kind in descend.optim.CLASSES.values())


@pytest.mark.parametrize("name", NAMES)
def test_signature_is_torchs(name: str) -> None:
    """Same names, order, kinds and defaults; what is ours alone comes last and by keyword."""
    torchs = inspect.signature(getattr(torch.optim, name)).parameters
    found = inspect.signature(getattr(descend, name)).parameters
    positional = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
    assert [n for n, p in found.items() if p.kind in positional] == [
        n for n, p in torchs.items() if p.kind in positional
    ]
    assert set(found) - set(torchs) <= {"strict", "independent_weight_decay"}
    for word, parameter in torchs.items():
        assert (found[word].kind, found[word].default) == (parameter.kind, parameter.default), word


def test_the_module_stands_in_for_torch_optim() -> None:
    for name in torch.optim.__all__:
        found = getattr(optim, name)
        if name.lower() in descend.optim.CLASSES | descend.optim.BY_SHAPE:
            assert issubclass(found, torch.optim.Optimizer)
            assert found is not getattr(torch.optim, name)
        else:
            assert found is getattr(torch.optim, name), name
    assert callable(descend.optimizer)
    from descend.lr_scheduler import StepLR
    from descend.swa_utils import AveragedModel

    assert StepLR is torch.optim.lr_scheduler.StepLR
    assert AveragedModel is torch.optim.swa_utils.AveragedModel
    with pytest.raises(AttributeError, match="no attribute 'Adma'"):
        descend.Adma  # noqa: B018


def test_importing_and_stepping_does_not_import_dynamo() -> None:
    """It takes as long as importing torch; torch.optim imports it with the first optimizer."""
    program = (
        "import sys, torch, descend\n"
        "p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)\n"
        "opt = descend.Adam([p]); opt.step(); opt.zero_grad(); opt.load_state_dict(opt.state_dict())\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


Schedule = Callable[[torch.optim.Optimizer], Any]
SCHEDULES: dict[str, Schedule] = {
    "OneCycleLR": lambda o: optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=12),
    "CyclicLR": lambda o: optim.lr_scheduler.CyclicLR(
        o, 0.01, 0.1, step_size_up=3, cycle_momentum=True, base_momentum=0.5, max_momentum=0.9
    ),
    "Cosine": lambda o: optim.lr_scheduler.CosineAnnealingLR(o, T_max=10),
    "Warm restarts": lambda o: optim.lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=4),
    "Lambda": lambda o: optim.lr_scheduler.LambdaLR(o, lambda k: 0.9**k),
    "Sequential": lambda o: optim.lr_scheduler.SequentialLR(
        o,
        [optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3), optim.lr_scheduler.ExponentialLR(o, 0.9)],
        milestones=[3],
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", ["AdamW", "SGD momentum", "RMSprop centred", "Adam amsgrad"])
def test_schedulers(case: str, schedule: str) -> None:
    """Also those that turn betas or momentum; no step is taken with a stale value."""
    runs = []
    for make in (ours(case), theirs(case)):
        params = fresh()
        optimizer = make(params)
        scheduler = SCHEDULES[schedule](optimizer)
        for step in range(10):
            walk(optimizer, params, step, step + 1)
            scheduler.step()
        runs.append((params, optimizer.param_groups[0]))
    same(runs[0][0], runs[1][0], rtol=1e-5, atol=1e-6)
    for key in ("lr", "betas", "momentum"):
        assert runs[0][1].get(key) == runs[1][1].get(key)


def test_plateau_and_tensor_rate() -> None:
    runs = []
    for kind in (descend.SGD, torch.optim.SGD):
        params = fresh()
        optimizer = kind(params, lr=torch.tensor(0.1), momentum=0.9)
        scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        for step, loss in enumerate([3.0, 2.0, 2.0, 2.0, 2.0, 2.0]):
            walk(optimizer, params, step, step + 1)
            scheduler.step(loss)
        runs.append(params)
    same(*runs)


def test_momentum_that_starts_at_zero() -> None:
    """A scheduler may raise it later; the buffer begins then, as in torch."""
    runs = []
    for kind in (descend.SGD, torch.optim.SGD):
        params = fresh()
        optimizer = kind(params, lr=0.1, dampening=0.5)
        for step in range(6):
            optimizer.param_groups[0]["momentum"] = 0.9 if step >= 2 else 0
            optimizer.param_groups[0]["weight_decay"] = 0.1 if step >= 4 else 0
            optimizer.param_groups[0]["maximize"] = step == 5
            walk(optimizer, params, step, step + 1)
        runs.append(params)
    same(*runs)


def test_scaler() -> None:
    """Unscales, and skips the step whose gradients are not finite."""
    runs = []
    for kind in (descend.Adam, torch.optim.Adam):
        params = fresh()
        optimizer = kind(params, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
        for step in range(4):
            loss = sum(((p - 1) ** 2).sum() for p in params)
            if step == 2:
                loss = loss * float("inf")
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        runs.append((params, scaler.get_scale(), int(optimizer.state[params[0]]["step"])))
    same(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:] == (8.0, 3)


@pytest.mark.parametrize("flag", ["fused", "foreach"])
def test_flags_that_choose_an_implementation(flag: str) -> None:
    """Ours is always fused, whatever is asked; what torch refuses is refused."""
    params, mirror = fresh(), fresh()
    walk(descend.Adam(params, **{flag: True}), params, 0, 3)
    walk(torch.optim.Adam(mirror, **{flag: True}), mirror, 0, 3)
    same(params, mirror)
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        descend.SGD(fresh(), fused=True, foreach=True)
    with pytest.raises(RuntimeError, match="`fused` does not support `differentiable`"):
        descend.Adagrad(fresh(), fused=True, differentiable=True)
    with pytest.raises(ValueError, match="leave capturable=False"):
        descend.AdamW(fresh(), capturable=True)


def small_run(kind: type, compiled: bool = False, in_backward: bool = False) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    called = torch.compile(model, backend="eager") if compiled else model
    x, y = torch.randn(16, 4), torch.randn(16, 1)
    if in_backward:
        each = {p: kind([p], lr=0.05) for p in model.parameters()}

        def step(p: torch.Tensor) -> None:
            each[p].step()
            each[p].zero_grad()

        for p in model.parameters():
            p.register_post_accumulate_grad_hook(step)
    else:
        optimizer = kind(model.parameters(), lr=0.05)
    for _ in range(5):
        loss = ((called(x) - y) ** 2).mean()
        loss.backward()
        if not in_backward:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("how", [{}, {"compiled": True}, {"in_backward": True}], ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_training_loops(how: dict[str, bool]) -> None:
    """With clipped gradients, a compiled model, or a step inside the backward pass."""
    same(small_run(descend.AdamW, **how), small_run(torch.optim.AdamW, **how), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_step_inside_a_compiled_function() -> None:
    params, mirror = fresh(), fresh()
    optimizer, other = descend.Adam(params), torch.optim.Adam(mirror)

    def train() -> None:
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    compiled = torch.compile(train, backend="eager")
    for _ in range(3):
        compiled()
        other.zero_grad()
        sum((p**2).sum() for p in mirror).backward()
        other.step()
    same(params, mirror)


def test_closure() -> None:
    w = torch.tensor([3.0], requires_grad=True)
    optimizer = descend.SGD([w], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss.item()

    with torch.no_grad():
        assert optimizer.step(closure) == 9.0
    assert w.item() == pytest.approx(2.4)
    assert optimizer.step() is None


def test_step_hooks() -> None:
    params = fresh()
    optimizer = descend.Adam(params)
    seen: list[str] = []
    own = [
        optimizer.register_step_pre_hook(lambda o, a, k: seen.append("before")),
        optimizer.register_step_post_hook(lambda o, a, k: seen.append("after")),
    ]
    everywhere = register_optimizer_step_post_hook(lambda o, a, k: seen.append("all"))
    walk(optimizer, params, 0, 1)
    assert seen == ["before", "after", "all"]
    for handle in (*own, everywhere):
        handle.remove()
    walk(optimizer, params, 1, 2)
    assert len(seen) == 3


def test_profiler_sees_the_step() -> None:
    params = fresh()
    optimizer = descend.Adam(params)
    with torch.profiler.profile() as profile:
        walk(optimizer, params, 0, 1)
        optimizer.zero_grad()
    names = {event.name for event in profile.events()}
    assert {"Optimizer.step#Adam.step", "Optimizer.zero_grad#Adam.zero_grad"} <= names


def test_groups() -> None:
    runs = []
    for kind in (descend.Adam, torch.optim.Adam):
        params = fresh(shapes=((3,), (2, 2), (4,)))
        optimizer = kind([{"params": params[:1], "lr": 0.1}, {"params": params[1:2], "betas": (0.5, 0.6)}])
        walk(optimizer, params, 0, 2)
        optimizer.add_param_group({"params": params[2], "weight_decay": 0.5, "mine": "kept"})
        walk(optimizer, params, 2, 4)
        optimizer.param_groups[1]["params"] = optimizer.param_groups[1]["params"][:0]
        walk(optimizer, params, 4, 5)
        assert optimizer.param_groups[2]["mine"] == "kept"
        runs.append(params)
    same(*runs)


def test_zero_grad() -> None:
    params = fresh()
    optimizer = descend.SGD(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in params)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)
    before = [p.detach().clone() for p in params]
    optimizer.step()
    same(params, before, rtol=0, atol=0)


def test_independent_decay() -> None:
    """p shrinks by the same share at every rate, and at rate 0."""
    for lr in (0.0, 0.1):
        w = torch.tensor([4.0], requires_grad=True)
        optimizer = descend.AdamW([w], lr=lr, weight_decay=0.25, independent_weight_decay=True)
        w.grad = torch.zeros(1)
        optimizer.step()
        assert w.item() == 3.0
    w = torch.tensor([4.0], requires_grad=True)
    w.grad = torch.ones(1)
    descend.optimizer("gradient_descent", decay="independent")([w], lr=1.0, weight_decay=0.25).step()
    assert w.item() == 2.0
    with pytest.raises(ValueError, match=r"unknown decay 'decouple'.*did you mean 'decoupled'"):
        descend.optimizer("adam", decay="decouple")


def test_classes_of_rules() -> None:
    assert descend.optimizer("adam") is descend.Adam
    assert descend.optimizer("sgd") is descend.SGD
    made = descend.optimizer("momentum")
    assert made is descend.optimizer("momentum")
    assert list(inspect.signature(made).parameters)[:4] == ["params", "lr", "momentum", "dampening"]
    assert made(fresh()).rule.name == "momentum"
    assert "    b = where(t == 1, g, momentum * b + (1 - dampening) * g)\n" in (made.__doc__ or "")
    assert "    momentum: how much of the sum is kept each step. In [0, inf). Default 0.9." in (
        made.__doc__ or ""
    )
    with pytest.raises(ValueError, match=r"unknown rule 'adm'.*did you mean 'adam'"):
        descend.optimizer("adm")
    with pytest.raises(ValueError, match="momentum takes no 'beta'"):
        made(fresh(), beta=0.9)


def test_repr_names_the_back_end() -> None:
    params = fresh()
    optimizer = descend.Adam(params)
    assert "back end: chosen at the first step" in repr(optimizer)
    walk(optimizer, params, 0, 1)
    assert repr(optimizer).endswith("back end: cpu\n)")
    assert repr(optimizer).startswith("Adam (\nParameter Group 0\n")
    optimizer.param_groups[0]["params"].append(Other(torch.ones(3)).requires_grad_())
    walk(optimizer, optimizer.param_groups[0]["params"], 1, 2)
    assert repr(optimizer).endswith("back end: cpu, torch\n)")


class Other(torch.Tensor):
    """A kind of tensor that the kernels know nothing of."""


@pytest.mark.parametrize("case", CASES)
def test_nothing_warns(case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = fresh()
        optimizer = ours(case)(params)
        walk(optimizer, params, 0, 2)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        walk(optimizer, params, 2, 3)
