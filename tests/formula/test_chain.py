"""Chains of modifiers around a rule: order, names, and what an update is."""

import numpy as np
import pytest

from descend import FormulaError, UsageError, rules
from descend.formula import State, chain, rule_of, stage
from descend.formula.vocabulary import global_norm, maximum, minimum, where
from descend.kernels import reference


def clip(g, top=0.5):
    g = minimum(maximum(g, -top), top)
    return g


def cautious(g, u):
    u = where(u * g > 0, u, 0)
    return u


def average(p, a=State(init="p"), keep=0.99):
    a = keep * a + (1 - keep) * p
    return a


def clip_all(g, most=1.0):
    g = g * minimum(1, most / global_norm(g))
    return g


def no_difference(p, g, lr=0.1):
    p = (p + g) * lr
    return p


def test_a_whole_chain_is_one_pass_and_means_its_parts_in_order():
    rule = chain(clip, rules.get("adamw"), cautious, average)
    program = stage(rule)
    assert len(program.passes) == 1
    assert program.bytes_moved == 5 + 4, "p, g, m, v, a read; all but g written"
    assert rule.name == "clip + adamw + cautious + average"
    random = np.random.default_rng(0)
    p, g = random.normal(size=50), random.normal(size=50)
    hypers = {h.name: h.default for h in rule.hypers}
    states = {"m": random.normal(size=50), "v": random.random(50), "a": p.copy()}
    new, after = reference.step(rule, p, g, 2, states, hypers)
    clipped = np.clip(g, -0.5, 0.5)
    alone = {k: v for k, v in hypers.items() if k not in ("top", "keep")}
    plain, plain_states = reference.step(
        rules.get("adamw"), p, clipped, 2, {"m": states["m"], "v": states["v"]}, alone
    )
    update = p - plain
    wanted = p - np.where(update * clipped > 0, update, 0)
    assert np.allclose(new, wanted, rtol=1e-13)
    assert np.allclose(after["m"], plain_states["m"], rtol=1e-15)
    assert np.allclose(after["a"], 0.99 * p + 0.01 * wanted, rtol=1e-13)
    assert (new != plain).any(), "the mask did something"


def test_a_norm_over_all_tensors_costs_one_more_pass_over_the_gradient():
    program = stage(chain(clip_all, rules.get("adam")))
    assert [one.reads for one in program.passes] == [("g",), ("p", "g", "m", "v")]
    assert program.bytes_moved == stage(rules.get("adam")).bytes_moved + 1


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([clip], "a chain holds exactly one rule, a formula from g to p; here: none"),
        ([rules.get("adam"), rules.get("momentum")], "exactly one rule.*here: adam, momentum"),
        ([rules.get("adam"), clip], "'clip' changes what 'adam' works on; put it before it"),
        ([cautious, rules.get("adam")], "'cautious' works on what the rule did; put it after 'adam'"),
        ([average, rules.get("adam")], "'average' works on what the rule did; put it after 'adam'"),
        ([rules.get("adam"), average, average], "two parts of the chain keep a state 'a'"),
    ],
)
def test_a_chain_in_a_wrong_order_says_how_to_mend_it(parts, says):
    with pytest.raises(UsageError, match=says):
        chain(*parts)


def test_an_update_needs_a_rule_that_subtracts_one():
    with pytest.raises(FormulaError, match="u is the update of a rule whose last line is p = p -"):
        stage(chain(no_difference, cautious))


def test_what_a_formula_does_not_take_it_does_not_know():
    def forgets_t(p, g, lr=0.1):
        p = p - lr * g / t  # noqa: F821
        return p

    with pytest.raises(FormulaError, match="unknown name 't'"):
        stage(rule_of(forgets_t))
