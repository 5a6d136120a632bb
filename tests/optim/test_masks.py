"""Parts of a chain for some parameters only, and parts with other names, as optimizers."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import descend
from descend import functional
from descend.errors import UsageError
from descend.formula import Hyper, chain, except_for, only, renamed, rule
from descend.modifiers import (
    agc,
    centralise,
    clip_global_norm,
    clip_norm,
    clip_value,
    decoupled_decay,
    ema_weights,
    layer_rate,
)
from descend.optim import ways
from descend.rules import get


@pytest.fixture(params=["cpu", "torch"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each back end."""
    if request.param == "torch":
        monkeypatch.setattr(ways, "cpu_takes", lambda member, rule: False)
    return str(request.param)


def model() -> Any:
    torch.manual_seed(5)
    return torch.nn.Sequential(
        torch.nn.Conv1d(2, 3, 2), torch.nn.Flatten(), torch.nn.Linear(9, 4), torch.nn.LayerNorm(4)
    ).double()


def backward(net: Any, step: int) -> None:
    source = torch.Generator().manual_seed(step)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=source, dtype=p.dtype)


def train(net: Any, optimizer: Any, steps: range = range(4)) -> list[torch.Tensor]:
    for step in steps:
        backward(net, step)
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


ADAM = get("adam")
MASKS = {
    "only 2": (only(decoupled_decay, ndim=2), ["2.weight"]),
    "but vectors": (except_for(decoupled_decay, ndim=(0, 1)), ["0.weight", "2.weight"]),
    "by name": (only(decoupled_decay, names="*.weight"), ["0.weight", "2.weight", "3.weight"]),
    "by names": (only(decoupled_decay, names=["2.*", "3.*"]), ["2.weight", "2.bias", "3.weight", "3.bias"]),
    "both": (only(decoupled_decay, ndim=1, names="2.*"), ["2.bias"]),
    "neither": (except_for(decoupled_decay, ndim=1, names="2.*"), ["0.weight"]),
    "twice": (only(only(decoupled_decay, ndim=(1, 2)), names="2.*"), ["2.weight", "2.bias"]),
}


@pytest.mark.parametrize(("part", "decayed"), MASKS.values(), ids=list(MASKS))
def test_a_masked_decay_is_torch_s_with_two_groups(part: Any, decayed: list[str]) -> None:
    ours, theirs = model(), model()
    mine = descend.optimizer(chain(part, ADAM))(ours.named_parameters(), lr=0.1, weight_decay=0.3)
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": d} for d in (0.3, 0.0)]
    for name, p in theirs.named_parameters():
        groups[name not in decayed]["params"].append(p)
    plain = torch.optim.AdamW(groups, lr=0.1)
    for a, b in zip(train(ours, mine), train(theirs, plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def averaged() -> Any:
    """An average of the weights of the first layer, and decay for matrices."""
    return chain(
        except_for(decoupled_decay, ndim=(0, 1)), clip_global_norm, ADAM, only(ema_weights, names="0.*")
    )


def test_states_exist_only_where_their_part_applies() -> None:
    net = model()
    optimizer = descend.optimizer(averaged())(net.named_parameters(), weight_decay=0.1)
    train(net, optimizer)
    kept = {name: sorted(optimizer.state[p]) for name, p in net.named_parameters()}
    plain = ["exp_avg", "exp_avg_sq", "step"]
    assert kept == {name: (["average"] if name.startswith("0.") else []) + plain for name in kept}


def test_a_run_is_resumed_from_its_state_dict_and_its_pickle() -> None:
    net = model()
    optimizer = descend.optimizer(averaged())(net.named_parameters(), lr=0.1, weight_decay=0.1)
    train(net, optimizer, range(2))
    twins = []
    for way in ("state dict", "pickle", "copy"):
        other = model()
        other.load_state_dict(net.state_dict())
        if way == "state dict":
            fresh = descend.optimizer(averaged())(other.named_parameters(), lr=0.1, weight_decay=0.1)
            saved = io.BytesIO()
            torch.save(optimizer.state_dict(), saved)
            fresh.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
        elif way == "pickle":
            fresh, other = pickle.loads(pickle.dumps((optimizer, net)))
            assert fresh.rule.formula_text == optimizer.rule.formula_text
        else:
            fresh, other = copy.deepcopy((optimizer, net))
        twins.append((other, fresh))
    wanted = train(net, optimizer, range(2, 5))
    for other, fresh in twins:
        for a, b in zip(train(other, fresh, range(2, 5)), wanted, strict=True):
            assert torch.equal(a, b)


def test_a_chain_that_a_pickle_brings_back_twice_is_one_class() -> None:
    net = model()
    optimizer = descend.optimizer(averaged())(net.named_parameters())
    one, two = (pickle.loads(pickle.dumps(optimizer)) for _ in range(2))
    assert type(one) is type(two)


def test_a_group_that_is_added_later_is_masked_too() -> None:
    net = model()
    named = list(net.named_parameters())
    optimizer = descend.optimizer(averaged())(named[:2], weight_decay=0.1)
    optimizer.add_param_group({"params": named[2:], "weight_decay": 0.2})
    train(net, optimizer)
    assert "average" not in optimizer.state[named[2][1]]
    assert "average" in optimizer.state[named[0][1]]
    with pytest.raises(ValueError, match="name"):
        optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})


