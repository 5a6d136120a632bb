"""A rule as one file beside descend's own optimizer of it: the same numbers, state dicts that cross over."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from export_rules import CHAINS, RULES

import descend
from descend import modifiers, rules
from descend.errors import UsageError
from descend.formula import Rule, State, chain, only
from descend.formula.vocabulary import every, global_mean, matmul, maximum, newton_schulz, transpose, where
from descend.study import export

ULPS = 24
"""Ulps of the largest number of a tensor, after 25 steps: each rounds once or twice in another order."""


def imported(text: str) -> type[torch.optim.Optimizer]:
    """The optimizer of an exported file, in a module of its own."""
    module = ModuleType("exported")
    exec(compile(text, "exported.py", "exec"), module.__dict__)
    (found,) = (
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == "exported"
    )
    return found


class Pair:
    """The same parameters under both optimizers, in two groups of several tensors."""

    def __init__(
        self, rule: Rule, dtype: torch.dtype, shapes: tuple[tuple[int, ...], ...] = (), **hypers: float
    ) -> None:
        self.hypers = {"lr": 0.01, **hypers}
        self.draw = torch.Generator().manual_seed(3)
        stack = rule.name == "adafactor_stack"
        self.shapes = shapes or (((2, 4, 3), (5, 2, 2), (1, 3, 3)) if stack else ((5, 3), (4, 7), (3, 3)))
        self.ours = [self.fresh(shape, dtype).requires_grad_() for shape in self.shapes]
        self.theirs = [p.detach().clone().requires_grad_() for p in self.ours]
        self.kinds: list[Callable[..., Any]] = [descend.optimizer(rule), imported(export(rule))]
        self.begin()

    def fresh(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        real = torch.randn(shape, generator=self.draw, dtype=torch.float64)
        if not dtype.is_complex:
            return real.to(dtype)
        return torch.complex(real, torch.randn(shape, generator=self.draw, dtype=torch.float64)).to(dtype)

    def begin(self) -> None:
        self.optimizers = [
            kind([{"params": p[:2]}, {"params": p[2:], "lr": 0.02, "maximize": True}], **self.hypers)
            for kind, p in zip(self.kinds, (self.ours, self.theirs), strict=True)
        ]

    def step(self, steps: int) -> None:
        for k in range(steps):
            for place, (p, q) in enumerate(zip(self.ours, self.theirs, strict=True)):
                g = None if k % 5 == 3 and place == 1 else self.fresh(p.shape, p.dtype)
                p.grad, q.grad = g, None if g is None else g.clone()
            for optimizer in self.optimizers:
                optimizer.step()

    def exchange(self) -> None:
        """Give each the state dict of the other, in a new optimizer."""
        one, other = (copy.deepcopy(optimizer.state_dict()) for optimizer in self.optimizers)
        self.begin()
        self.optimizers[0].load_state_dict(other)
        self.optimizers[1].load_state_dict(one)

    def check(self, ulps: float) -> None:
        """Assert that parameters and states are the same, within ulps of the largest number of each."""
        ours, theirs = self.optimizers
        for p, q in zip(self.ours, self.theirs, strict=True):
            mine, other = ours.state[p], theirs.state[q]
            assert set(mine) == set(other)
            for x, y in [(p, q), *((mine[key], other[key]) for key in mine)]:
                assert (x.dtype, x.shape) == (y.dtype, y.shape)
                if not x.numel():
                    continue
                wide = torch.complex128 if x.is_complex() else torch.float64
                x, y = x.detach().to(wide), y.detach().to(wide)
                size = x.abs().max() * torch.finfo(p.dtype).eps
                assert torch.all((x - y).abs() <= ulps * size), (x, y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_an_exported_rule_takes_the_same_steps_and_state_dicts_cross_over(
    rule: Rule, dtype: torch.dtype
) -> None:
    pair = Pair(rule, dtype)
    pair.step(20)
    pair.check(ULPS)
    pair.exchange()
    pair.step(5)
    pair.check(ULPS)


@pytest.mark.parametrize("part", [modifiers.agc, modifiers.centralise], ids=lambda part: part.name)
def test_the_rows_of_a_convolution_are_its_filters(part: Rule) -> None:
    pair = Pair(chain(part, rules.get("adamw")), torch.float64, ((4, 3, 2, 2), (5, 2, 3), (4, 3)))
    pair.theirs[0] = pair.theirs[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    pair.begin()
    pair.step(12)
    pair.check(ULPS)


MATRICES: tuple[tuple[str, dict[str, float]], ...] = (
    ("muon", {"ns_bits": 64}),
    ("shampoo", {"block_size": 2}),
    ("shampoo", {"block_size": 3, "precondition_frequency": 2}),
    ("soap", {"max_precond_dim": 4, "precondition_frequency": 3}),
    ("soap", {"max_precond_dim": 0}),
)


@pytest.mark.parametrize(("name", "hypers"), MATRICES, ids=str)
def test_matrices_in_blocks_vectors_and_filters(name: str, hypers: dict[str, float]) -> None:
    pair = Pair(rules.get(name), torch.float64, ((7, 4), (5,), (3, 4, 2), ()), **hypers)
    pair.step(12)
    pair.check(1e4)  # roots and eigenvectors enlarge what a product rounds
    pair.exchange()
    pair.step(5)
    pair.check(1e4)


def test_matrices_that_lie_otherwise_in_memory_are_written_back() -> None:
    pair = Pair(rules.get("muon"), torch.float64, ((4, 3, 2), (6, 2)))
    for params in (pair.ours, pair.theirs):
        params[0].data = params[0].data.transpose(0, 1).contiguous().transpose(0, 1)
    pair.step(3)
    pair.check(ULPS)


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_half_matrices(name: str) -> None:
    pair = Pair(rules.get(name), torch.bfloat16)
    pair.step(3)
    pair.check(4)


@pytest.mark.parametrize("name", ["adam", "momentum", "rprop", "adagrad", "prodigy", "lamb"])
def test_half_types_are_computed_in_float32(name: str) -> None:
    pair = Pair(rules.get(name), torch.bfloat16)
    pair.step(4)
    pair.check(2)


def test_half_types_round_once_a_step() -> None:
    pair = Pair(rules.get("adam"), torch.bfloat16, ((60, 40),))
    pair.step(3)
    same = (pair.ours[0] == pair.theirs[0]).double().mean()
    assert same > 0.99, same


def test_float16_too() -> None:  # of a rule whose states do not underflow in it
    pair = Pair(rules.get("nesterov"), torch.float16)
    pair.step(4)
    pair.check(2)


@pytest.mark.parametrize("name", ["adam", "momentum", "rprop", "adagrad", "lamb"])
def test_complex_numbers_are_pairs_of_reals(name: str) -> None:
    pair = Pair(rules.get(name), torch.complex128)
    pair.step(10)
    pair.check(ULPS)


@pytest.mark.parametrize("name", ["adam", "lars", "prodigy", "stable_adamw"])
def test_numbers_and_empty_tensors_take_part(name: str) -> None:
    pair = Pair(rules.get(name), torch.float32, ((), (0,), (4,)))
    pair.step(5)
    for p, q in zip(pair.ours, pair.theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_nan_spreads_as_in_the_formula() -> None:
    rule = chain(modifiers.clip_global_norm, rules.get("lion"))
    pair = Pair(rule, torch.float64)
    pair.step(1)
    for p, q in zip(pair.ours, pair.theirs, strict=True):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    pair.ours[0].grad[0, 0] = pair.theirs[0].grad[0, 0] = torch.nan
    for optimizer in pair.optimizers:
        optimizer.step()
    for p, q in zip(pair.ours, pair.theirs, strict=True):
        assert torch.isnan(p).all()
        assert torch.isnan(q).all()


def centred(p, g, b, spread=0.5, lr=0.1):
    l = maximum(g - global_mean(g), -spread)
    b = where(b == 0, l, l + b)
    p = p - lr * b - lr * spread * p
    return p, b


def test_a_bare_formula_is_exported_from_its_own_lines() -> None:
    text = export(centred)
    assert "total_2 = yield g.numel()" in text
    assert "p.sub_(lr * b + lr * spread * p)" in text
    pair = Pair(descend.formula.rule_of(centred), torch.float64)
    pair.step(20)
    pair.check(ULPS)


def test_what_the_file_says() -> None:
    text = export("adam")
    for line in (
        "class Adam(torch.optim.Optimizer):",
        "Source: Kingma and Ba 2015, Algorithm 1, arXiv:1412.6980.",
        "    v = beta2 * v + (1 - beta2) * g**2",
        "    v.lerp_(g**2, 1 - beta2)",
        "    m_hat = m / (1 - beta1**t)",
        "    p.sub_(lr * m_hat / (torch.sqrt(v_hat) + eps))",
    ):
        assert line in text.splitlines()
    assert "class RAdam(" in export("radam")
    assert "class ClipGlobalNormLamb(" in export(CHAINS[1])


def test_a_name_for_an_old_state_keeps_the_old_numbers() -> None:
    def two_back(p, g, m, n, lr=0.1):
        before = m
        m = g
        p = p - lr * (before + n)
        n = before
        return p, m, n

    pair = Pair(descend.formula.rule_of(two_back), torch.float64)
    pair.step(6)
    pair.check(ULPS)


def test_what_a_state_is_between_the_steps_of_every() -> None:
    def fading(p, g, t, m=State(), D=State(shape="left"), k=2.0, lr=0.1):
        square = matmul(g, transpose(g))
        D = every(k + 1, t, square, 0.5 * D)
        now = every(k, t, newton_schulz(m + g, 5, 3.0, -3.0, 1.0, 1e-7, 64), 0.9 * m + g)
        m = now
        p = p - lr * (matmul(D, g) + m)
        return p, m, D

    text = export(fading)
    assert "D.copy_(square if (t - 1) % (k + 1) == 0 else 0.5 * D)" in text
    pair = Pair(descend.formula.rule_of(fading), torch.float64, k=2.0)
    pair.step(7)
    pair.check(ULPS)


def test_a_local_of_one_part_that_another_part_takes_gets_another_name() -> None:
    def scaled(g, share=0.5):
        m = g * share
        g = m
        return g

    rule = chain(scaled, rules.get("adam"))
    assert "m_scaled = g * share" in export(rule)
    pair = Pair(rule, torch.float64)
    pair.step(5)
    pair.check(ULPS)


def test_the_constructor_and_groups_refuse_what_is_out_of_range() -> None:
    kind: Any = imported(export("adamw"))
    p = [torch.zeros(2, requires_grad=True)]
    with pytest.raises(ValueError, match=re.escape("beta1 = 1.0 is not in [0, 1)")):
        kind(p, beta1=1.0)
    with pytest.raises(ValueError, match="lr = nan"):
        kind(p, lr=float("nan"))
    optimizer = kind(p)
    with pytest.raises(ValueError, match="eps = -1"):
        optimizer.add_param_group({"params": [torch.zeros(1)], "eps": -1.0})
    kind(p, lr=0.0, beta1=0.0)


def test_sparse_gradients_and_wrong_shapes_are_refused_clearly() -> None:
    p = torch.zeros(3, requires_grad=True)
    p.grad = torch.ones(3).to_sparse()
    kind: Any = imported(export("adam"))
    with pytest.raises(RuntimeError, match="Adam does not support sparse gradients"):
        kind([p]).step()
    p.grad = torch.ones(3)
    kind = imported(export("adafactor"))
    with pytest.raises(ValueError, match=re.escape("takes real matrices, not a parameter of shape (3,)")):
        kind([p]).step()


def test_a_closure_is_called_with_gradients_and_its_loss_returned() -> None:
    p = torch.tensor([2.0], requires_grad=True)
    kind: Any = imported(export("gradient_descent"))
    optimizer = kind([p], lr=0.25)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert p.item() == 1.0


def test_a_part_for_some_names_cannot_be_exported() -> None:
    rule = chain(only(modifiers.decoupled_decay, names="*.weight"), rules.get("adam"))
    with pytest.raises(UsageError, match="Export the chain with it and without it"):
        export(rule)


def test_random_numbers_are_not_exported_and_it_says_so() -> None:
    rule = chain(modifiers.gradient_noise, rules.get("adam"))
    with pytest.raises(UsageError, match="uses the word 'normal'"):
        export(rule)
