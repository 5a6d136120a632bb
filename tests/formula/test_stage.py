"""Staging: what goes to the host, what stays in the loop, and that the rewritten formula means the same."""

import math

import numpy as np
import pytest
import torch

from descend import rules
from descend.formula import Hyper, State, chain, rule_of, stage
from descend.formula.nodes import text
from descend.formula.vocabulary import abs, exp, maximum, mean, sign, sqrt, where
from descend.kernels import reference, torch_ops
from descend.modifiers import ascent, cautious, coupled_decay, decoupled_decay


def written(program):
    (one,) = program.passes
    names = {n: f"s{i}" for n, i in one.row_index.items()}
    return {word: text(n, names) for word, n in one.written.items()}


def test_scalars_go_to_the_host_and_are_collected_into_one_factor():
    program = stage(rules.get("adam"))
    m, v = "fma(s1, g - m, where(s2, m, g))", "fma(s4, fma(g, g, -v), where(s5, v, g * g))"
    assert written(program) == {"p": f"fma(s0, {m} / (sqrt(s3 * {v}) + s6), p)", "m": m, "v": v}
    row, states = program.scalars(2, 1e-3, 0.9, 0.999, 1e-8)
    assert states == ()
    assert row[0] == pytest.approx(-1e-3 / (1 - 0.9**2), rel=1e-15)
    assert row[3] == pytest.approx(1 / (1 - 0.999**2), rel=1e-15)
    assert program.bytes_moved == 4 + 3


def test_a_factor_of_a_sum_joins_the_factors_of_its_terms_unless_the_sum_is_wanted_too():
    def decayed(p, g, lr=0.1, wd=0.5):
        u = lr * (3 * exp(g) + wd * p)
        p = where(u * g <= 0, p, p - u)
        return p

    def averaged(p, g, m, lr=0.1, b=0.9, wd=0.5):
        m = 3 * exp(g) + wd * p
        u = lr * m
        p = where(u * g <= 0, p, p - u)
        return p, m

    def one_bare(p, g, lr=0.1):
        u = lr * (3 * exp(g) + p)
        p = where(u * g <= 0, p, p - u)
        return p

    u = "fma(s0, exp(g), s1 * p)"
    program = stage(rule_of(decayed))
    assert written(program) == {"p": f"where({u} * g <= 0, p, p - {u})"}
    row, _ = program.scalars(1, 0.1, 0.5)
    assert row[:2] == pytest.approx((0.1 * 3, 0.1 * 0.5), rel=1e-15)
    m = "fma(3, exp(g), s1 * p)"
    assert written(stage(rule_of(averaged)))["p"] == f"where(s0 * ({m} * g) <= 0, p, fma(s2, {m}, p))"
    bare = "fma(3, exp(g), p)"
    assert written(stage(rule_of(one_bare)))["p"] == f"where(s0 * ({bare} * g) <= 0, p, fma(s1, {bare}, p))"


def test_a_product_that_several_want_is_spread_once():
    def kept(p, g, m, lr=0.1, wd=0.5):
        m = 2 * (3 * exp(g) + wd * p)
        u = lr * m
        p = where(u * g <= 0, p, p - u)
        return p, m

    m = "fma(s1, exp(g), s2 * p)"
    assert written(stage(rule_of(kept)))["m"] == m
    assert f"where(s0 * ({m} * g) <= 0" in written(stage(rule_of(kept)))["p"]


def test_a_weighted_mean_is_one_though_its_end_is_a_sum_that_others_want():
    def averaged(p, g, m, lr=0.1, b=0.9, wd=0.5):
        d = (1 - b) * (2 * g + wd * p)
        m = b * m + d
        p = p - lr * exp(m + d)
        return p, m

    assert "where(" in written(stage(rule_of(averaged)))["m"]


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_a_weighted_mean_is_exact_at_both_ends(beta):
    def mean(p, g, b=0.5):
        p = b * p + (1 - b) * g
        return p

    program = stage(rule_of(mean))
    row, _ = program.scalars(1, beta)
    p = torch.tensor([1e8, 3.0], dtype=torch.float32)
    g = torch.tensor([1.0, -1e8], dtype=torch.float32)
    new = torch_ops.step(program, row, {"p": p, "g": g})["p"]
    if beta == 0.0:
        assert torch.equal(new, g)
    elif beta == 1.0:
        assert torch.equal(new, p)
    else:
        assert new.tolist() == pytest.approx((beta * p.double() + (1 - beta) * g.double()).tolist(), rel=2e-7)


def odd(p, g, t, m, v=State(init=0.5), c=State(scalar=True, init=1.0), lr=0.1, k=3.0):
    c = c * k / (1 + t)
    m = where(t == 1, g, k * m - 2 * g / lr)
    v = maximum(v**3, abs(g) ** -1) - m / k / lr
    u = -(lr * -m) / (sqrt(v**2) + exp(-(g**4))) + sign(g) ** 0.5 * c
    w = where(g > p, u * u / 7, -u)
    p = p - lr * (w - 2 * p) * k / t - 1 / (3 + p**2) + (p - lr * p) ** 2
    return p, m, v, c


RULES = [rules.get(name) for name in rules.built_in() if rules.get(name).kind == "element"]
CHAINS = [
    chain(ascent, rules.get("adam")),
    chain(ascent, coupled_decay, rules.get("momentum")),
    chain(coupled_decay, decoupled_decay, rules.get("adam")),
]


