"""`dialect=`: the class of a rule as torch, Keras, optax or the paper has it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import descend
from descend import formula, rules
from descend.errors import FormulaError, UsageError
from descend.formula import Hyper, State, dialect, in_dialect, rule


def points(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=source, dtype=dtype).requires_grad_() for s in shapes]


def steps(optimizer: Any, count: int = 3, seed: int = 1) -> None:
    source = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.randn(p.shape, generator=source, dtype=p.dtype)
        optimizer.step()


def test_the_class_has_the_formula_s_names_and_the_library_s_defaults() -> None:
    opt = descend.optimizer("nadam", dialect="keras")(points((3,)))
    group = opt.param_groups[0]
    assert {key: group[key] for key in ("lr", "beta1", "beta2", "eps", "momentum_decay")} == {
        "lr": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-7,
        "momentum_decay": 1.0,
    }
    assert opt.rule is rules.get("nadam", "keras")
    assert "NAdam as in Keras" in (type(opt).__doc__ or "")


def test_torch_s_is_the_default() -> None:
    for name in ("adam", "sgd", "adafactor", "momentum"):
        assert descend.optimizer(name, dialect="torch" if name != "sgd" else None) is descend.optimizer(name)
    assert descend.optimizer("adam", dialect="torch") is descend.Adam
    assert rules.get("adam", "torch") is rules.get("adam")


def test_a_rule_object_is_asked_like_its_name() -> None:
    assert descend.optimizer(rules.get("adam"), dialect="keras") is descend.optimizer("adam", dialect="keras")


def test_keras_decay_is_p_times_one_minus_lr_times_decay_before_the_step() -> None:
    (a,), (b,) = points((5,)), points((5,))
    with_decay = descend.optimizer("adam", dialect="keras", decay="decoupled")([a], lr=0.1, weight_decay=0.2)
    alone = descend.optimizer("adam", dialect="keras")([b], lr=0.1)
    for k in range(3):
        with torch.no_grad():
            b -= 0.1 * 0.2 * b
        steps(alone, 1, k)
        steps(with_decay, 1, k)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_a_rule_that_decays_by_itself_takes_no_second_decay() -> None:
    with pytest.raises(UsageError, match=r"lamb \(keras\) has a weight_decay of its own"):
        descend.optimizer("lamb", dialect="keras", decay="decoupled")


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("radam", "keras", "radam has no dialect 'keras': it has torch, optax, paper"),
        ("stable_adamw", "optax", "stable_adamw has no dialects: leave dialect='optax' out"),
        (
            "adam",
            "kears",
            "unknown dialect 'kears' (did you mean 'keras'?); adam has torch, keras, optax, paper",
        ),
        ("sgd", "keras", "name one: gradient_descent, momentum or nesterov"),
    ],
)
def test_a_dialect_that_there_is_not_is_answered_with_those_that_there_are(
    name: str, word: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        descend.optimizer(name, dialect=word)
    assert message in str(caught.value)


def test_a_bare_formula_has_no_dialects() -> None:
    def signs(p: Any, g: Any, lr: Any = 0.1) -> Any:
        p = p - lr * g
        return p

    with pytest.raises(UsageError, match="signs has no dialects"):
        descend.optimizer(signs, dialect="keras")


@pytest.mark.parametrize(
    ("name", "word", "decay"),
    [("rmsprop", "keras", None), ("adam", "keras", "decoupled"), ("adafactor", "paper", "coupled")],
)
def test_a_dialect_s_optimizer_goes_on_after_pickle_copy_and_state_dict(
    name: str, word: str, decay: str | None
) -> None:
    kind = descend.optimizer(name, dialect=word, decay=decay)
    shapes = ((4, 3), (5,), (2, 3, 4)) if name == "adafactor" else ((4, 3),)
    opt = kind(points(*shapes))
    steps(opt)
    again = [pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)]
    fresh = kind([p.detach().clone().requires_grad_() for p in opt.param_groups[0]["params"]])
    fresh.load_state_dict(opt.state_dict())
    steps(opt, seed=2)
    for twin in (*again, fresh):
        assert type(twin) is kind
        steps(twin, seed=2)
        for p, q in zip(opt.param_groups[0]["params"], twin.param_groups[0]["params"], strict=True):
            assert torch.equal(p, q)


@pytest.mark.parametrize("word", ["keras", "paper", "optax"])
def test_adafactor_takes_the_formula_of_the_shape(word: str) -> None:
    """optax factors from 128 rows and columns on, the others every matrix."""
    params = points((130, 128), (3, 4), (5,), (2, 130, 128), ())
    opt = descend.optimizer("adafactor", dialect=word)(params)
    steps(opt, 1)
    kept = [sorted(key for key in opt.state[p] if key != "step") for p in params]
    factored, whole = ["col_var", "row_var"], ["variance"]
    assert kept == [factored, whole if word == "optax" else factored, whole, factored, whole]


def test_optax_s_adafactor_refuses_what_it_would_factor_otherwise() -> None:
    opt = descend.optimizer("adafactor", dialect="optax")(points((128, 128, 3, 3)))
    with pytest.raises(UsageError, match=r"two largest dimensions of a tensor of shape \(128, 128, 3, 3\)"):
        steps(opt, 1)


def test_a_state_of_a_dialect_is_known_as_a_rule_s() -> None:
    """Rprop's move is kept by the paper's form only: another rule refuses it instead of passing it on."""
    (p,) = points((3,))
    opt = descend.optimizer("rprop", dialect="paper")([p])
    steps(opt, 1)
    saved = opt.state_dict()
    with pytest.raises(UsageError, match="prev_move"):
        descend.optimizer("rprop", dialect="optax")(points((3,))).load_state_dict(saved)


def mine(**forms: Any) -> formula.Rule:
    @dialect(**forms)
    @rule(title="Mine", source="nobody 2026")
    def mine(p: Any, g: Any, b: Any = State("b", doc="sum"), lr: Any = Hyper(0.1, "[0, inf)", "rate")) -> Any:
        b = b + g
        p = p - lr * b
        return p, b

    return mine


def test_dialects_of_a_rule_of_one_s_own() -> None:
    own = mine(torch={}, optax={"lr": 0.5})

    @dialect(own, keras={"lr": 0.2, "keep": 0.3})
    def fading(p: Any, g: Any, b: Any, lr: Any, keep: Any = Hyper(0.9, "[0, 1)", "kept")) -> Any:
        b = keep * b + g
        p = p - lr * b
        return p, b

    assert list(own.dialects) == ["torch", "optax", "keras"]
    assert own.dialects["torch"] is own
    assert in_dialect(own, "optax").hyper("lr").default == 0.5
    keras = in_dialect(own, "keras")
    assert keras.formula_text.startswith("b = keep * b + g")
    assert [(h.name, h.default) for h in keras.hypers] == [("lr", 0.2), ("keep", 0.3)]
    assert keras.states[0].key == "b"
    assert fading is keras


def test_mistakes_in_a_dialect_are_named() -> None:
    with pytest.raises(FormulaError, match=r"unknown dialect 'pytorch'.*use torch, keras, optax, paper"):
        mine(pytorch={})
    with pytest.raises(FormulaError, match="mine has no hyper-parameter 'rl'"):
        mine(torch={}, keras={"rl": 0.1})

    def unknown(p: Any, g: Any, rate: Any) -> Any:
        p = p - rate * g
        return p

    with pytest.raises(FormulaError, match=r"unknown: mine has no 'rate'.*give it a default"):
        dialect(mine(torch={}), keras={})(unknown)