def test_the_pure_functions_know_masks_by_dimension() -> None:
    rule = chain(only(decoupled_decay, ndim=2), ADAM, only(ema_weights, ndim=1))
    params = [np.ones((2, 3)), np.ones(3)]
    grads = [np.full((2, 3), 0.5), np.full(3, 0.5)]
    state = functional.init(rule, params)
    assert ["average" in one for one in state] == [False, True]
    new, state = functional.step(rule, params, grads, state, lr=0.1, weight_decay=0.5)
    assert ["average" in one for one in state] == [False, True]
    assert new[1] - new[0][0] == pytest.approx(0.05 * np.ones(3))


def by_hand(net: Any) -> list[torch.Tensor]:
    """Centralised where it is no vector, then clipped by the norm of all, then descended."""
    changed = []
    for p in net.parameters():
        assert p.grad is not None
        g = p.grad
        changed.append(g - g.flatten(1).mean(1).reshape(-1, *[1] * (g.dim() - 1)) if g.dim() > 1 else g)
    share = min(1.0, 0.5 / (float(torch.stack([g.norm() for g in changed]).norm()) + 1e-6))
    return [p.detach() - 0.1 * share * g for p, g in zip(net.parameters(), changed, strict=True)]


def test_a_sum_over_all_parameters_waits_for_those_whose_part_needs_a_pass_more() -> None:
    rule = chain(centralise, clip_global_norm, get("gradient_descent"))
    net = model()
    backward(net, 0)
    wanted = by_hand(net)
    descend.optimizer(rule)(net.parameters(), lr=0.1, max_norm=0.5).step()
    for p, q in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=1e-12, atol=1e-13)


def test_two_clips_have_a_limit_each_and_a_schedule_each() -> None:
    outer = renamed(clip_norm, max_norm="outer_norm")
    rule = chain(clip_value, clip_norm, outer, get("gradient_descent"))
    p = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = descend.optimizer(rule)([p], lr=1.0, clip=100.0, max_norm=2.0, outer_norm=1.0)
    for outer_norm, wanted in ((1.0, 1.0), (3.0, 2.0)):
        optimizer.param_groups[0]["outer_norm"] = outer_norm
        before = p.detach().clone()
        p.grad = torch.full_like(p, 5.0)
        optimizer.step()
        assert (p.detach() - before).norm().item() == pytest.approx(wanted, rel=1e-12)
    assert "# max_norm is called outer_norm" in rule.formula_text


def test_two_averages_of_the_weights() -> None:
    slow = renamed(ema_weights, a="slow", decay="slow_decay")
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = descend.optimizer(chain(get("gradient_descent"), ema_weights, slow))(
        [p], lr=0.5, decay=0.5, slow_decay=0.9
    )
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.state[p]["average"].tolist() == [0.75] * 3
    assert optimizer.state[p]["slow"].tolist() == pytest.approx([0.95] * 3)


