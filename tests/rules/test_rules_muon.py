"""Muon beside torch's own, and its dialects beside Keras' and optax'."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from rule_checks import drawn, give

import descend


@pytest.mark.parametrize("scale", [None, "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("dtype", "room"), [(torch.float64, 1e-13), (torch.float32, 1e-3)], ids=str)
def test_muon_is_torch_s(scale: str | None, nesterov: bool, dtype: torch.dtype, room: float) -> None:
    """In float32 a last digit of the momentum may round to another bfloat16."""
    ours, theirs = (drawn([(12, 12), (3, 8), (9, 2)], dtype) for _ in range(2))
    given = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov, "adjust_lr_fn": scale}
    one, two = descend.Muon(ours, **given), torch.optim.Muon(theirs, **given)
    for t in range(10):
        give(ours, t)
        give(theirs, t)
        one.step()
        two.step()
    for p, q in zip(ours, theirs, strict=True):
        assert (p - q).detach().abs().max() <= room
    assert {*one.state[ours[0]]} == {"momentum_buffer", "step"}


def orthogonal(u: Any, eps: float) -> Any:
    """Keras' and optax' iterations: eps is added to the length."""
    x = u / (np.linalg.norm(u) + eps)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def keras_muon(p: Any, gradients: list[Any], rates: list[float], decay: float) -> Any:
    """Keras 3.15: decay first, a sum of gradients, Moonlight's scale."""
    m = np.zeros_like(p)
    for g, lr in zip(gradients, rates, strict=True):
        p = p - p * decay * lr
        m = m + (g + m * (0.95 - 1))
        p = p - lr * orthogonal(g + 0.95 * m, 1e-7) * np.sqrt(max(p.shape)) * 0.2
    return p


def optax_muon(p: Any, gradients: list[Any], rates: list[float], decay: float) -> Any:
    """optax 0.2.8, for matrices of outputs by inputs: averages corrected a step apart."""
    m = np.zeros_like(p)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m = 0.05 * g + 0.95 * m
        ahead = 0.95 * m / (1 - 0.95 ** (t + 1)) + 0.05 * g / (1 - 0.95**t)
        p = p - lr * (np.sqrt(max(1, p.shape[0] / p.shape[1])) * orthogonal(ahead, 1e-8) + decay * p)
    return p


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
@pytest.mark.parametrize(("word", "peer"), [("keras", keras_muon), ("optax", optax_muon)])
def test_muon_s_dialects_are_their_libraries(word: str, peer: Any, shape: tuple[int, int]) -> None:
    [p] = drawn([shape], torch.float64)
    here = p.detach().numpy().copy()
    opt = descend.optimizer("muon", dialect=word)([p], lr=0.1, weight_decay=0.1, ns_bits=64)
    gradients, rates = [], [0.1] * 5 + [0.03] * 5
    for t, lr in enumerate(rates):
        give([p], t)
        assert p.grad is not None
        gradients.append(p.grad.numpy().copy())
        opt.param_groups[0]["lr"] = lr
        opt.step()
    true, other = peer(here, gradients, rates, 0.1), peer(here, gradients, rates, 0.11)
    assert np.abs(p.detach().numpy() - true).max() < 1e-6
    assert np.abs(p.detach().numpy() - other).max() > 1e-4


def test_state_goes_to_torch_s_muon_and_back() -> None:
    ours, theirs, last = (drawn([(6, 4), (6, 4)], torch.float64) for _ in range(3))
    one, two, three = descend.Muon(ours), torch.optim.Muon(theirs), descend.Muon(last)
    for t in range(9):
        for params, opt in ((ours, one), (theirs, two), (last, three)):
            give(params, t)
            opt.step()
        if t == 3:
            two.load_state_dict(deepcopy(one.state_dict()))  # torch keeps the tensors it is given
        if t == 6:
            three.load_state_dict(two.state_dict())
    for p, q, r in zip(ours, theirs, last, strict=True):
        assert (p - q).detach().abs().max() <= 1e-13
        assert (p - r).detach().abs().max() <= 1e-13


def test_what_is_no_matrix_follows_adamw() -> None:
    ours, theirs = (drawn([(5,), (), (3, 4)], torch.float64) for _ in range(2))
    groups = [{"params": ours[:2]}, {"params": ours[2:], "use_muon": False}]
    one = descend.Muon(groups, lr=0.1, adamw_lr_ratio=0.25, adamw_betas=(0.8, 0.9), weight_decay=0.1)
    two = descend.AdamW(theirs, lr=0.025, betas=(0.8, 0.9), weight_decay=0.1)
    for t in range(5):
        for params, opt in ((ours, one), (theirs, two)):
            give(params, t)
            opt.step()
    for p, q in zip(ours, theirs, strict=True):
        assert (p - q).detach().abs().max() <= 1e-14
