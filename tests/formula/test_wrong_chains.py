"""More wrong formulas, and wrong chains: each answer points at its line and says what to write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import descend
from descend import FormulaError, UsageError, modifiers
from descend.formula import Hyper, State, chain, renamed, rule_of, stage
from descend.formula.vocabulary import global_norm, mean, norm, normal, sqrt, uniform, where
from descend.rules import get

K = State("place", init="place", scalar=True)


def length_of_a_rate(p, g, lr=0.1):
    p = p - norm(lr) * g
    return p


def mean_of_the_step(p, g, t, lr=0.1):
    p = p - lr * mean(t) * g
    return p


def sum_of_a_sum(p, g, lr=0.1):
    size = norm(g)
    p = p - lr * g / global_norm(size)
    return p


def mean_of_one_number(p, g, s=State(scalar=True), lr=0.1):
    s = s + mean(g)
    p = p - lr * mean(s) * g
    return p, s


def random_by_element(p, g, t, k=K, lr=0.1):
    p = p - lr * g * uniform(g, t, k)
    return p, k


def random_by_a_sum(p, g, t, k=K, lr=0.1):
    p = p - lr * g * uniform(norm(g), t, k)
    return p, k


def random_without_a_place(p, g, t, seed=0.0, lr=0.1):
    p = p - lr * (g + normal(seed, t))
    return p


def random_by_keyword(p, g, t, k=K, lr=0.1):
    p = p - lr * (g + normal(seed=1, t=t, k=k))
    return p, k


def random_alone(p, g, lr=0.1):
    p = p - lr * (g + normal)
    return p


def random_is_assigned(p, g, lr=0.1):
    normal = g
    p = p - lr * normal
    return p


def place_of_every_element(p, g, t, k=State(init="place"), lr=0.1):
    p = p - lr * (g + normal(0, t, k))
    return p, k


def place_misspelt(p, g, t, k=State(init="plase", scalar=True), lr=0.1):
    p = p - lr * (g + normal(0, t, k))
    return p, k


def place_forgotten(p, g, t, k=K, lr=0.1):
    p = p - lr * (g + normal(0, t, k))
    return p


def random_sum(p, g, t, k=K, lr=0.1):
    p = p - lr * (g + mean(uniform(0, t, k) > 0.5))
    return p, k


def row_grows(p, g, v=State(shape="rows"), lr=0.1):
    v = v + g**2
    p = p - lr * g / sqrt(v)
    return p, v


def number_grows_to_rows(p, g, s=State(scalar=True), lr=0.1):
    s = s + mean(g, "rows")
    p = p - lr * s * g
    return p, s


def wrong_axis(p, g, lr=0.1):
    p = p - lr * mean(g, "row") * g
    return p


def axis_number(p, g, lr=0.1):
    p = p - lr * mean(g, axis=0) * g
    return p


def global_rows(p, g, lr=0.1):
    p = p - lr * global_norm(g, "rows") * g
    return p


def walrus(p, g, lr=0.1):
    p = p - lr * (_ := g)
    return p


def numpy_word(p, g, lr=0.1):
    p = p - lr * np.sign(g)  # noqa: F821
    return p


def printed(p, g, lr=0.1):
    print(g)
    p = p - lr * g
    return p


def while_loop(p, g, lr=0.1):
    while True:
        p = p - lr * g
    return p


def asserted(p, g, lr=0.1):
    assert lr > 0
    p = p - lr * g
    return p


def nested(p, g, lr=0.1):
    def twice(x):
        return 2 * x

    p = p - lr * twice(g)
    return p


def power_of_a_condition(p, g, lr=0.1):
    p = p - lr * (g > 0) ** 2
    return p


def returns_nothing_new(p, g, lr=0.1):
    p = p - lr * g
    return


def changes_the_gradient_only(g, top=1.0):
    g = where(g > top, top, g)
    return g


WRONG = [
    (length_of_a_rate, "norm() goes over elements, and this is one number", "leave norm() out"),
    (mean_of_the_step, "mean() goes over elements, and this is one number", "leave mean() out"),
    (sum_of_a_sum, "global_norm() goes over elements", "leave global_norm() out"),
    (mean_of_one_number, "mean() goes over elements", "leave mean() out"),
    (random_by_element, "uniform() is decided by numbers known before the step", "every element has"),
    (random_by_a_sum, "uniform() is decided by numbers known before the step", "a seed, t"),
    (random_without_a_place, "write normal(seed, t, k)", 'k=State("place", init="place", scalar=True)'),
    (random_by_keyword, "write normal(seed, t, k)", 'init="place"'),
    (random_alone, "'normal' takes 3 argument(s)", ""),
    (random_is_assigned, "'normal' is a word of the vocabulary", "cannot be assigned"),
    (place_of_every_element, "'k' starts at 'place', no hyper-parameter", "a state starts at a number"),
    (place_misspelt, "'k' starts at 'plase'", "did you mean 'place'"),
    (place_forgotten, "the state 'k' must be returned", ""),
    (random_sum, "a comparison is not a number", "where(condition, x, y)"),
    (row_grows, "'v' is one number for a row, but its new value differs by element", 'mean(x, "rows")'),
    (number_grows_to_rows, "'s' is one number for a whole parameter", "differs by row; sum it up"),
    (wrong_axis, "write mean(x)", 'mean(x, "rows")'),
    (axis_number, "write mean(x)", 'mean(x, "columns")'),
    (global_rows, "write global_norm(x)", ""),
    (walrus, "'namedexpr' is not part of a formula", "allowed are"),
    (numpy_word, "write the word alone: sign(…)", ""),
    (printed, "'expr' is not part of a formula", "allowed are"),
    (while_loop, "a formula has no loops", "one element in one step"),
    (asserted, "'assert' is not part of a formula", "allowed are"),
    (nested, "a function is not part of a formula", "write the expression in place"),
    (power_of_a_condition, "a comparison is not a number", "where(condition, x, y)"),
    (returns_nothing_new, "return names, as in: return p, m, v", ""),
    (changes_the_gradient_only, "a rule must return p", "descend.chain(changes_the_gradient_only, …)"),
    (modifiers.cautious, "u is the update of a rule", "put it after such a rule"),
]


def points(message: str) -> str:
    """The line that a message points at, which must be as it shows it."""
    place, shown, caret = message.splitlines()[:3]
    found = re.match(r"(.*\.py):(\d+):", place)
    assert found, message
    line = Path(found[1]).read_text().splitlines()[int(found[2]) - 1]
    assert line.strip() == shown.strip()
    assert caret.strip() == "^"
    return line.strip()


@pytest.mark.parametrize(("formula", "says", "advice"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_wrong_formula_is_named_with_its_line_and_what_to_write(
    formula: Any, says: str, advice: str
) -> None:
    with pytest.raises(FormulaError) as caught:
        stage(rule_of(formula))
    message = str(caught.value)
    assert says in message
    assert advice in message
    if "\n" in message:
        assert points(message)
    else:
        assert formula.__name__ in message


def test_a_shape_error_points_at_the_line_that_makes_the_value() -> None:
    with pytest.raises(FormulaError) as caught:
        stage(rule_of(row_grows))
    assert points(str(caught.value)) == "v = v + g**2"
    part = chain(rule_of(adds_rows), get("adam"))
    with pytest.raises(FormulaError) as caught:
        stage(part)
    assert points(str(caught.value)) == "s = s + norm(g, 'rows')".replace("'", '"'), "of its own part"


def adds_rows(g, s=State(scalar=True)):
    s = s + norm(g, "rows")
    g = g / s
    return g, s


def clip_late(g, top=1.0):
    g = where(g > top, top, g)
    return g


def doubled(g, u):
    u = 2 * u * where(g > 0, 1, 1)
    return u


def not_subtracted(p, g, lr=Hyper(0.1)):
    p = (p + g) * lr
    return p


def averages(p, m=State(init="p"), beta=0.9):
    m = beta * m + (1 - beta) * p
    return m


ADAM = get("adam")
CHAINS = [
    (
        lambda: chain(ADAM, clip_late),
        "put it before it: chain(clip_late, adam)",
        "def clip_late(g, top=1.0):",
    ),
    (lambda: chain(doubled, ADAM), "put it after 'adam': chain(adam, doubled)", "def doubled(g, u):"),
    (lambda: chain(averages, ADAM), "put it after 'adam': chain(adam, averages)", "def averages("),
    (lambda: chain(ADAM, get("lion")), "here: adam, lion. Leave one, or give the parameters two", "@"),
    (lambda: chain(ADAM, chain(clip_late, ADAM)), "here: adam, adam. Leave one", "@"),
    (lambda: chain(clip_late), 'here: none. Add one, as descend.rules.get("adamw")', ""),
    (lambda: chain(), "here: none. Add one", ""),
    (lambda: chain(ADAM, averages), "keep a state 'm'; give one of them another name", ""),
    (
        lambda: stage(chain(ADAM, renamed(averages, m="lr"))),
        "'lr' is a hyper-parameter of 'adam' and a state",
        "",
    ),
    (
        lambda: stage(chain(not_subtracted, doubled)),
        "has none before it; put it after such a rule",
        "def doubled(",
    ),
    (lambda: chain(ADAM, "cautious"), "not of 'cautious'; a rule by its name is descend.rules.get", ""),
    (lambda: chain(ADAM, 3), "made of rules and formulas, not of 3", ""),
    (lambda: chain(lambda g: g, ADAM), "write the formula as a `def`", ""),
    (lambda: chain(loops, ADAM), "`for` is not part of a formula", "for _ in range(2):"),
    (lambda: descend.optimizer("clip_norm"), "clip_norm is a modifier, which needs a rule beside it", ""),
    (lambda: descend.optimizer("adam + clip_norm"), "put it before it: chain(clip_norm, adam)", "@"),
    (
        lambda: descend.optimizer("clip_nrm + adam"),
        "unknown part 'clip_nrm' of a chain (did you mean 'clip_norm'",
        "",
    ),
    (lambda: descend.optimizer("clip_norm + adm"), "(did you mean 'adam'?); the modifiers are", ""),
    (lambda: descend.optimizer("clip_norm + "), "a part is missing beside a +", ""),
    (
        lambda: descend.optimizer("cautious + clip_norm"),
        "exactly one rule, a formula from g to p; here: none",
        "",
    ),
]


def loops(g):
    for _ in range(2):
        g = g * 2
    return g


@pytest.mark.parametrize(("make", "says", "line"), CHAINS, ids=[str(i) for i in range(len(CHAINS))])
def test_a_wrong_chain_says_how_to_mend_it(make: Any, says: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    message = str(caught.value)
    assert says in message
    if line:
        assert points(message).startswith(line)


def test_a_chain_by_its_name_is_one_object_and_takes_files_and_dialects(tmp_path: Path) -> None:
    rule = get("clip_global_norm+adamw + cautious")
    assert rule is get("clip_global_norm + adamw + cautious")
    assert rule.name == "clip_global_norm + adamw + cautious"
    assert get("clip_value + nadam", "keras").formula_text.endswith(get("nadam", "keras").formula_text)
    file = tmp_path / "a+b.py"
    file.write_text("def mine(p, g, lr=0.5):\n    p = p - lr * g\n    return p\n")
    assert get(str(file)).name == "mine"
    plain = tmp_path / "own.py"
    plain.write_text(file.read_text())
    assert [h.name for h in get(f"clip_norm + {plain}").hypers] == ["max_norm", "lr"]