def test_a_layer_has_a_rate_beside_the_schedule_s() -> None:
    p, q = (torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = descend.optimizer(chain(get("gradient_descent"), layer_rate))(
        [{"params": [p], "rate": 0.25}, {"params": [q]}], lr=1.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for _ in range(2):
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
        optimizer.step()
        schedule.step()
    assert p.tolist() == [-0.375] * 2
    assert q.tolist() == [-1.5] * 2


def test_a_shared_hyper_parameter_is_as_the_rule_has_it() -> None:
    @rule(title="shrinking", source="a test")
    def shrinking(p, lr=Hyper(7.0, "[0, 9]", "another default")):  # type: ignore[no-untyped-def]
        p = p - lr * p
        return p

    @rule(title="growing", source="a test")
    def growing(u, lr=Hyper(8.0, "[0, 9]", "yet another")):  # type: ignore[no-untyped-def]
        u = u * (1 + lr)
        return u

    found = chain(shrinking, ADAM, growing).hyper("lr")
    assert found == ADAM.hyper("lr")


def test_adaptive_clipping_takes_a_vector_as_one_row() -> None:
    """As the authors' code does; centralising leaves vectors alone."""
    p = torch.full((3,), 2.0, dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([30.0, 0.0, 40.0], dtype=torch.float64)
    descend.optimizer(chain(agc, get("gradient_descent")))([p], lr=1.0, clipping=0.1).step()
    assert (2 - p.detach()).norm().item() == pytest.approx(0.1 * 12**0.5)


def test_vectors_are_rows_for_the_kernel_too(backend: str) -> None:
    """A model has many biases; torch's operations would take a third of a millisecond for each."""
    shapes, random = ((), (1,), (700,), (0,), (5, 3), (2, 3, 4)), torch.Generator().manual_seed(0)
    ours = [torch.randn(s, generator=random, dtype=torch.float64).requires_grad_() for s in shapes]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    mine = descend.optimizer(chain(agc, ADAM))(ours, lr=0.1, clipping=0.3, floor=1e-3)
    other = descend.Adam(theirs, lr=0.1)
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=random, dtype=torch.float64)
            rows = (len(q), -1) if q.dim() > 1 else (1, q.numel())
            length, most = (x.detach().reshape(rows).norm(dim=1, keepdim=True) for x in (p.grad, q))
            factor = (0.3 * most.clamp(min=1e-3) / length).clamp(max=1)
            q.grad = (factor * p.grad.reshape(rows)).reshape(q.shape)
        mine.step()
        other.step()
    assert f"back end: {backend}\n" in repr(mine)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: only(decoupled_decay), "only\\(\\) needs to know which parameters: only\\(part, ndim=2\\)"),
        (lambda: only(decoupled_decay, ndim="2"), "give numbers of dimensions, as in ndim=2"),
        (lambda: only(decoupled_decay, ndim=-1), "give numbers of dimensions"),
        (lambda: except_for(decoupled_decay, names=[]), "give patterns of names, as in names="),
        (lambda: only(ADAM, ndim=2), "'adam' is a rule, and every parameter needs one: mask the modifiers"),
        (lambda: only(chain(clip_value, ADAM), ndim=2), "'adam' is a rule"),
        (lambda: only(clip_global_norm, ndim=2), "sums over all parameters, so it cannot leave some out"),
        (lambda: renamed(clip_norm, top="x"), "has no hyper-parameter or state 'top'; it has max_norm"),
        (lambda: renamed(clip_norm, maxnorm="x"), "did you mean 'max_norm'"),
        (lambda: renamed(clip_norm, max_norm="max norm"), "must be a plain word"),
        (lambda: renamed(clip_norm, max_norm="g"), "'g' has a meaning of its own"),
        (lambda: renamed(ema_weights, a="decay"), "two parts of it would be called 'decay'"),
        (
            lambda: chain(renamed(clip_norm, max_norm="m"), ADAM),
            "'m' is a hyper-parameter of 'clip_norm' and a",
        ),
        (lambda: chain(ADAM, ema_weights, ema_weights), r'renamed\(ema_weights, a="a_2"\)'),
        (lambda: chain(ADAM, ema_weights, renamed(ema_weights, decay="d")), "keep a state 'a'"),
        (
            lambda: chain("clip_norm", ADAM),
            "made of rules and formulas, not of 'clip_norm'; .*modifiers.clip_norm",
        ),
    ],
)
def test_a_wrong_mask_or_name_says_what_to_write(make: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_masks_by_name_ask_for_names_and_for_names_that_there_are() -> None:
    net = model()
    rule = chain(only(decoupled_decay, names="*.wieght"), ADAM)
    with pytest.raises(UsageError, match=r"have none: give model.named_parameters\(\)"):
        descend.optimizer(rule)(net.parameters())
    with pytest.raises(UsageError, match=r"no parameter has a name like '\*.wieght' .*example, .*\.weight"):
        descend.optimizer(rule)(net.named_parameters())
