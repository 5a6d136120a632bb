"""Modifiers in chains, as optimizers, against torch's own functions and the authors' lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import descend
from descend import rules
from descend.formula import Rule, chain, stage
from descend.modifiers import (
    agc,
    cautious,
    cautious_unscaled,
    centralise,
    clip_global_norm,
    clip_norm,
    clip_value,
    decoupled_decay,
    ema_weights,
)
from descend.optim import ways

Change = Callable[[list[torch.Tensor]], Any]
SHAPES = ((33, 70), (5, 3), (1, 16))


@pytest.fixture(params=["cpu", "torch"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each back end."""
    if request.param == "torch":
        monkeypatch.setattr(ways, "cpu_takes", lambda member, rule: False)
    return str(request.param)


def parameters() -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(2)
    made = [torch.randn(s, generator=source, dtype=torch.float64) for s in SHAPES]
    return [x.requires_grad_() for x in made]


def gradients(params: list[torch.Tensor], step: int) -> None:
    source = torch.Generator().manual_seed(step)
    for k, p in enumerate(params):
        p.grad = (1 + 2 * k) * torch.randn(p.shape, generator=source, dtype=torch.float64)


def check_same(rule: Rule, change: Change, other: Any = None, steps: int = 5, **hypers: float) -> None:
    """Assert that a chain is torch's optimizer (momentum) after a change of the gradients."""
    ours, theirs = parameters(), parameters()
    mine = descend.optimizer(rule)(ours, **hypers)
    plain = other(theirs) if other else torch.optim.SGD(theirs, lr=0.1, momentum=0.9)
    for step in range(steps):
        gradients(ours, step)
        gradients(theirs, step)
        change(theirs)
        mine.step()
        plain.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def around_momentum(*parts: Rule) -> Rule:
    return chain(*parts, rules.get("momentum"))


def by_rows(clipping: float, floor: float) -> Change:
    """Brock et al., as the authors write it: unit by unit, from the norms."""

    def change(params: list[torch.Tensor]) -> None:
        for p in params:
            g = p.grad
            assert g is not None
            most = clipping * p.detach().norm(dim=1, keepdim=True).clamp(min=floor)
            size = g.norm(dim=1, keepdim=True)
            g.copy_(torch.where(size > most, g * most / size.clamp(min=1e-6), g))

    return change


def test_clipping_by_value_is_torch_s() -> None:
    check_same(around_momentum(clip_value), lambda ps: clip_grad_value_(ps, 0.5), lr=0.1, clip=0.5)
    with pytest.raises(AssertionError):
        check_same(around_momentum(clip_value), lambda ps: clip_grad_value_(ps, 0.5), lr=0.1, clip=0.6)


@pytest.mark.parametrize("top", [1.0, 1e4])
def test_clipping_by_global_norm_is_torch_s(top: float) -> None:
    check_same(around_momentum(clip_global_norm), lambda ps: clip_grad_norm_(ps, top), lr=0.1, max_norm=top)


def test_clipping_by_norm_is_torch_s_tensor_by_tensor() -> None:
    """torch adds 1e-6 to the norm; so does the limit of this comparison."""
    ours, theirs = parameters(), parameters()
    gradients(ours, 0)
    gradients(theirs, 0)
    for p in theirs:
        clip_grad_norm_([p], 12.0)
    before = [p.detach().clone() for p in ours]
    descend.optimizer(chain(clip_norm, rules.get("gradient_descent")))(ours, lr=1.0, max_norm=12.0).step()
    kept = []
    for p, q, start in zip(ours, theirs, before, strict=True):
        assert p.grad is not None and q.grad is not None  # noqa: PT018
        torch.testing.assert_close(start - p.detach(), q.grad, rtol=1e-6, atol=1e-12)
        kept.append(bool(torch.equal(p.grad, q.grad)))
    assert kept == [False, True, False] or kept == [False, False, False], "12 lies among the norms"


FILTERS = ((4, 3, 5, 5), (6, 2, 3), (3, 8))


def by_filters(change: Change, memory_format: torch.memory_format = torch.contiguous_format) -> None:
    """Assert what adaptive clipping and centralising do to convolutions, filter by filter."""
    parts = {agc: {"clipping": 0.3}, centralise: {}}
    for part, hypers in parts.items():
        source = torch.Generator().manual_seed(3)
        params = [torch.randn(s, generator=source, dtype=torch.float64) for s in FILTERS]
        params[0] = params[0].to(memory_format=memory_format)
        ours = [p.clone().requires_grad_() for p in params]
        theirs = [p.clone().requires_grad_() for p in params]
        for p, q in zip(ours, theirs, strict=True):
            p.grad = 3 * torch.randn(p.shape, generator=source, dtype=torch.float64)
            q.grad = p.grad.clone()
        descend.optimizer(chain(part, rules.get("gradient_descent")))(ours, lr=1.0, **hypers).step()
        flat = [q.detach().flatten(1).requires_grad_() for q in theirs]
        for q, f in zip(theirs, flat, strict=True):
            assert q.grad is not None
            f.grad = q.grad.flatten(1).clone()
        (change if part is agc else centred)(flat)
        for p, q, f in zip(ours, theirs, flat, strict=True):
            assert f.grad is not None
            torch.testing.assert_close(
                p.detach(), q.detach() - f.grad.reshape(q.shape), rtol=1e-12, atol=1e-13
            )


