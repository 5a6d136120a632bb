"""Rules over gradients that the caller holds: pure functions, and an object that steps in place."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
import torch

import descend
from descend import functional, rules

DATA = np.random.default_rng(0)


def arrays(dtype: str = "float32") -> list[Any]:
    return [np.asarray(DATA.standard_normal(s), dtype) for s in ((5, 3), (7,), ())]


def plain(x: Any) -> Any:
    return x.numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def hypers_of(name: str) -> dict[str, float]:
    return {"weight_decay": 0.1} if any(h.name == "weight_decay" for h in rules.get(name).hypers) else {}


ELEMENT_RULES = [name for name in rules.built_in() if rules.get(name).kind == "element"]


@pytest.mark.parametrize("form", ["numpy", "torch"])
@pytest.mark.parametrize("name", ELEMENT_RULES)
def test_both_forms_are_the_optimizers(name: str, form: str) -> None:
    """To the bit: the kernels are the same."""
    start, hypers = arrays(), hypers_of(name)
    wrap = torch.from_numpy if form == "torch" else np.copy
    params = [torch.from_numpy(x.copy()).requires_grad_() for x in start]
    optimizer = descend.optim.rule_optimizer.class_of(rules.get(name))(params, **hypers)
    stepper = functional.Stepper(name, **hypers)
    pure, held = [wrap(x.copy()) for x in start], [wrap(x.copy()) for x in start]
    state = functional.init(name, pure, **hypers)
    for _ in range(3):
        grads = arrays()
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.from_numpy(g.copy())
        optimizer.step()
        given = [wrap(g) for g in grads]
        before = [plain(x).copy() for x in pure]
        new, state = functional.step(name, pure, given, state, **hypers)
        for x, y in zip(pure, before, strict=True):
            assert np.array_equal(plain(x), y)
        pure = new
        stepper.step(given, held)
    for p, x, y in zip(params, pure, held, strict=True):
        assert type(x) is type(y) is (torch.Tensor if form == "torch" else np.ndarray)
        assert np.array_equal(plain(x), p.detach().numpy())
        assert np.array_equal(plain(y), p.detach().numpy())
    for p, kept, other in zip(params, state, stepper.state, strict=True):
        assert kept["step"] == float(other["step"]) == 3
        for s in rules.get(name).states:
            assert np.array_equal(plain(kept[s.key]), optimizer.state[p][s.key].numpy())


def test_forms_of_parameters() -> None:
    x = np.ones(3)
    for make in (lambda a: a, lambda a: [a, a], lambda a: (a,), lambda a: {"w": a, "b": a}):
        params, grads = make(x), make(2 * x)
        state = functional.init("momentum", params)
        new, state = functional.step("momentum", params, grads, state, lr=0.5)
        assert type(new) is type(state) or isinstance(new, np.ndarray)
        leaf = new["w"] if isinstance(new, dict) else new if isinstance(new, np.ndarray) else new[0]
        assert leaf.tolist() == [0.0] * 3


def test_a_missing_gradient_leaves_its_parameter_out() -> None:
    params = {"a": np.ones(2), "b": np.ones(2)}
    state = functional.init("adam", params)
    new, state = functional.step("adam", params, {"a": None, "b": np.ones(2)}, state)
    assert new["a"].tolist() == [1.0, 1.0]
    assert new["b"][0] < 1
    assert (state["a"]["step"], state["b"]["step"]) == (0.0, 1.0)


def test_own_formulas_climb_too() -> None:
    def plain(p, g, lr=0.5):
        p = p - lr * g
        return p

    x = np.zeros(2)
    new, _ = functional.step(plain, x, np.ones(2), functional.init(plain, x), maximize=True)
    assert new.tolist() == [0.5, 0.5]


def test_a_stepper_follows_its_arrays() -> None:
    w = torch.ones(3, requires_grad=True)
    stepper = descend.Stepper("momentum", lr=1.0, momentum=0.5)
    version = w._version
    stepper.step([torch.ones(3)], [w])
    assert w.tolist() == [0.0] * 3
    assert w.grad is None
    assert w._version > version
    w.data = torch.full((3,), 10.0)
    stepper.step([torch.ones(3)], [w])
    assert w.tolist() == [8.5] * 3
    other = torch.zeros(3)
    stepper.hypers["lr"] = 0.5
    stepper.step([torch.ones(3)], [other])
    assert other.tolist() == [-0.875] * 3
    assert w.tolist() == [8.5] * 3
    x = np.ones((2, 3), np.float32).T
    stepper = descend.Stepper("adam", lr=0.5)
    stepper.step(np.ones((3, 2)), x)
    assert np.allclose(x, 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: functional.init("adm", x), "unknown rule 'adm'.*did you mean 'adam'"),
        (lambda x: functional.init("adam", "x"), "params must be an array"),
        (lambda x: functional.init("adam", [1.0]), "params holds a float"),
        (lambda x: functional.init("adam", np.ones(2, int)), "floating point or complex, got torch.int64"),
        (lambda x: functional.step("adam", x, x, {}), "a state of adam holds exp_avg, exp_avg_sq, step"),
        (lambda x: functional.step("adam", [x], x, [{}]), "grads must be a list of 1"),
        (lambda x: functional.step("adam", {"a": x}, {"b": x}, {}), "grads must be a dict with the keys"),
        (
            lambda x: functional.step("adam", x, x[:1], functional.init("adam", x)),
            r"a gradient has shape \(1,\), its parameter \(2,\)",
        ),
        (lambda x: functional.step("adam", x, x, functional.init("adam", x), beta=1), "adam takes no 'beta'"),
        (lambda x: descend.Stepper("adam", lr=-1.0), "Invalid learning rate: -1.0"),
        (lambda x: descend.Stepper("adam").step(x, np.broadcast_to(1.0, 2)), "read-only"),
    ],
)
def test_what_is_refused(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(np.ones(2))


def test_a_stepper_refuses_another_form() -> None:
    stepper = descend.Stepper("adam")
    x = np.ones(2)
    stepper.step([x], [x])
    with pytest.raises(ValueError, match="2 parameters, after steps with 1"):
        stepper.step([x, x], [x, x])
    with pytest.raises(ValueError, match=r"parameter 0 has shape \(3,\), it had \(2,\)"):
        stepper.step([np.ones(3)], [np.ones(3)])


def test_examples() -> None:
    assert doctest.testmod(functional).failed == 0
