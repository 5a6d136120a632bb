"""Rules that work on whole matrices, on both back ends: against the float64 reference, torch, each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rule_checks import drawn, give, wide
from rule_lines import MATRIX, MATRIX_FORMS, Line

import descend
from descend.formula import State, chain, rule_of
from descend.formula.vocabulary import every, inverse_root, matmul, mean, newton_schulz, sqrt, transpose
from descend.kernels import matrix, reference, steady
from descend.kernels.cpu.products import Piece
from descend.modifiers import clip_global_norm, ema_weights, gradient_noise
from descend.optim import ways

SQUARE = ((12, 12), (5, 5), (12, 12))
"""Full rank from the first gradient on: a basis of what no gradient has touched yet is anybody's."""

ANY = ((12, 12), (3, 8), (9, 2), (4, 3, 2, 2), (1, 6))
PRECISE = {torch.float64: 64, torch.float32: 32, torch.bfloat16: 16}

by_name = pytest.mark.parametrize("line", MATRIX + MATRIX_FORMS, ids=lambda line: line.name)


@pytest.fixture(params=["cpu", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each back end."""
    if request.param == "torch":
        monkeypatch.setattr(ways, "cpu_takes", lambda member, rule: False)
    return str(request.param)


def fit_for(line: Line, dtype: torch.dtype) -> dict[str, float]:
    """The line's hyper-parameters, its products in the precision of the parameters."""
    return line.values | ({"ns_bits": PRECISE[dtype]} if "ns_bits" in line.values else {})


def check_step(line: Line, dtype: torch.dtype, shapes: Any = None) -> None:
    """Assert that every step is the reference's, from equal state, within what the products round."""
    params = drawn(shapes or (SQUARE if line.name == "soap" else ANY), dtype)
    values = fit_for(line, dtype)
    opt = descend.optimizer(line.rule)(params, **values)
    room = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 6e-2}[dtype]
    for t in range(1, 8):
        give(params, t)
        before = [p.detach().double().numpy().copy() for p in params]
        kept = [reference.initial_states(line.rule, p, values) for p in before]
        if t > 1:
            kept = [{s.name: wide(opt.state[p][s.key]).copy() for s in line.rule.states} for p in params]
        opt.step()
        for p, here, states in zip(params, before, kept, strict=True):
            assert p.grad is not None
            new, after = reference.step(line.rule, here, wide(p.grad), t, states, values)
            for word, x in {"p": new, **after}.items():
                key = next((s.key for s in line.rule.states if s.name == word), "")
                mine = wide(p.detach() if word == "p" else opt.state[p][key])
                if word.startswith("Q_"):  # an eigenvector may point either way
                    mine, x = np.abs(mine), np.abs(x)
                np.testing.assert_allclose(mine, x, rtol=room, atol=room * np.abs(x).max(), err_msg=word)


@by_name
@pytest.mark.parametrize("dtype", PRECISE, ids=str)
@pytest.mark.usefixtures("backend")
def test_a_step_agrees_with_the_reference(line: Line, dtype: torch.dtype) -> None:
    check_step(line, dtype)


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = steady.run

    def wrong(stages: list[list[Piece]]) -> None:
        multiply(stages)
        for piece in (piece for stage in stages for piece in stage):
            piece.out.mul_(1 + 1e-6)

    monkeypatch.setattr(steady, "run", wrong)
    for line in (one for one in MATRIX if one.name in ("shampoo", "soap")):
        with pytest.raises(AssertionError):
            check_step(line, torch.float64)
    right = matrix.newton_schulz
    monkeypatch.setattr(matrix, "newton_schulz", lambda x, *n: right(x, *n) * (1 + 1e-4))
    with pytest.raises(AssertionError):
        check_step(next(one for one in MATRIX if one.name == "muon"), torch.float64)


def test_the_back_end_is_the_kernel_where_it_can_be() -> None:
    params = drawn([(4, 6)], torch.float32)
    params.append(drawn([(4, 6)], torch.float32)[0].detach().t().requires_grad_())
    give(params, 0)
    opt = descend.optimizer("shampoo")(params)
    opt.step()
    assert "back end: cpu, torch" in repr(opt)


@pytest.mark.parametrize("name", ["shampoo", "soap"])
def test_a_rule_by_name_leaves_vectors_to_another(name: str) -> None:
    other = {"shampoo": "adagrad", "soap": "adamw"}[name]
    ours, theirs = (drawn([(5,), ()], torch.float64) for _ in range(2))
    shared = {"lr": 0.1}
    if name == "soap":
        shared |= {"beta1": 0.95, "beta2": 0.95, "weight_decay": 0.01}
    one = descend.optimizer(name)(ours, **shared)
    two = descend.optimizer(descend.rules.get(other))(theirs, **shared)
    for t in range(5):
        for params, opt in ((ours, one), (theirs, two)):
            give(params, t)
            opt.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)


