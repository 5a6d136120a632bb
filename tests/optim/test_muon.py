"""Our Muon beside torch's, over torch's own table of configurations and errors."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

import descend
from descend.optim.muon import Muon

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's test helpers warn while they are imported
    from torch.testing._internal.common_optimizers import optim_db

(INFO,) = [info for info in optim_db if info.optim_cls is torch.optim.Muon]
SHAPES = ((33, 20), (4, 30), (20, 33), (12, 12), (12, 12), (1, 6), (5, 1))


def parameters(dtype: torch.dtype) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(4)
    made = [torch.randn(s, generator=source, dtype=torch.float64).to(dtype) for s in SHAPES]
    made.append(torch.randn(6, 9, generator=source, dtype=torch.float64).to(dtype).t())
    return [x.requires_grad_() for x in made]


def gradients(params: list[torch.Tensor], step: int) -> None:
    source = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=source, dtype=torch.float64).to(p.dtype)


def groups_of(params: list[torch.Tensor]) -> list[dict[str, Any]]:
    return [{"params": params[:4]}, {"params": params[4:], "lr": 0.0125}]


def apart(params: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The largest difference of an element."""
    pairs = zip(params, others, strict=True)
    return max(float((p.detach().double() - q.detach().double()).abs().max()) for p, q in pairs)


@pytest.mark.parametrize("case", INFO.optim_inputs_func(device="cpu"), ids=lambda case: case.desc)
@pytest.mark.parametrize(("dtype", "room"), [(torch.float64, 1e-13), (torch.float32, 3e-3)], ids=str)
def test_a_run_is_torchs(case: Any, dtype: torch.dtype, room: float) -> None:
    """Two groups; a parameter sits the third step out. float32 momentum may round to another bfloat16.

    torch computes with a learning rate that is a tensor in the tensor's float32.
    """
    room = max(room, 1e-6) if isinstance(case.kwargs.get("lr"), torch.Tensor) else room
    ours, theirs = parameters(dtype), parameters(dtype)
    mine, other = Muon(groups_of(ours), **case.kwargs), torch.optim.Muon(groups_of(theirs), **case.kwargs)
    for step in range(10):
        for params in (ours, theirs):
            gradients(params, step)
            if step == 2:
                params[0].grad = None
        mine.step()
        other.step()
    assert apart(ours, theirs) <= room
    for p, q in zip(ours, theirs, strict=True):
        assert mine.state[p]["momentum_buffer"].shape == other.state[q]["momentum_buffer"].shape


def test_another_momentum_is_seen() -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    mine, other = Muon(ours, lr=0.1, momentum=0.9), torch.optim.Muon(theirs, lr=0.1)
    for step in range(3):
        gradients(ours, step)
        gradients(theirs, step)
        mine.step()
        other.step()
    assert apart(ours, theirs) > 3e-3


def test_a_run_goes_on_from_torchs_state_dict_and_back() -> None:
    theirs = parameters(torch.float64)
    other = torch.optim.Muon(groups_of(theirs))
    for step in range(3):
        gradients(theirs, step)
        other.step()
    ours = [p.detach().clone().requires_grad_() for p in theirs]
    mine = Muon(groups_of(ours))
    mine.load_state_dict(copy.deepcopy(other.state_dict()))
    last = [p.detach().clone().requires_grad_() for p in theirs]
    third = torch.optim.Muon(groups_of(last))
    third.load_state_dict(copy.deepcopy(mine.state_dict()))
    for step in range(3, 6):
        for params, one in ((theirs, other), (ours, mine), (last, third)):
            gradients(params, step)
            one.step()
    assert apart(ours, theirs) <= 1e-13
    assert apart(last, theirs) == 0


def test_every_error_is_torchs_but_vectors_are_taken() -> None:
    for case in INFO.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        given = case.optimizer_error_input
        params = given.params if given.params is not None else [torch.nn.Parameter(torch.randn(3, 3))]
        if "2D" in case.error_regex:
            Muon(params, **given.kwargs)
            continue
        with pytest.raises(case.error_type, match=case.error_regex):
            Muon(params, **given.kwargs).step()


def test_the_rule_by_name_is_the_class_and_takes_whole_models() -> None:
    assert descend.Muon is descend.optimizer("muon") is Muon
    model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 2), torch.nn.Flatten(), torch.nn.Linear(6, 1))
    optimizer = Muon(model.parameters(), lr=0.01)
    model(torch.ones(4, 2, 3)).sum().backward()
    optimizer.step()
    keys = [set(state) for state in optimizer.state_dict()["state"].values()]
    assert keys == [{"momentum_buffer", "step"}, {"exp_avg", "exp_avg_sq", "step"}] * 2


def test_maximize_climbs() -> None:
    up, down = parameters(torch.float64), parameters(torch.float64)
    one, two = Muon(up, weight_decay=0.0, maximize=True), Muon(down, weight_decay=0.0)
    gradients(up, 0)
    gradients(down, 0)
    for p in up:
        p.grad = -p.grad  # type: ignore[operator]
    one.step()
    two.step()
    assert apart(up, down) == 0


def test_a_group_can_change_to_adamw_on_the_way() -> None:
    params = parameters(torch.float32)
    optimizer = Muon(params)
    gradients(params, 0)
    optimizer.step()
    optimizer.param_groups[0]["use_muon"] = False
    gradients(params, 1)
    optimizer.step()
    assert {"exp_avg", "momentum_buffer"} <= set(optimizer.state[params[0]])
