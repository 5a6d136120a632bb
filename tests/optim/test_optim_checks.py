"""What an optimizer refuses, in torch's words where torch refuses it too, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optim_runs import fresh

import descend
import descend as optim


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("weigth_decay", "weight_decay"),
        ("beta", "betas"),
        ("LR", "lr"),
        ("epz", "eps"),
        ("maximise", "maximize"),
    ],
)
def test_misspelt_group_keys(wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match=f"unknown key '{wrong}'.*did you mean '{right}'"):
        descend.Adam([{"params": fresh(), wrong: 0.1}])
    optimizer = descend.Adam(fresh())
    with pytest.raises(ValueError, match=f"unknown key '{wrong}'"):
        optimizer.add_param_group({"params": fresh(), wrong: 0.1})
    assert len(optimizer.param_groups) == 1


def test_other_tools_keep_their_keys() -> None:
    theirs = ("initial_lr", "max_lr", "lr_scale", "swa_lr", "name", "layer", "max_momentum", "group_name")
    descend.AdamW([{"params": fresh(), **dict.fromkeys(theirs, 1)}])
    optimizer = descend.SGD(fresh(), lr=0.1, momentum=0.9)
    optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=3)
    descend.SGD(optimizer.param_groups)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("Adam", {"lr": -0.1}, "Invalid learning rate: -0.1"),
        ("Adam", {"lr": float("nan")}, "Invalid learning rate: nan"),
        ("Adam", {"eps": -1.0}, "Invalid epsilon value: -1.0"),
        ("RAdam", {"betas": (0.9, 1.5)}, "Invalid beta parameter at index 1: 1.5"),
        ("NAdam", {"momentum_decay": -1}, "Invalid momentum_decay value: -1"),
        ("Adagrad", {"initial_accumulator_value": -1}, "Invalid initial_accumulator_value value: -1"),
        ("RMSprop", {"alpha": -1}, "Invalid alpha value: -1"),
        ("SGD", {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
        ("SGD", {"lr": torch.ones(2)}, "Tensor lr must be 1-element"),
        ("AdamW", {"independent_weight_decay": True, "weight_decay": 1.5}, "Invalid weight_decay value: 1.5"),
    ],
)
def test_values_out_of_range(name: str, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        getattr(descend, name)(fresh(), **wrong)
    with pytest.raises(ValueError, match=words):
        getattr(descend, name)([{"params": fresh(), **wrong}])


@pytest.mark.parametrize(
    ("name", "doubtful"),
    [
        ("RMSprop", {"alpha": 1.5}),
        ("SGD", {"momentum": 5.0}),
        ("ASGD", {"lambd": -1.0}),
        ("Adadelta", {"rho": 1.0}),
    ],
)
def test_values_that_make_no_sense(name: str, doubtful: dict[str, Any]) -> None:
    word = next(iter(doubtful))
    with pytest.warns(UserWarning, match=f"{word} = .* makes no sense") as caught:
        getattr(descend, name)(fresh(), **doubtful)
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=f"{word} = .* makes no sense"):
        getattr(descend, name)(fresh(), strict=True, **doubtful)
