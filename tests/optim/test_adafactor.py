"""Our Adafactor beside torch's, over torch's own table of configurations and errors."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

import descend
from descend.optim.adafactor import Adafactor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's test helpers warn while they are imported
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

(INFO,) = [info for info in optim_db if info.optim_cls is torch.optim.Adafactor]
SHAPES = ((33, 20), (4, 3, 5, 5), (2, 6, 3), (37,), (), (5, 1))


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


def check_same(params: list[torch.Tensor], others: list[torch.Tensor], roundings: float) -> None:
    """Assert that two lists are apart by that many units of their type, of their largest element."""
    for p, q in zip(params, others, strict=True):
        if p.numel():
            apart = (p.detach().double() - q.detach().double()).abs().max()
            top = q.detach().double().abs().max().clamp(min=1e-2)
            assert apart <= roundings * torch.finfo(p.dtype).eps * top, (p.shape, float(apart / top))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", INFO.optim_inputs_func(device="cpu"), ids=lambda case: case.desc)
def test_a_run_is_torchs(case: Any, dtype: torch.dtype) -> None:
    """Ten steps, each of which rounds p once or twice; two groups; a parameter sits the third step out."""
    ours, theirs = parameters(dtype), parameters(dtype)
    mine = Adafactor(groups_of(ours), **case.kwargs)
    other = torch.optim.Adafactor(groups_of(theirs), **case.kwargs)
    for step in range(10):
        for params in (ours, theirs):
            gradients(params, step)
            if step == 2:
                params[0].grad = None
        mine.step()
        other.step()
    check_same(ours, theirs, 20)
    for p, q in zip(ours, theirs, strict=True):
        kept = {key: value.shape for key, value in other.state[q].items() if key != "step"}
        assert {key: value.shape for key, value in mine.state[p].items() if key != "step"} == kept


def test_another_beta_is_seen() -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    mine, other = Adafactor(ours, beta2_decay=-0.79), torch.optim.Adafactor(theirs)
    for step in range(3):
        gradients(ours, step)
        gradients(theirs, step)
        mine.step()
        other.step()
    with pytest.raises(AssertionError):
        check_same(ours, theirs, 20)


def test_types_may_be_mixed_and_half_types_are_near_torchs() -> None:
    """eps1 is each parameter's own type's. torch rounds bfloat16 after every operation, ours once a step."""
    ours = [parameters(dtype)[0] for dtype in (torch.float32, torch.float64, torch.bfloat16)]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    mine, others = Adafactor(ours), [torch.optim.Adafactor([p]) for p in theirs]
    for step in range(3):
        gradients(ours, step)
        gradients(theirs, step)
        mine.step()
        for one in others:
            one.step()
    check_same(ours[:2], theirs[:2], 20)
    check_same(ours[2:], theirs[2:], 4)


def test_a_run_goes_on_from_torchs_state_dict_and_back() -> None:
    theirs = parameters(torch.float64)
    other = torch.optim.Adafactor(groups_of(theirs))
    for step in range(3):
        gradients(theirs, step)
        other.step()
    ours = [p.detach().clone().requires_grad_() for p in theirs]
    mine = Adafactor(groups_of(ours))
    mine.load_state_dict(copy.deepcopy(other.state_dict()))
    last = [p.detach().clone().requires_grad_() for p in theirs]
    third = torch.optim.Adafactor(groups_of(last))
    third.load_state_dict(copy.deepcopy(mine.state_dict()))
    for step in range(3, 6):
        for params, one in ((theirs, other), (ours, mine), (last, third)):
            gradients(params, step)
            one.step()
    check_same(ours, theirs, 20)
    check_same(last, theirs, 0)


def test_every_error_is_torchs() -> None:
    for case in INFO.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        given = case.optimizer_error_input
        params = given.params if given.params is not None else [torch.nn.Parameter(torch.randn(3))]
        if issubclass(case.error_type, Warning):
            with pytest.warns(case.error_type, match=case.error_regex):
                Adafactor(params, **given.kwargs)
        elif case.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(case.error_type, match=case.error_regex):
                Adafactor(params, **given.kwargs)
        else:
            optimizer = Adafactor(params, **given.kwargs)
            with pytest.raises(case.error_type, match=case.error_regex):
                optimizer.step()


def test_the_rule_by_name_is_the_class_and_takes_whole_models() -> None:
    assert descend.Adafactor is descend.optimizer("adafactor") is Adafactor
    model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 2), torch.nn.Flatten(), torch.nn.Linear(6, 1))
    optimizer = descend.optimizer("adafactor")(model.parameters(), lr=0.01)
    model(torch.ones(4, 2, 3)).sum().backward()
    optimizer.step()
    keys = {frozenset(state) for state in optimizer.state_dict()["state"].values()}
    assert keys == {frozenset({"step", "row_var", "col_var"}), frozenset({"step", "variance"})}
