"""Rules that sum over tensors, on both back ends, against the float64 reference, a step from equal state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rule_checks import wide
from rule_lines import REDUCTION, REDUCTION_FORMS, Line
from test_rules_limits import line

import descend
from descend.kernels import reference
from descend.optim import ways

SHAPES = ((33, 70), (5, 3), (1, 16), (64, 1))
by_name = pytest.mark.parametrize("line", REDUCTION, ids=lambda line: line.name)


@pytest.fixture(params=["cpu", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each back end; the CPU kernel refuses nothing here by itself."""
    if request.param == "torch":
        monkeypatch.setattr(ways, "cpu_takes", lambda member, rule: False)
    return str(request.param)


def drawn(source: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor]:
    """Matrices, standard normal."""
    return [torch.randn(s, generator=source, dtype=torch.float64).to(dtype).requires_grad_() for s in SHAPES]


def exact_step(one: Line, opt: Any, params: list[torch.Tensor], t: int) -> list[tuple[Any, dict[str, Any]]]:
    """The reference's step from the optimizer's parameters, gradients and states."""
    ps = [p.detach().double().numpy() for p in params]
    states = [reference.initial_states(one.rule, p, one.values) for p in ps]
    if t > 1:
        kept = [{s.name: opt.state[p][s.key] for s in one.rule.states} for p in params]
        states = [{word: wide(x) for word, x in found.items()} for found in kept]
    gs = [p.grad.double().numpy() for p in params if p.grad is not None]
    return reference.step_together(one.rule, ps, gs, t, states, one.values)


def check_reduction(one: Line, dtype: torch.dtype, backend: str, steps: int = 6) -> None:
    """Assert that every step is the reference's, within a few of the dtype's roundings.

    A sum is exact to float64 or so; what is left are the roundings of the element's own arithmetic, which are
    relative to the largest element where p or a state is a difference.
    """
    source = torch.Generator().manual_seed(3)
    params = drawn(source, dtype)
    opt = descend.optimizer(one.rule)(params, **one.values)
    eps = torch.finfo(dtype).eps
    for t in range(1, steps + 1):
        for p in params:
            p.grad = torch.randn(p.shape, generator=source, dtype=torch.float64).to(dtype)
        true = exact_step(one, opt, params, t)
        opt.step()
        for p, (new, states) in zip(params, true, strict=True):
            got = {"p": p.detach(), **{s.name: opt.state[p][s.key] for s in one.rule.states}}
            for word, x in {"p": new, **states}.items():
                mine = wide(got[word])
                room = max(eps, 1e-6) if np.ndim(x) == 0 else 16 * eps  # a scalar state is kept in float32
                np.testing.assert_allclose(mine, x, rtol=room, atol=room * np.abs(x).max(), err_msg=word)
    folds = one.name.startswith("adafactor_stack")
    assert f"back end: {'torch' if folds else backend}" in repr(opt)


@by_name
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_step_agrees_with_the_reference(line: Line, dtype: torch.dtype, backend: str) -> None:
    check_reduction(line, dtype, backend)


@pytest.mark.parametrize("line", REDUCTION_FORMS, ids=lambda line: line.name)
def test_so_does_a_step_of_every_dialect(line: Line, backend: str) -> None:
    check_reduction(line, torch.float32, backend)


def test_a_wrong_factor_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reference.step

    def other(rule: Any, p: Any, g: Any, *rest: Any) -> Any:
        return right(rule, p, g * (1 + 1e-5), *rest)

    monkeypatch.setattr(reference, "step", other)
    with pytest.raises(AssertionError):
        check_reduction(line("lamb"), torch.float32, "cpu")