@pytest.mark.parametrize("rule", [rule_of(odd), *RULES, *CHAINS], ids=lambda r: r.name)
def test_the_rewritten_formula_means_what_the_written_one_says(rule):
    """The staged program in float64 torch against the formula's own Python: a few roundings apart."""
    random = np.random.default_rng(3)
    hypers = {h.name: h.default or 0.01 for h in rule.hypers}
    p = random.normal(size=400)
    states = reference.initial_states(rule, p, hypers)
    program = stage(rule)
    for t in (1, 2, 3):
        g = random.normal(size=400)
        new, after = reference.step(rule, p, g, t, states, hypers)
        scalars = [float(states[s.name]) for s in rule.states if s.scalar]
        row, kept = program.scalars(t, *hypers.values(), *scalars)
        given = {"p": p, "g": g, **{s.name: states[s.name] for s in rule.states if not s.scalar}}
        tensors = {word: torch.from_numpy(x) for word, x in given.items()}
        got = tensors | torch_ops.step(program, row, tensors)
        wanted = {"p": new, **{w: x for w, x in after.items() if np.ndim(x)}}
        for word, x in wanted.items():
            scale = np.maximum(np.abs(x), 1.0)
            assert np.nanmax(np.abs(got[word].numpy() - x) / scale) < 1e-12, word
            assert np.array_equal(np.isnan(got[word].numpy()), np.isnan(x)), word
        assert list(kept) == pytest.approx([float(after[s.name]) for s in rule.states if s.scalar])
        p, states = new, after


def test_a_rewritten_formula_that_means_something_else_is_noticed(monkeypatch):
    from descend.formula import rewrite

    monkeypatch.setattr(rewrite, "_over", lambda a, b: rewrite._times(a, b))
    stage.cache_clear()
    with pytest.raises(AssertionError):
        test_the_rewritten_formula_means_what_the_written_one_says(rules.get("adam"))
    stage.cache_clear()


def test_the_host_gives_infinity_and_nan_where_python_would_raise():
    def risky(p, g, t, a=1.0, b=0.0):
        p = p - g * (a / b) * sqrt(-a) * exp(1000 * t)
        return p

    row, _ = stage(rule_of(risky)).scalars(1, 1.0, 0.0)
    assert all(not math.isfinite(x) for x in row)


def test_parts_of_a_chain_share_hyper_parameters_and_keep_their_states_apart():
    joined = chain(decoupled_decay, rules.get("adam"))
    assert [h.name for h in joined.hypers].count("lr") == 1
    assert [s.key for s in joined.states] == ["exp_avg", "exp_avg_sq"]
    assert stage(joined).bytes_moved == stage(rules.get("adam")).bytes_moved


def test_ranges_read_as_mathematics_writes_them():
    hyper = Hyper(0.9, "[0, 1)", "x", sensible="[0.5, 1)", name="beta")
    assert hyper.check(0.9) is None
    assert "makes no sense; use a value in [0.5, 1)" in hyper.check(0.1)
    for bad in (1.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\), got"):
            hyper.check(bad)


def test_what_two_passes_would_divide_for_is_kept_in_between():
    """Caution reads p and one temporary, not g, m and v once more; LAMB's would cost more than it saves."""
    program = stage(chain(rules.get("adamw"), cautious))
    first, second = program.passes
    (kept,) = program.temporaries
    assert set(first.written) == {"m", "v", kept}
    assert second.reads == ("p", kept)
    assert not any(n.op in ("sqrt", "div") for n in second.body)
    assert program.bytes_moved == 4 + 3 + 2 + 1
    assert stage(rules.get("lamb")).temporaries == ()


def test_in_the_cache_a_root_and_a_division_cost_more_than_memory():
    program = stage(rules.get("lamb"), keep="cached")
    (kept,) = program.temporaries
    assert program.passes[1].reads == ("p", kept)
    assert not any(n.op in ("sqrt", "div") for n in program.passes[1].body)
    for name in ("stable_adamw", "adafactor"):  # the pass before has no use for it, or it is a product
        assert stage(rules.get(name), keep="cached").temporaries == stage(rules.get(name)).temporaries


def by_row_and_column(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
    r = r + mean(g**2, "rows")
    c = c + mean(g**2, "columns")
    p = p - lr * g * (1 / sqrt(r)) * (1 / sqrt(c))
    return p, r, c


def test_what_differs_by_column_alone_is_computed_once_a_column():
    program = stage(rule_of(by_row_and_column))
    over_columns, last = program.passes[-2:]
    assert (over_columns.domain, last.domain) == ("columns", "element")
    (word,) = program.temporaries
    assert program.domains[word] == "columns"
    assert over_columns.written[word].op == "div"
    assert "c" not in last.reads
    assert word in last.reads
    assert program.sweeps == 2


def test_reciprocals_by_row_and_column_stay_reciprocals():
    ops = [n.op for n in stage(rule_of(by_row_and_column)).passes[-1].body]
    assert ops.count("div") == 1  # of the row
    assert "div" in [n.op for n in stage(rule_of(adagrad_like)).passes[-1].body]


def adagrad_like(p, g, s, lr=0.1):
    s = s + g * g
    p = p - lr * g * (1 / sqrt(s))
    return p, s
