"""Noise of the gradient and of the update: its size, and that a run is repeated and resumed to the bit."""

from __future__ import annotations

import copy
import io

import pytest
import torch

import descend
from descend.formula import Rule, chain, stage
from descend.modifiers import agc, clip_global_norm, gradient_noise, langevin
from descend.rules import get

DESCENT = get("gradient_descent")


def noise(rule: Rule, steps: int, size: int = 20_000, **hypers: float) -> torch.Tensor:
    """What a chain adds to two parameters of zero gradients, step by step: [steps, 2, size]."""
    params = [torch.zeros(size, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    optimizer = descend.optimizer(rule)(params, **hypers)
    found = []
    for _ in range(steps):
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        found.append(torch.stack([p.detach() - q for p, q in zip(params, before, strict=True)]))
    return torch.stack(found)


def test_the_variance_of_gradient_noise_falls_as_the_paper_says() -> None:
    found = noise(chain(gradient_noise, DESCENT), 10, lr=1.0, eta=0.3, gamma=0.55)
    for t, both in enumerate(found, 1):
        assert both.var().item() == pytest.approx(0.3 / t**0.55, rel=0.03)  # four standard deviations
        assert abs(both.mean().item()) < 4 * (0.3 / t**0.55 / both.numel()) ** 0.5
    flat = found.flatten(0, 1)
    related = torch.corrcoef(flat / flat.std(1, keepdim=True)).fill_diagonal_(0)
    assert related.abs().max() < 4.5 / flat.shape[1] ** 0.5, "each step and each parameter has its own"


def test_langevin_descent_samples_what_theory_says() -> None:
    """On x**2/2, x <- (1 - lr)*x + sqrt(2*lr)*noise has variance 1 / (1 - lr/2) in the long run."""
    x = torch.zeros(50_000, requires_grad=True)
    optimizer = descend.optimizer(chain(DESCENT, langevin))([x], lr=0.2)
    for _ in range(60):
        x.grad = x.detach().clone()
        optimizer.step()
    assert x.var().item() == pytest.approx(1 / (1 - 0.1), rel=4 * (2 / 50_000) ** 0.5)
    assert abs(x.mean().item()) < 4 / 50_000**0.5
    kurtosis = ((x - x.mean()) ** 4).mean() / x.var() ** 2
    assert kurtosis.item() == pytest.approx(3, abs=4 * (24 / 50_000) ** 0.5)


def test_the_noises_of_one_seed_differ() -> None:
    both = chain(gradient_noise, DESCENT, langevin)
    one = noise(both, 1, lr=1.0, temperature=0.0)[0, 0]
    other = noise(both, 1, lr=1.0, eta=0.0)[0, 0]
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 4 / one.numel() ** 0.5


EACH = [
    chain(gradient_noise, get("adamw"), langevin),
    chain(gradient_noise, clip_global_norm, get("adamw")),
    chain(agc, get("momentum"), langevin),
]


def trained(optimizer: torch.optim.Optimizer, params: list[torch.Tensor], first: int, last: int) -> None:
    for step in range(first, last):
        source = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=source).to(p.dtype)
        optimizer.step()


def start(rule: Rule, dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
    source = torch.Generator().manual_seed(9)
    params = [
        torch.randn(s, generator=source).to(dtype).requires_grad_() for s in ((300, 300), (40, 7), (1, 5))
    ]
    return params, descend.optimizer(rule)(params, lr=0.01, seed=4.0)


@pytest.mark.parametrize("rule", EACH, ids=lambda rule: rule.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_is_the_same_to_the_bit_resumed_copied_and_on_two_threads(
    rule: Rule, dtype: torch.dtype
) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole, optimizer = start(rule, dtype)
        trained(optimizer, whole, 0, 6)
        torch.set_num_threads(2)
        params, optimizer = start(rule, dtype)
        trained(optimizer, params, 0, 3)
        again, fresh = start(rule, dtype)
        with torch.no_grad():
            for p, q in zip(again, params, strict=True):
                p.copy_(q)
        saved = io.BytesIO()
        torch.save(optimizer.state_dict(), saved)
        fresh.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
        twin, twins = copy.deepcopy((optimizer, params))
        trained(fresh, again, 3, 6)
        trained(twin, twins, 3, 6)
    finally:
        torch.set_num_threads(threads)
    for p, q, r in zip(whole, again, twins, strict=True):
        assert p.isfinite().all()
        assert torch.equal(p, q)
        assert torch.equal(p, r)


def test_another_seed_is_another_run_and_the_place_is_the_parameter_s_not_the_group_s() -> None:
    rule = chain(DESCENT, langevin)
    assert not torch.equal(noise(rule, 1, seed=0.0), noise(rule, 1, seed=1.0))
    params = [torch.zeros(6, requires_grad=True) for _ in range(3)]
    optimizer = descend.optimizer(rule)([{"params": params[:1]}, {"params": params[1:2]}])
    optimizer.add_param_group({"params": params[2:]})
    for p in (params[2], params[0]):  # in another order, and one not at all
        p.grad = torch.zeros(6)
        optimizer.step()
    assert [optimizer.state[p]["langevin_place"].item() for p in (params[0], params[2])] == [0, 2]


def test_noise_takes_no_pass_of_its_own() -> None:
    plain, noisy = stage(get("adamw")), stage(chain(gradient_noise, get("adamw"), langevin))
    assert (len(noisy.passes), noisy.bytes_moved) == (len(plain.passes), plain.bytes_moved)
