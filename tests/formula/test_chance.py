"""The random numbers of a formula: their quality, and that every back end has the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import descend
from descend.errors import UsageError
from descend.formula import Rule, State, chance, rule_of
from descend.formula.vocabulary import normal, uniform
from descend.kernels import reference
from descend.optim import ways

N = 1 << 18
PLACES = np.arange(N, dtype=np.uint64)
SHAPES = ((1000,), (17, 33), (3,), (), (70_001,))


def evenly(p, g, t, k=State("place", init="place", scalar=True), seed=0.0):
    p = 0 * p + uniform(seed, t, k)
    return p, k


def normally(p, g, t, k=State("place", init="place", scalar=True), seed=0.0):
    p = 0 * p + normal(seed, t, k)
    return p, k


def numbers(seed: float, t: float, k: float, stream: int = 0) -> Any:
    return chance.fractions(chance.key(seed, t, k), stream, PLACES)


def far_from_even(x: Any) -> float:
    """The largest of several statistics of numbers that should be uniform, in standard deviations."""
    n = len(x)
    found = [(x.mean() - 0.5) * (12 * n) ** 0.5, (x.var() - 1 / 12) * (180 * n) ** 0.5]
    for bins, of in (
        (256, (x * 256).astype(int)),
        (1024, (x[:-1] * 32).astype(int) * 32 + (x[1:] * 32).astype(int)),
    ):
        expected = len(of) / bins
        chi2 = ((np.bincount(of, minlength=bins) - expected) ** 2 / expected).sum()
        found.append((chi2 - bins + 1) / (2 * (bins - 1)) ** 0.5)
    found += [correlation(x[:-lag], x[lag:]) for lag in (1, 2, 4, 16, 64, 1024)]
    whole = (x * 2**24).astype(np.int64) >> 1
    found += [(((whole >> bit) & 1).mean() - 0.5) * 2 * n**0.5 for bit in range(23)]
    return float(np.abs(found).max())


def correlation(x: Any, y: Any) -> float:
    return float(np.corrcoef(x, y)[0, 1] * len(x) ** 0.5)


@pytest.mark.parametrize("of", [(0, 1, 0), (0, 2, 0), (0, 1, 1), (1, 1, 0), (0.5, 12_345, 299)])
@pytest.mark.parametrize("stream", [0, 1, 2])
def test_the_numbers_are_even_and_their_neighbours_unrelated(of: tuple[float, ...], stream: int) -> None:
    assert far_from_even(numbers(*of, stream)) < 4.5  # of 36 statistics, in 15 runs: once in 300 by chance


def test_a_worse_hash_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chance, "ROUNDS", ((17, 0xED5AD4BB), (11, 1), (15, 1)))
    assert far_from_even(numbers(0, 1, 0)) > 10


def test_steps_tensors_seeds_and_streams_are_unrelated() -> None:
    of = [(s, t, k, stream) for s in (0, 0.5) for t in (1, 2, 3) for k in (0, 1) for stream in (0, 1, 2)]
    related = np.corrcoef([numbers(*one)[: N // 4] for one in of])
    np.fill_diagonal(related, 0)
    assert np.abs(related).max() * (N // 4) ** 0.5 < 4.5  # of 630
    over_steps = np.array([chance.fractions(chance.key(0, t, 0), 0, PLACES[:8]) for t in range(1, 4001)])
    for x in over_steps.T:
        assert abs(correlation(x[:-1], x[1:])) < 4
        assert abs(x.mean() - 0.5) * (12 * len(x)) ** 0.5 < 4


def test_no_two_of_many_keys_are_the_same() -> None:
    t, k = np.arange(1, 3001)[:, None], np.arange(100)
    keys = chance.keys(0.0, t, k)
    assert len(np.unique(keys)) == keys.size
    assert keys.max() < 2**53
    some = [(0, 0), (7, 99), (2999, 50)]
    assert [keys[i, j] for i, j in some] == [chance.key(0.0, i + 1.0, float(j)) for i, j in some]


def test_the_normal_ones_are_normal() -> None:
    z = chance.gaussian(chance.key(0, 1, 0), PLACES)
    moments = [z.mean(), z.var() - 1, (z**3).mean(), (z**4).mean() - 3]
    spreads = [1, 2**0.5, 15**0.5, 96**0.5]
    assert max(abs(m) / s * N**0.5 for m, s in zip(moments, spreads, strict=True)) < 3.5
    assert [np.mean(np.abs(z) < one) for one in (0.6745, 1.96)] == pytest.approx([0.5, 0.95], abs=0.003)


@pytest.fixture(params=["cpu", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(ways, "cpu_takes", lambda member, rule: False)
    return str(request.param)


def run(rule: Rule, make: Callable[[tuple[int, ...]], torch.Tensor], steps: int = 3) -> list[torch.Tensor]:
    params = [make(shape).requires_grad_() for shape in SHAPES]
    optimizer = descend.optimizer(rule)(params, seed=3.0)
    for _ in range(steps):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_back_end_has_the_reference_s_numbers(backend: str, dtype: torch.dtype) -> None:
    for formula, close in ((evenly, 0.0), (normally, 3e-6 if dtype != torch.float64 else 4e-15)):
        rule = rule_of(formula)
        found = run(rule, lambda shape: torch.zeros(shape, dtype=dtype))
        for place, (shape, p) in enumerate(zip(SHAPES, found, strict=True)):
            zero = np.zeros(shape)
            states = reference.initial_states(rule, zero, {}, place)
            wanted, _ = reference.step(rule, zero, zero, 3, states, {"seed": 3.0})
            given = torch.from_numpy(np.asarray(wanted))
            torch.testing.assert_close(
                p, given.to(dtype), rtol=8e-3 if dtype == torch.bfloat16 else 0, atol=close
            )


def test_an_element_s_number_goes_by_its_place_in_memory(backend: str) -> None:
    """Transposed, channels last, with gaps: the order of memory, without the gaps."""
    plain = run(rule_of(evenly), lambda shape: torch.zeros(shape))[1]
    turned = run(
        rule_of(evenly), lambda shape: torch.zeros(shape[::-1]).permute(tuple(range(len(shape)))[::-1])
    )[1]
    assert torch.equal(turned.t().flatten(), plain.flatten())
    gaps = run(rule_of(evenly), lambda shape: torch.zeros(*shape, 2)[..., 0])[1]
    assert torch.equal(gaps, plain)


def test_places_beyond_2_to_the_32_have_numbers_of_their_own() -> None:
    near, far = PLACES, PLACES + np.uint64(2**32)
    key = chance.key(0, 1, 0)
    assert abs(correlation(chance.fractions(key, 0, near), chance.fractions(key, 0, far))) < 4


def test_outside_a_formula_the_words_say_what_they_are() -> None:
    with pytest.raises(UsageError, match="are words of a formula"):
        uniform(0, 1, 0)