@pytest.mark.usefixtures("backend")
def test_blocks_are_matrices_of_their_own() -> None:
    whole, parts = drawn([(7, 10)], torch.float64), drawn([(7, 10)], torch.float64)
    rows, columns = (slice(0, 4), slice(4, 7)), (slice(0, 4), slice(4, 8), slice(8, 10))
    blocks = [parts[0].detach()[r, c].clone().requires_grad_() for r in rows for c in columns]
    one = descend.optimizer("shampoo")(whole, block_size=4, precondition_frequency=2)
    two = descend.optimizer("shampoo")(blocks, precondition_frequency=2)
    for t in range(5):
        give(whole, t)
        assert whole[0].grad is not None
        for block, (r, c) in zip(blocks, [(r, c) for r in rows for c in columns], strict=True):
            block.grad = whole[0].grad[r, c].clone()
        one.step()
        two.step()
    joined = torch.cat([torch.cat([*blocks[:3]], 1), torch.cat([*blocks[3:]], 1)])
    torch.testing.assert_close(whole[0], joined, rtol=1e-12, atol=1e-13)
    assert one.state[whole[0]]["left"].shape == (3 * 4 * 4 + 3 * 3 * 3,)


@pytest.mark.usefixtures("backend")
def test_a_side_beyond_the_limit_is_not_turned() -> None:
    """With both sides too long SOAP is Adam from the second gradient on."""
    ours, theirs = (drawn([(6, 8)], torch.float64) for _ in range(2))
    one = descend.optimizer("soap")(ours, max_precond_dim=5, lr=0.1, weight_decay=0.0)
    two = descend.optimizer("adam")(theirs, lr=0.1, betas=(0.95, 0.95))
    for t in range(6):
        give(ours, t)
        one.step()
        if t:
            give(theirs, t)
            two.step()
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-6)  # eps stands at another root of v
    assert one.state[ours[0]]["left"].numel() == 0
    half = drawn([(4, 8)], torch.float64)
    opt = descend.optimizer("soap")(half, max_precond_dim=5)
    give(half, 0)
    opt.step()
    assert opt.state[half[0]]["left"].shape == (4, 4)
    assert opt.state[half[0]]["right"].numel() == 0


def by_sides(p, g, r=State("r", shape="rows"), c=State("c", shape="columns"), lr=0.1):  # type: ignore[no-untyped-def]
    o = newton_schulz(g, 3, 1.5, -0.5, 0, 1e-7, 64)
    r = 0.5 * r + mean(o**2, "rows")
    c = 0.5 * c + mean(o**2, "columns")
    p = p - lr * o / (1 + sqrt(r) + sqrt(c))
    return p, r, c


@pytest.mark.usefixtures("backend")
def test_the_rows_of_a_convolution_are_its_filters() -> None:
    """Kept as they are counted: one number a filter, and one for each of its inputs."""
    filters, flat = drawn([(4, 3, 2, 2)], torch.float64), drawn([(4, 12)], torch.float64)
    one, two = descend.optimizer(by_sides)(filters), descend.optimizer(by_sides)(flat)
    for t in range(4):
        give(filters, t)
        give(flat, t)
        one.step()
        two.step()
    torch.testing.assert_close(filters[0].reshape(4, 12), flat[0], rtol=1e-13, atol=1e-13)
    kept, plain = one.state[filters[0]], two.state[flat[0]]
    assert kept["r"].shape == (4, 1, 1, 1)
    assert kept["c"].shape == (1, 3, 2, 2)
    for word in ("r", "c"):
        torch.testing.assert_close(kept[word].reshape(-1), plain[word].reshape(-1), rtol=1e-13, atol=0)
    check_step(Line(rule_of(by_sides)), torch.float64)


@by_name
@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
@pytest.mark.usefixtures("backend")
def test_nan_stays_nan_in_its_own_matrix(line: Line, odd: float) -> None:
    params = drawn([(6, 6), (6, 6)], torch.float32)
    opt = descend.optimizer(line.rule)(params, **line.values)
    for t in range(4):
        give(params, t)
        if t == 1:
            params[0].grad[2, 3] = odd  # type: ignore[index]
        opt.step()
    assert params[0].isnan().any()
    assert params[1].isfinite().all()