def centred(params: list[torch.Tensor]) -> None:
    for p in params:
        assert p.grad is not None
        p.grad -= p.grad.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_rows_of_a_convolution_are_its_filters(memory_format: torch.memory_format) -> None:
    """`unitwise_norm` and `centralize_gradient` of the authors' code go over all dimensions but the first."""
    by_filters(by_rows(0.3, 1e-3), memory_format)
    with pytest.raises(AssertionError):
        by_filters(by_rows(0.31, 1e-3), memory_format)


def test_adaptive_clipping_shortens_rows_as_the_paper_says() -> None:
    check_same(around_momentum(agc), by_rows(0.3, 1e-3), lr=0.1, clipping=0.3)
    with pytest.raises(AssertionError):
        check_same(around_momentum(agc), by_rows(0.3, 1e-3), lr=0.1, clipping=0.31)


def test_centralised_rows_have_no_mean() -> None:
    check_same(around_momentum(centralise), centred, lr=0.1)


class CautiousAdamW(torch.optim.Optimizer):
    """C-AdamW as its authors' code has it, and without the scale."""

    def __init__(self, params: Any, scaled: bool) -> None:
        super().__init__(params, {"lr": 0.01})
        self.scaled, self.t = scaled, 0

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.t += 1
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            m = state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * p.grad
            v = state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * p.grad**2
            mask = (m * p.grad > 0).to(p.dtype)
            if self.scaled:
                mask /= mask.mean().clamp_(min=1e-3)
            size = 0.01 * (1 - 0.999**self.t) ** 0.5 / (1 - 0.9**self.t)
            change = size * m * mask / (v.sqrt() + 1e-8 * (1 - 0.999**self.t) ** 0.5)
            p.copy_(p - 0.01 * 0.1 * p - change)


@pytest.mark.parametrize("scaled", [True, False])
def test_caution_is_its_authors(scaled: bool) -> None:
    rule = chain(decoupled_decay, rules.get("adam"), cautious if scaled else cautious_unscaled)
    same = {"lr": 0.01, "weight_decay": 0.1}
    check_same(rule, lambda ps: None, lambda ps: CautiousAdamW(ps, scaled), steps=8, **same)
    with pytest.raises(AssertionError):
        check_same(rule, lambda ps: None, lambda ps: CautiousAdamW(ps, not scaled), steps=8, **same)


def test_caution_lets_nan_through() -> None:
    for part in (cautious, cautious_unscaled):
        params = parameters()
        opt = descend.optimizer(chain(rules.get("adam"), part))(params)
        gradients(params, 0)
        params[1].grad[2, 1] = torch.nan  # type: ignore[index]
        opt.step()
        assert params[1][2, 1].isnan()
        assert params[0].isfinite().all()


def test_the_average_of_weights_is_torch_s() -> None:
    model = torch.nn.Linear(4, 3, dtype=torch.float64)
    opt = descend.optimizer(chain(rules.get("adam"), ema_weights))(model.parameters(), lr=0.1, decay=0.9)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)  # torch's first is a copy
    for step in range(5):
        gradients(list(model.parameters()), step)
        opt.step()
        average.update_parameters(model)
    for p, q in zip(model.parameters(), average.module.parameters(), strict=True):
        torch.testing.assert_close(opt.state[p]["average"], q.detach(), rtol=1e-12, atol=1e-14)
        assert not torch.allclose(p, q)


PASSES = {
    "all in one": (chain(clip_value, rules.get("adamw"), cautious_unscaled, ema_weights), 1, 9),
    "scaled caution": (chain(rules.get("adamw"), cautious), 2, 10),
    "global clipping": (chain(clip_global_norm, rules.get("adamw")), 2, 8),
    "rows": (chain(agc, rules.get("adamw")), 2, 9),
}


@pytest.mark.parametrize(("rule", "passes", "moved"), PASSES.values(), ids=list(PASSES))
def test_a_chain_takes_no_more_passes_than_its_sums_demand(rule: Rule, passes: int, moved: int) -> None:
    program = stage(rule)
    assert (len(program.passes), program.bytes_moved) == (passes, moved)
