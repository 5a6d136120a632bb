"""What `descend analyse` says of rules about which it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from descend import modifiers, rules
from descend.errors import UsageError
from descend.formula import Rule, chain, rule_of
from descend.formula.vocabulary import abs, maximum, minimum, norm, sign, sqrt, where
from descend.study import analyse
from descend.study.analyse_algebra import Underivable, first_step, linear
from descend.study.analyse_limits import coincidences
from descend.study.analyse_runs import GRADIENTS, descents, first_steps, on_quadratics, scaled, turned
from descend.study.analyse_symmetry import MIXED, Degrees, Parity, permutes, rotates, shifts

SAME, TIMES, OVER, NEITHER = "the same step", "c times the step", "1/c of the step", "neither"


# -- the stable range of lr*h


@pytest.mark.parametrize(
    ("name", "formula", "limit"),
    [
        ("gradient_descent", "2", 2.0),
        ("momentum", "2*(momentum + 1)", 3.8),
        ("ema_momentum", "2*(beta + 1)/(1 - beta)", 38.0),
        ("nesterov", "2*(momentum + 1)/(2*momentum + 1)", 3.8 / 2.8),
        ("asgd", "2 - lambd*lr", 2 - 1e-6),
    ],
)
def test_the_stable_range_of_linear_rules(name: str, formula: str, limit: float) -> None:
    found = linear(rules.get(name))
    assert found.formula == formula
    assert found.limit == pytest.approx(limit, rel=1e-12)
    assert found.of_product == (name != "asgd")


@pytest.mark.parametrize("name", ["gradient_descent", "momentum", "ema_momentum", "nesterov"])
def test_running_agrees_with_the_stable_range(name: str) -> None:
    rule = rules.get(name)
    edge = linear(rule).limit
    grew, falls, _ = descents(rule, np.array([0.5, 0.99, 1.01, 2]) * edge, 2000)
    assert list(grew) == [False, False, True, True]
    assert list(falls) == [True, True, False, False]


def test_the_range_of_coupled_decay_is_not_of_the_product_alone() -> None:
    found = linear(chain(modifiers.coupled_decay, rules.get("gradient_descent")))
    assert found.limit == pytest.approx(2.0)  # weight_decay is 0 by default
    shrunk = linear(rule_of(shrinking))
    assert shrunk.formula == "1.5"
    assert shrunk.limit == pytest.approx(1.5)


def test_a_rule_without_lr_has_a_range_of_curvatures() -> None:
    def bare(p, g, rate=0.1):
        p = p - rate * g
        return p

    found = linear(rule_of(bare))
    assert (found.formula, found.limit) == ("2/rate", pytest.approx(20))


def shrinking(p, g, lr=0.1):
    p = 0.5 * p - lr * g
    return p


def test_a_complex_pair_that_leaves_the_circle_is_found_by_bisection() -> None:
    found = linear(rule_of(late))  # p falls by the gradient of the step before
    assert found.limit == pytest.approx(1.0)
    grew, falls, _ = descents(rule_of(late), [0.99, 1.01], 3000)
    assert (list(grew), list(falls)) == ([False, True], [True, False])


def late(p, g, before, lr=0.1):
    p = p - lr * before
    before = g
    return p, before


@pytest.mark.parametrize(
    ("name", "why"),
    [("adam", "takes sqrt"), ("lion", "takes sign"), ("lamb", "sums over tensors"), ("rprop", "takes sign")],
)
def test_rules_that_are_not_linear_say_why(name: str, why: str) -> None:
    with pytest.raises(Underivable, match=why):
        linear(rules.get(name))


def test_normalised_rules_have_no_limit_and_end_in_a_cycle() -> None:
    lion = on_quadratics(rules.get("lion"))
    assert lion.limit is None
    assert lion.cycles == pytest.approx((1.0, 1.0))
    quick = on_quadratics(rule_of(quick_adam))
    assert quick.limit is None
    assert quick.cycles is not None
    assert 0.01 < quick.cycles[0] <= quick.cycles[1] < 2


def quick_adam(p, g, t, m, v, lr=1e-3, beta1=0.9, beta2=0.95):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    p = p - lr * m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + 1e-12)
    return p, m, v


def test_a_limit_that_cannot_be_derived_is_found_by_running() -> None:
    def careful(p, g, lr=0.1):
        p = p - lr * where(abs(g) > 1e-9, g, sign(g))
        return p

    found = on_quadratics(rule_of(careful))
    assert found.limit == pytest.approx(2.0, rel=0.01)


# -- the first step


@pytest.mark.parametrize(
    ("name", "formula", "limit"),
    [
        ("gradient_descent", "lr*g", ""),
        ("momentum", "lr*g", ""),
        ("nesterov", "lr*g*(momentum + 1)", ""),
        ("adam", "lr*g/(eps + |g|)", "lr*sign(g)"),
        ("amsgrad", "lr*g/(eps + |g|)", "lr*sign(g)"),
        ("adamw", "lr*(weight_decay*p*(eps + |g|) + g)/(eps + |g|)", "lr*(weight_decay*p + sign(g))"),
        ("rmsprop", "lr*g/(eps + |g|*sqrt(1 - alpha))", "lr*sign(g)/sqrt(1 - alpha)"),
        ("adadelta", "sqrt(eps)*lr*g/sqrt(eps + |g|**2*(1 - rho))", "sqrt(eps)*lr*sign(g)/sqrt(1 - rho)"),
        ("lion", "lr*sign(g)", ""),
        ("adopt", "0", ""),
    ],
)
def test_the_first_step_in_closed_form(name: str, formula: str, limit: str) -> None:
    rule = rules.get(name)
    found = first_step(rule, GRADIENTS)
    assert (found.formula, found.limit) == (formula, limit)
    np.testing.assert_allclose(-first_steps(rule), found.values, rtol=1e-7, atol=1e-15)


def test_the_first_step_of_adam_is_lr_for_every_gradient_far_above_eps() -> None:
    moved = -first_steps(rules.get("adam")) / 1e-3
    np.testing.assert_allclose(moved[GRADIENTS >= 1e-3], 1, rtol=1e-4)
    assert moved[0] == pytest.approx(1 / 1.01)


def test_a_first_step_over_a_tensor_is_written_with_its_length() -> None:
    found = first_step(rules.get("lamb"), GRADIENTS)
    assert found.limit == "lr*norm(p)*(weight_decay*p + sign(g))/norm(weight_decay*p + sign(g))"
    assert found.values is None


# -- invariances


@pytest.mark.parametrize(
    ("name", "loss", "parameters", "rotation", "shift"),
    [
        ("gradient_descent", 1.0, -1.0, True, True),
        ("momentum", 1.0, -1.0, True, True),
        ("adam", 0.0, 0.0, False, True),
        ("adagrad", 0.0, 0.0, False, True),
        ("lion", 0.0, 0.0, False, True),
        ("rprop", 0.0, 0.0, False, True),
        ("adamw", 0.0, MIXED, False, False),
        ("adafactor", 0.0, 1.0, False, False),
        ("radam", MIXED, MIXED, False, True),
    ],
)
def test_invariances_read_off_the_formula_and_by_running(
    name: str, loss: float | str, parameters: float | str, rotation: bool, shift: bool
) -> None:
    rule = rules.get(name)
    for (p, g), wanted in (((0.0, 1.0), loss), ((1.0, -1.0), parameters)):
        assert Degrees(rule, p, g).of_change() == wanted
        assert scaled(rule, p, g).factor == (None if wanted == MIXED else wanted)
    assert rotates(rule) == rotation == (turned(rule, "rotation") < 1e-9)
    assert shifts(rule) == shift == (turned(rule, "shift") < 1e-9)
    assert Parity(rule).of_change() == 1.0
    assert turned(rule, "sign") < 1e-12
    assert turned(rule, permutes(rule)) < 1e-12


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_trust_ratios_follow_the_scale_of_the_parameters_without_decay(name: str) -> None:
    rule = rules.get(name)
    assert Degrees(rule, 1, -1).of_change() == MIXED
    assert Degrees(rule, 1, -1, ["weight_decay"]).of_change() == 1.0
    assert scaled(rule, 1, -1).factor is None
    assert scaled(rule, 1, -1, ("weight_decay",)).factor == 1.0
    assert scaled(rule, 0, 1, ("weight_decay",)).factor == 0.0


@pytest.mark.parametrize("name", [n for n in rules.built_in() if n not in ("prodigy", "shampoo", "sophia")])
def test_formula_and_running_agree_on_scales(name: str) -> None:
    rule = rules.get(name)
    for p, g in ((0.0, 1.0), (1.0, -1.0)):
        derived = Degrees(rule, p, g).of_change()
        assert scaled(rule, p, g).factor == (derived if derived != MIXED else None)


def test_a_broken_rule_is_told_from_the_whole_one() -> None:
    def biased(p, g, t, m, v, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * abs(g)
        p = p - lr * m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps)
        return p, m, v

    rule = rule_of(biased)
    assert Degrees(rule, 0, 1).of_change() == 0.5
    assert scaled(rule, 0, 1).factor is None
    assert first_step(rule, GRADIENTS).limit == ""
    assert not any(one.rule == "adam" for one in coincidences(rule, [rules.get("adam")]))


def test_clips_turn_their_sign_and_half_clips_do_not() -> None:
    def clipped(p, g, lr=0.1, most=0.5):
        p = p - lr * minimum(maximum(g, -most), most)
        return p

    def half(p, g, lr=0.1, most=0.5):
        p = p - lr * minimum(g, most)
        return p

    assert Parity(rule_of(clipped)).of_change() == 1.0
    assert turned(rule_of(clipped), "sign") == 0
    assert Parity(rule_of(half)).of_change() == MIXED
    assert turned(rule_of(half), "sign") > 0.1


def test_a_rule_of_lengths_rotates_and_of_rows_does_not() -> None:
    def whole(p, g, lr=0.1):
        p = p - lr * g / norm(g)
        return p

    def by_rows(p, g, lr=0.1):
        p = p - lr * g / norm(g, "rows")
        return p

    assert rotates(rule_of(whole))
    assert turned(rule_of(whole), "rotation") < 1e-12
    assert not rotates(rule_of(by_rows))
    assert turned(rule_of(by_rows), "rotation") > 1e-2
    assert (permutes(rule_of(whole)), permutes(rule_of(by_rows))) == ("elements", "rows and columns")
    assert turned(rule_of(by_rows), "elements") > 1e-2


# -- limits


def limits(rule: Rule | str, *others: str) -> list[str]:
    given = rules.get(rule) if isinstance(rule, str) else rule
    return [str(one) for one in coincidences(given, map(rules.get, others))]


@pytest.mark.parametrize(
    ("rule", "other", "said"),
    [
        ("momentum", "gradient_descent", "gradient_descent where momentum = 0, dampening = 0"),
        ("nesterov", "gradient_descent", "gradient_descent where momentum = 0"),
        ("gradient_descent", "nesterov", "nesterov where its momentum = 0"),
        ("adamw", "adam", "adam where weight_decay = 0"),
        ("ademamix", "adamw", "adamw where alpha = 0"),
        ("ademamix", "adam", "adam where alpha = 0, weight_decay = 0"),
        ("rmsprop_momentum", "rmsprop", "rmsprop where momentum = 0"),
        (
            "momentum",
            "ema_momentum",
            "ema_momentum where dampening = 0, its beta = momentum, its lr = lr/(1 - momentum)",
        ),
        ("adafactor", "adafactor_stack", "adafactor_stack, always"),
        ("asgd", "gradient_descent", "gradient_descent where lambd = 0"),
        ("lion", "sophia", "sophia where beta1 = 0"),
    ],
)
def test_limits_that_are_known(rule: str, other: str, said: str) -> None:
    assert limits(rule, other) == [said]


@pytest.mark.parametrize(
    ("rule", "other"),
    [("adam", "gradient_descent"), ("adam", "amsgrad"), ("lamb", "adamw"), ("lion", "adam")],
)
def test_rules_that_have_no_limit_in_common_here(rule: str, other: str) -> None:
    assert limits(rule, other) == []


def test_a_rule_that_is_nearly_another_is_not_it() -> None:
    def nearly(p, g, m, lr=1e-2, beta=0.9):
        m = beta * m + (1 - beta) * g
        p = p - lr * m * 1.0000000001
        return p, m

    assert limits(rule_of(nearly), "ema_momentum") == []


# -- the page


def test_the_page_of_momentum() -> None:
    page = str(analyse("momentum"))
    for line in (
        "  formula  p falls by lr*g (with dampening = 0)",
        "  formula  0 < lr*h < 2*(momentum + 1) = 3.8 (with dampening = 0)",
        "  running  at 0.99 of it p shrinks, at 1.01 it grows",
        "  state   4 bytes for an element of a float32 parameter: b",
        "  passes  1 over the elements, which move 5 values of each",
        "  words   where",
        "  gradient_descent where momentum = 0, dampening = 0",
    ):
        assert line in page.splitlines()


def test_the_page_says_where_formula_and_running_differ() -> None:
    found = analyse("sophia")
    assert [one.agrees for one in found.invariances][:2] == [False, False]
    assert "<- not what the formula says" in str(found)
    assert "h is the user's to write" in str(found)


def test_the_page_of_a_rule_that_sums() -> None:
    found = analyse("lars")
    page = str(found)
    assert found.sums == ["a tensor"]
    assert "for a whole parameter" not in page
    assert "the parameters times c (g to g/c): without weight_decay c times the step" in page
    assert "not derived: it sums over tensors" in page


def test_matrices_are_analysed_by_running() -> None:
    page = str(analyse("muon"))
    assert "rotated by rows and by columns" in page
    assert "not looked for: the rule works on whole matrices" in page


def test_chains_are_analysed_as_one_rule() -> None:
    noisy = analyse(chain(modifiers.gradient_noise, rules.get("momentum")))
    assert noisy.stable is None
    assert "it uses normal(…)" in noisy.stable_why
    assert [one.agrees for one in noisy.invariances] == [True] * len(noisy.invariances)
    clipped = chain(modifiers.clip_norm, rules.get("gradient_descent"))
    assert limits(clipped, "gradient_descent") == ["gradient_descent where max_norm = infinity"]


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'momentum'"):
        analyse("momentun")


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    from descend.cli import main

    assert main(["analyse", "gradient_descent"]) == 0
    assert "0 < lr*h < 2" in capsys.readouterr().out


BOOK = Path(__file__).parents[2] / "docs" / "analyse.md"


@pytest.mark.parametrize("name", ["momentum", "lars"])
def test_the_pages_of_the_book_are_what_is_printed(name: str) -> None:
    shown = BOOK.read_text(encoding="utf-8").split(f"$ descend analyse {name}\n")[1].split("\n```")[0]
    assert shown == str(analyse(name))