@by_name
@pytest.mark.usefixtures("backend")
def test_missing_gradients_and_groups(line: Line) -> None:
    """A parameter without a gradient waits, counts no step, and goes on as if the others were not there."""
    shapes = ((6, 6), (6, 6), (6, 6))
    together, alone = drawn(shapes, torch.float64), drawn(shapes, torch.float64)
    values = fit_for(line, torch.float64)
    slow = {**values, "lr": 0.5 * values["lr"]}
    groups = [{"params": together[:2]}, {"params": together[2:], "lr": slow["lr"]}]
    one = descend.optimizer(line.rule)(groups, **values)
    others = [descend.optimizer(line.rule)([p], **(slow if i == 2 else values)) for i, p in enumerate(alone)]
    for t in range(6):
        give(together, t)
        give(alone, t)
        if t in (1, 2):
            together[1].grad = alone[1].grad = None
        one.step()
        for opt in others:
            opt.step()
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@by_name
def test_what_was_saved_goes_on_to_the_bit(line: Line) -> None:
    params, copies = (
        drawn([(6, 6), (3, 5), (4,)], torch.float32),
        drawn([(6, 6), (3, 5), (4,)], torch.float32),
    )
    one, two = (descend.optimizer(line.rule)(x, **line.values) for x in (params, copies))
    for t in range(8):
        give(params, t)
        one.step()
        if t == 3:
            two.load_state_dict(one.state_dict())
            with torch.no_grad():
                for p, q in zip(params, copies, strict=True):
                    q.copy_(p)
        elif t > 3:
            give(copies, t)
            two.step()
    for p, q in zip(params, copies, strict=True):
        assert torch.equal(p, q)


@pytest.mark.usefixtures("backend")
def test_a_chain_around_a_matrix_rule() -> None:
    """Clipping by global norm sums over vectors and matrices alike, and the average follows the weights."""
    soap = replace(descend.rules.get("soap"))
    rule = chain(clip_global_norm, soap, ema_weights)
    params, plain = drawn([(6, 6), (4,)], torch.float64), drawn([(6, 6), (4,)], torch.float64)
    one = descend.optimizer(rule)(params, max_norm=0.5)
    two = descend.optimizer(soap)(plain)
    for t in range(5):
        give(params, t)
        give(plain, t)
        torch.nn.utils.clip_grad_norm_(plain, 0.5)
        one.step()
        two.step()
    for p, q in zip(params, plain, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-10)
        assert one.state[p]["average"].shape == p.shape


def test_what_it_cannot_take_is_refused() -> None:
    w = torch.zeros(3, 3, dtype=torch.complex64, requires_grad=True)
    w.grad = torch.ones_like(w)
    with pytest.raises(descend.UsageError, match="real matrices"):
        descend.optimizer("shampoo")([w]).step()
    for wrong in ({"ns_bits": 8}, {"ns_coefficients": (1, 2)}, {"adamw_lr_ratio": -1.0}, {"eps": 0.0}):
        with pytest.raises(descend.UsageError, match=next(iter(wrong))):
            descend.Muon([torch.zeros(2, 2, requires_grad=True)], **wrong)
    p = drawn([(3, 3)], torch.float32)
    opt = descend.optimizer("shampoo")(p)
    give(p, 0)
    opt.step()
    opt.state[p[0]]["left"] = torch.zeros(2, 2)
    with pytest.raises(descend.UsageError, match="'left' has shape"):
        opt.step()


@pytest.mark.parametrize("limits", [{}, {"max_precond_dim": 5}, {"max_precond_dim": 1}], ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (4, 3, 2, 2)], ids=str)
def test_states_that_words_write_may_lie_in_any_order_in_memory(
    shape: tuple[int, ...], limits: dict[str, float]
) -> None:
    plain = drawn([shape], torch.float64)[0]
    turned = plain.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    found = []
    for p in (plain, turned):
        opt = descend.optimizer("soap")([p], precondition_frequency=2, **limits)
        for t in range(1, 6):
            give([p], t)
            opt.step()
        found += [p.detach(), opt.state[p]["exp_avg"]]
    torch.testing.assert_close(found[2:], found[:2], rtol=1e-9, atol=1e-12)
    assert found[1].abs().sum() > 0


def check_places(rule: Any, values: dict[str, float]) -> None:
    """Assert that two parameters of one shape step as the reference does, each from its own place."""
    values = {h.name: h.default for h in rule.hypers} | values
    params = drawn(((4, 4), (4, 4)), torch.float64)
    found = [p.detach().numpy().copy() for p in params]
    kept = [reference.initial_states(rule, p, values, place) for place, p in enumerate(found)]
    opt = descend.optimizer(rule)(params, **values)
    for t in range(1, 6):
        give(params, t)
        opt.step()
        for i, p in enumerate(params):
            assert p.grad is not None
            found[i], kept[i] = reference.step(rule, found[i], p.grad.numpy(), t, kept[i], values)
            np.testing.assert_allclose(p.detach().numpy(), found[i], rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("backend")
def test_a_rule_with_scalar_states_beside_matrices() -> None:
    check_places(chain(gradient_noise, descend.rules.get("muon")), {"ns_bits": 64})


@pytest.mark.usefixtures("backend")
def test_a_word_s_numbers_come_from_the_scalar_states_before_the_step() -> None:
    """`n` starts at a parameter's place: the two differ in k and in what the root takes."""

    def counting(p, g, t, Q=State(shape="left"), n=State("n", init="place", scalar=True), lr=0.1):  # type: ignore[no-untyped-def]
        Q = every(n + 1, t, inverse_root(matmul(g, transpose(g)), 2, n + 0.5), Q)
        n = n + 1
        p = p - lr * matmul(Q, g)
        return p, Q, n

    check_places(rule_of(counting), {})
