"""Loops that begin one vector while they finish the one before: what each half does, and the same bits."""

import numpy as np
import pytest
import torch

from descend import modifiers, rules
from descend.formula import chain, rule_of, stage
from descend.formula.vocabulary import abs, max, mean, norm, sqrt, where
from descend.kernels import cpu
from descend.kernels.cpu.sweep import Sweep


def keeps_old_values(p, g, m, v, old, b=0.9):
    """Each half writes what the other one, or the same, has read."""
    old = m
    m = b * m + (1 - b) * g
    v = b * v + (1 - b) * g**2
    u = m / (sqrt(v) + 1e-8)
    p = p - 0.1 * where(u * old > 0, u + old, u)
    return p, m, v, old


def of_rows(p, g, v):
    v = v + g**2 / (1 + norm(g, "rows"))
    p = p - 0.1 * g / (sqrt(v) + 1e-8)
    return p, v


def sums_of_all_kinds(p, g, m, v, b=0.9):
    m = b * m + (1 - b) * g
    v = b * v + (1 - b) * g**2
    u = m / (sqrt(v) + 1e-8)
    p = p - 0.1 * u * norm(m) / (norm(u) + mean(where(u > 0, 1, 0)) + max(abs(u)) + mean(v) + norm(p))
    return p, m, v


OWN = [rule_of(keeps_old_values), rule_of(sums_of_all_kinds), rule_of(of_rows)]
CHAIN = chain(modifiers.clip_value, rules.get("adamw"), modifiers.cautious_unscaled, modifiers.ema_weights)
PROGRAMS = {
    f"{rule.name}, {keep}": stage(rule, keep)
    for rule in (*map(rules.get, rules.built_in()), *OWN, CHAIN)
    for keep in ("least", "cached")
}
PASSES = {
    f"{title}, {k}": Sweep(program, ("float32",) * len(program.operands), 8, k)
    for title, program in PROGRAMS.items()
    for k in range(len(program.passes))
}
HALVED = {title: sweep for title, sweep in PASSES.items() if sweep.halves is not None}


def done(body, half, known):
    """What is known after a half, each of whose operations finds what it needs."""
    known = {*known}
    for n in body:
        if n in half.values:
            assert all(a in known or a.op == "const" for a in n.args)
            known.add(n)
    return known


@pytest.mark.parametrize("title", HALVED)
def test_halves_do_everything_once_and_hand_on_what_is_needed(title):
    sweep, one = HALVED[title], HALVED[title].one
    early, late, carried = sweep.halves.early, sweep.halves.late, sweep.halves.carried
    steady = {*sweep.scalars, *filter(sweep.is_steady, sweep.operands)}
    begun = done(one.body, early, {*steady, *sweep.operands})
    assert {*carried} <= begun
    kept = {n for n in sweep.operands if n.op != "name" or n.word not in early.writes}
    finished = done(one.body, late, {*steady, *carried, *kept})
    for n in one.body:  # what the compiler takes out of the loop is in both
        if all(a in steady or a.op == "const" for a in n.args):
            steady.add(n)
        assert (n in early.values) != (n in late.values) or n in steady
    assert sorted([*early.writes, *late.writes]) == sorted(one.written)
    assert all(one.written[word] in begun for word in early.writes)
    assert all(n in finished or n.op == "const" for n in map(one.written.get, late.writes))
    assert late.sums
    assert not early.sums
    for n in one.reductions.values():
        assert n in finished or all(a in finished or a.op == "const" for a in n.args)


def test_a_root_is_begun_before_the_division_ahead_is_finished():
    halves, body = PASSES["adamw, least, 0"].halves, PASSES["adamw, least, 0"].one.body
    assert [n.op for n in body if n in halves.early.values].count("sqrt") == 1
    assert [n.op for n in body if n in halves.late.values].count("div") == 1
    assert halves.early.writes == ("m", "v")
    assert halves.late.writes == ("p",)
    assert len(halves.carried) == 2  # the new m and the divisor


def softened(p, g, lr=0.1):
    p = p - lr * g / (1 + abs(g))
    return p


@pytest.mark.parametrize(
    "rule", [rule_of(softened), *map(rules.get, ("momentum", "lion"))], ids=lambda r: r.name
)
def test_what_is_short_is_done_at_once(rule):
    program = stage(rule)
    assert Sweep(program, ("float32",) * len(program.operands), 8).halves is None


def results(program, dtype, size):
    """The operands after three steps, to the last bit."""
    program = stage(program)
    operands = {}
    for k, word in enumerate(program.operands):
        made = torch.randn(size, generator=torch.Generator().manual_seed(k))
        operands[word] = (made.abs() if word == "v" else made).to(dtype)
    kernel = cpu.Kernel(program, (cpu.storage_name(dtype),) * len(operands))
    table = cpu.Table(kernel, [size], [(1, size)] if cpu.asks_for_rows(program) else ())
    rows, addresses = kernel.rows(1), np.array([[x.data_ptr() for x in operands.values()]], np.int64)
    hypers = [h.default for h in program.rule.hypers]
    states = [s.start for s in program.rule.states if s.scalar]
    for t in (1.0, 2.0, 3.0):
        row, states = program.scalars(t, *map(float, hypers), *map(float, states))
        rows[0 : len(row)] = row
        table.bind(addresses, rows, np.zeros(1, np.int64))
        table.launch()
    return operands


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "rule",
    [*OWN, CHAIN, rules.get("lamb"), rules.get("mars")],
    ids=lambda r: r.name[:20],
)
def test_the_same_bits_as_vector_after_vector(rule, dtype, monkeypatch):
    for size in (0, 1, 7, 8, 9, 16, 24, 31, 32, 33, 64, 200, 4099):
        found = results(rule, dtype, size)
        with monkeypatch.context() as patch:
            patch.setattr(Sweep, "halves", None)
            wanted = results(rule, dtype, size)
        for word, x in wanted.items():
            assert torch.equal(x.view(torch.uint8), found[word].view(torch.uint8)), (word, size)