@by_name
@pytest.mark.usefixtures("backend")
def test_nan_reaches_what_the_formula_says(line: Line) -> None:
    """The whole tensor where the step takes a sum of its gradient, and all tensors where it is of all."""
    source = torch.Generator().manual_seed(3)
    params = drawn(source, torch.float32)
    opt = descend.optimizer(line.rule)(params, **line.values)
    for t in (1, 2, 3):
        for p in params:
            p.grad = torch.randn(p.shape, generator=source, dtype=torch.float32)
        if t == 2:
            params[0].grad[3, 4] = torch.nan  # type: ignore[index]
        true = exact_step(line, opt, params, t)
        opt.step()
        for p, (new, _) in zip(params, true, strict=True):
            np.testing.assert_array_equal(p.isnan().numpy(), np.isnan(new))
    assert params[0][3, 4].isnan()
    if line.name != "sgd_sai":  # it sums at the first step only
        assert params[0].isnan().all()
    for p in params[1:]:
        assert p.isnan().all() if line.name == "prodigy" else p.isfinite().all()


@by_name
@pytest.mark.usefixtures("backend")
def test_no_gradient_no_step(line: Line) -> None:
    params = drawn(torch.Generator().manual_seed(3), torch.float32)
    before = [p.detach().clone() for p in params]
    plain = {word: 0.0 if word == "weight_decay" else x for word, x in line.values.items()}
    opt = descend.optimizer(line.rule)(params, **plain)
    for _ in range(3):
        for p in params:
            p.grad = torch.zeros_like(p)
        opt.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))


def runs(*lines: Line, gradients: Any, p: Any) -> list[Any]:
    """Each rule's points under the same gradients, in the reference: [lines][steps]."""
    found = []
    for one in lines:
        here, states, points = p, reference.initial_states(one.rule, p, one.values), []
        for t, g in enumerate(gradients, 1):
            here, states = reference.step(one.rule, here, g, t, states, one.values)
            points.append(here)
        found.append(points)
    return found


RANDOM = np.random.default_rng(1)
GRADIENTS = RANDOM.standard_normal((20, 12, 9))
POINT = RANDOM.standard_normal((12, 9))


def test_lamb_with_a_trust_of_one_is_adamw() -> None:
    """lr over the trust ratio: AdamW's path, and LAMB's, as long as one follows the other."""
    adamw, lamb = line("adamw", weight_decay=0.1, eps=1e-6), line("lamb", weight_decay=0.1)
    here, kept = POINT, reference.initial_states(lamb.rule, POINT, lamb.values)
    for t, g in enumerate(GRADIENTS, 1):
        there, _ = reference.step(adamw.rule, here, g, t, kept, {**adamw.values, "lr": 1.0})
        trust = np.linalg.norm(here) / np.linalg.norm(there - here)
        plain, _ = reference.step(lamb.rule, here, g, t, kept, lamb.values)
        here, kept = reference.step(adamw.rule, here, g, t, kept, {**adamw.values, "lr": 1e-3 * trust})
        np.testing.assert_allclose(plain, here, rtol=1e-12)
    a, b = runs(lamb, adamw, gradients=GRADIENTS[:1], p=np.zeros((12, 9)))
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_step_of_lamb_and_of_lars_is_a_share_of_the_tensor() -> None:
    for one, share in ((line("lamb", lr=0.02), 0.02), (line("lars", eta=0.02, weight_decay=0.0), 0.02)):
        for scale in (1e-3, 1.0, 1e3):
            [[after]] = runs(one, gradients=scale * GRADIENTS[:1], p=POINT)
            length = np.linalg.norm(after - POINT) / np.linalg.norm(POINT)
            assert length == pytest.approx(share, rel=1e-4 if scale < 1 else 1e-6)


def test_lars_on_tensors_of_nothing_is_momentum() -> None:
    """g in proportion to p: the trust ratio then stays what it was, and only the rate is left of it."""
    a, b = runs(
        line("lars", eta=0.5, momentum=0.0, weight_decay=0.0, lr=0.1),
        line("momentum", momentum=0.0, lr=0.1 * 0.5),
        gradients=[POINT],
        p=POINT,
    )
    np.testing.assert_allclose(a, b, rtol=1e-12)
    a, b = runs(line("lars", lr=0.1), line("momentum", lr=0.1), gradients=GRADIENTS[:1], p=np.zeros((12, 9)))
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_stable_adamw_is_adamw_while_gradients_fade_and_slower_when_they_burst() -> None:
    fading = GRADIENTS[0] * 0.9 ** np.arange(20)[:, None, None]
    one, other = line("stable_adamw"), line("adamw", beta2=0.99, eps=1e-6)
    a, b = runs(one, other, gradients=fading, p=POINT)
    np.testing.assert_allclose(a, b, rtol=1e-6)  # eps stands at the root of the corrected v in both
    burst = [*fading[:10], 1e3 * GRADIENTS[1]]
    a, b = runs(one, other, gradients=burst, p=POINT)
    assert np.abs(a[10] - a[9]).max() < 0.5 * np.abs(b[10] - b[9]).max()


def test_prodigy_finds_a_rate_and_is_adam_with_it() -> None:
    """While d rests, m and v are d and d**2 times Adam's: the step is Adam's without bias correction."""
    one = line("prodigy", d0=0.01, d_coef=1e-12, eps=1e-12)
    [points] = runs(one, gradients=GRADIENTS, p=POINT)
    here, m, v = POINT, 0.0, 0.0
    for g, after in zip(GRADIENTS, points, strict=True):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        here = here - 0.01 * m / (np.sqrt(v) + 1e-12)
        np.testing.assert_allclose(after, here, rtol=1e-9)
    w = torch.nn.Parameter(torch.full((3,), 5.0, dtype=torch.float32))
    opt = descend.optimizer("prodigy")([w])
    for _ in range(300):
        w.grad = (w.detach() - 1).sign()
        opt.step()
    assert float(opt.state[w]["d"]) > 0.3, "from 1e-6; the distance is 4 sqrt(3), or 4 in each element"
    assert (w.detach() - 1).abs().max() < 2


def test_adafactor_of_a_matrix_of_rank_one_is_that_of_a_vector() -> None:
    """Where g**2 is a row times a column, factoring loses nothing."""
    signs = np.sign(GRADIENTS)
    size = np.abs(RANDOM.standard_normal((12, 1)) * RANDOM.standard_normal((1, 9)))
    a, b = runs(
        line("adafactor", weight_decay=0.1),
        line("adafactor_vector", weight_decay=0.1),
        gradients=signs * size,
        p=POINT,
    )
    np.testing.assert_allclose(a, b, rtol=1e-9)
    a, b = runs(line("adafactor"), line("adafactor_vector"), gradients=GRADIENTS, p=POINT)
    assert not np.allclose(a, b, rtol=1e-3)


def test_the_paper_s_adafactor_is_torch_s_where_eps_does_nothing() -> None:
    paper = line(descend.rules.get("adafactor", "paper"))
    a, b = runs(paper, line("adafactor"), gradients=GRADIENTS, p=POINT)
    np.testing.assert_allclose(a, b, rtol=1e-12)
    a, b = runs(paper, line("adafactor"), gradients=1e-9 * GRADIENTS, p=POINT)
    assert not np.allclose(a, b, rtol=1e-3)


def torch_s_own(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> float:
    """How far 30 steps of a rule end from torch's Adafactor, over the largest element."""
    source = torch.Generator().manual_seed(0)
    a = torch.nn.Parameter(torch.randn(shape, generator=source, dtype=torch.float64).to(dtype))
    b = torch.nn.Parameter(a.detach().clone())
    eps = torch.finfo(dtype).eps
    one = descend.optimizer(descend.rules.get(name))([a], weight_decay=0.1, eps1=eps)
    two = torch.optim.Adafactor([b], weight_decay=0.1)
    for _ in range(30):
        a.grad = torch.randn(shape, generator=source, dtype=torch.float64).to(dtype)
        b.grad = a.grad.clone()
        one.step()
        two.step()
    return float((a - b).detach().abs().max() / b.detach().abs().max()) / eps


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 30.0), (torch.float64, 30.0)], ids=str)
def test_both_forms_of_adafactor_are_torch_s(dtype: torch.dtype, limit: float) -> None:
    """Within 30 roundings after 30 steps: each step rounds p once, and the sums a little differently."""
    for shape in ((33, 70), (5, 1)):
        assert torch_s_own("adafactor", shape, dtype) <= limit
    for shape in ((70,), ()):
        assert torch_s_own("adafactor_vector", shape, dtype) <= limit
    assert torch_s_own("adafactor_vector", (33, 70), dtype) > 1e3
