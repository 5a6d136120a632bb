"""A step of several passes in one launch: the bits of the passes run one by one, whoever runs which chunk."""

import ctypes

import numpy as np
import pytest
import torch
from test_reductions import (
    at_once,
    by_own_rows,
    by_passes,
    by_rows,
    factored,
    fewer_columns_later,
    global_clip,
    lamb_like,
    many_sums,
    start,
    start_matrices,
)

import descend
from descend import rules
from descend.formula import State, chain, rule_of
from descend.formula.vocabulary import (
    abs,
    cos,
    exp,
    floor,
    global_mean,
    global_norm,
    log,
    max,
    maximum,
    mean,
    minimum,
    norm,
    sign,
    sin,
    sqrt,
    sum,
    tanh,
    where,
)
from descend.kernels import reference
from descend.kernels.cpu import table, team
from descend.kernels.cpu.glue import FIELDS
from descend.kernels.staged import StagedCpuPlan, launch_by_passes
from descend.modifiers import agc, cautious, centralise, clip_global_norm, clip_norm


def kept_sum(p, g, d=State(scalar=True), e=State(scalar=True, init=1.0), lr=0.1):
    d = d + global_norm(g - p)
    e = e * 0.5 + mean(p)
    p = p - lr * g / (1 + e)
    return p, d, e


def three_in_a_row(p, g, m, lr=0.1):
    c = minimum(1, 1 / global_norm(g))
    m = m + c * g
    u = m / (1 + norm(m))
    p = p - lr * u * where(max(u) > 0, 1, 2) - lr * 1e-3 * global_mean(u * p)
    return p, m


RULES = {
    **{name: rules.get(name) for name in ("adafactor", "adafactor_vector", "lamb", "lars", "prodigy")},
    "stable_adamw": rules.get("stable_adamw"),
    "clip_global_norm": chain(clip_global_norm, rules.get("adamw")),
    "clip_norm": chain(clip_norm, rules.get("momentum")),
    "agc": chain(agc, rules.get("momentum")),
    "centralise": chain(centralise, rules.get("adam")),
    "cautious": chain(rules.get("adamw"), cautious),
    "clip, lamb": chain(clip_global_norm, rules.get("lamb")),
    "kept_sum": rule_of(kept_sum),
    "three_in_a_row": rule_of(three_in_a_row),
}
MATRICES = ((150, 1001), (64, 64), (1, 7), (300, 3), (9, 70))
MIXED = ((2 * team.SHARE + 5,), (64, 64), (0,), (7,), (3, 5, 4), (), (40_000,), (33,))


def run(rule, shapes, threads, dtype=torch.float32, missing=True):
    """Three steps, in two groups; in the second some parameters have no gradient."""
    random = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, generator=random, dtype=dtype)) for s in shapes]
    groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.01}]
    torch.set_num_threads(threads)  # the fixture of all tests puts it back
    optimizer = descend.optimizer(rule)(params if "prodigy" in rule.name else groups)
    for step in range(3):
        for k, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=random, dtype=dtype)
            if missing and step == 1 and k in (1, 4):
                p.grad = None
        optimizer.step()
    assert "back end: cpu" in repr(optimizer)
    return [x for p in params for x in (p.detach(), *optimizer.state[p].values())]


def shapes_of(rule):
    asks = any(s.shape != "element" for s in rule.states) or "centralise" in rule.name
    return MATRICES if asks else MIXED


def same(one, two):
    pairs = list(zip(one, two, strict=True))
    return all(torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in pairs)


@pytest.mark.parametrize("name", RULES)
def test_one_launch_gives_the_bits_of_pass_after_pass(name, monkeypatch):
    rule = RULES[name]
    shapes = shapes_of(rule)
    once = run(rule, shapes, 1)
    assert same(once, run(rule, shapes, 2))
    with monkeypatch.context() as patch:
        patch.setattr(team, "openmp", lambda: None)  # Python's threads
        assert same(once, run(rule, shapes, 3))
    monkeypatch.setattr(StagedCpuPlan, "launch", lambda plan: launch_by_passes([plan]))
    assert same(once, run(rule, shapes, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["lamb", "adafactor", "clip, lamb", "kept_sum"])
def test_other_types_too(name, dtype, monkeypatch):
    rule = RULES[name]
    shapes = shapes_of(rule)
    once = run(rule, shapes, 2, dtype)
    monkeypatch.setattr(StagedCpuPlan, "launch", lambda plan: launch_by_passes([plan]))
    assert same(once, run(rule, shapes, 1, dtype))


@pytest.mark.parametrize(
    "rule", [lamb_like, many_sums, global_clip, three_in_a_row], ids=lambda r: r.__name__
)
@pytest.mark.parametrize("active", [None, [True, False, True, True, False]], ids=["all", "some"])
def test_every_number_of_threads_gives_the_bits_of_passes(rule, active):
    sizes = (3 * team.SHARE + 5, 70, 2 * team.SHARE, 0, 33)
    active = active if active is None else np.array(active)
    wanted = by_passes(rule, start(rule, sizes=sizes), active=active)
    for threads in (1, 2, 5):
        found = at_once(rule, start(rule, sizes=sizes), threads=threads, active=active)
        for word in wanted:
            assert same(wanted[word], found[word]), (word, threads)


@pytest.mark.parametrize(
    "rule", [factored, by_rows, by_own_rows, fewer_columns_later], ids=lambda r: r.__name__
)
def test_rows_and_columns_too(rule):
    shapes = ((700, 900), (64, 64), (0, 5), (3, 0), (201, 65))
    wanted = by_passes(rule, start_matrices(rule, torch.float32, shapes))
    for threads in (1, 2, 5):
        found = at_once(rule, start_matrices(rule, torch.float32, shapes), threads=threads)
        for word in wanted:
            assert same(wanted[word], found[word]), (word, threads)


def test_a_team_of_fewer_threads_than_asked_for_gets_to_the_end(monkeypatch):
    def alone(address, ctx, threads, flags):
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctx)

    sizes = (3 * team.SHARE + 5, 70, 2 * team.SHARE)
    wanted = by_passes(three_in_a_row, start(three_in_a_row, sizes=sizes))
    monkeypatch.setattr(team, "openmp", lambda: alone)
    found = at_once(three_in_a_row, start(three_in_a_row, sizes=sizes), threads=4)
    for word in wanted:
        assert same(wanted[word], found[word])


def test_every_thread_is_asked_for_its_number_so_that_its_lanes_stay_with_it(monkeypatch):
    asked = []

    @ctypes.CFUNCTYPE(ctypes.c_int)
    def number():
        asked.append(None)
        return len(asked)

    monkeypatch.setattr(table, "thread_number", lambda: ctypes.cast(number, ctypes.c_void_p).value)
    sizes = (3 * team.SHARE + 5, 70, 2 * team.SHARE)
    found = at_once(three_in_a_row, start(three_in_a_row, sizes=sizes), threads=2)
    assert len(asked) == 2
    monkeypatch.undo()
    wanted = by_passes(three_in_a_row, start(three_in_a_row, sizes=sizes))
    for word in wanted:
        assert same(wanted[word], found[word])


def test_the_threads_that_come_are_counted(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    p = torch.nn.Parameter(torch.zeros(3 * team.SHARE))
    p.grad = torch.ones_like(p)
    optimizer = descend.AdamW([p])
    for _ in range(2):
        optimizer.step()
        (plan,) = optimizer._plans
        assert plan.table._ctx[FIELDS.index("arrived")] == 2


@pytest.mark.parametrize("alone", [True, False])
def test_who_takes_no_part_keeps_its_scalar_states(alone, monkeypatch):
    if not alone:
        monkeypatch.setattr(StagedCpuPlan, "launch", lambda plan: launch_by_passes([plan]))
    params = [torch.nn.Parameter(torch.full((k,), float(k))) for k in (1, 2, 3)]
    optimizer = descend.optimizer(kept_sum)(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    before = [[float(x) for x in optimizer.state[p].values()] for p in params]
    params[1].grad = None
    optimizer.step()
    after = [[float(x) for x in optimizer.state[p].values()] for p in params]
    assert after[1] == before[1]
    assert after[0][:2] != before[0][:2]
    assert after[2][:2] != before[2][:2]


def test_chunks_are_added_in_their_order_and_tensors_in_theirs():
    """1e16 swallows what is added to it before it is taken away again: only one order gives this."""

    def total(p, g, lr=1.0):
        p = 0 * p + sum(g)
        return p

    def total_of_all(p, g, lr=1.0):
        p = 0 * p + global_mean(g) * (4 * 32768 / 3)
        return p

    ones = torch.zeros(4 * 32768, dtype=torch.float64)
    ones[[0, 32768, 65536, 98304]] = torch.tensor([1.0, 1e16, -1e16, 3.0], dtype=torch.float64)
    for threads in (1, 2):
        found = at_once(total, {"p": [torch.zeros_like(ones)], "g": [ones.clone()]}, threads=threads)
        assert found["p"][0].unique().item() == 3.0
    parts = [x.clone() for x in ones.split(32768)]
    for threads in (1, 2):
        zeros = [torch.zeros_like(x) for x in parts]
        found = at_once(total_of_all, {"p": zeros, "g": parts}, threads=threads)
        assert found["p"][3].unique().item() == 1.0


def library(p, g, m, v, k=0.0):
    a = sum(g)
    b = mean(p)
    m = 0 * m + where(k == 0, exp(a), where(k == 1, log(abs(a)), where(k == 2, tanh(a), sin(a) ** 3)))
    v = 0 * v + where(a > b, minimum(a, b) * sign(a), maximum(a, floor(b))) - cos(a) * abs(b) ** 1.7 / a
    p = 0 * p + sqrt(a) + where(a != a, 1, 0) + 2**a
    return p, m, v


@pytest.mark.parametrize("a", [0.3, -2.5, 0.0, float("inf"), float("nan"), 1e-300])
@pytest.mark.parametrize("k", [0.0, 1.0, 2.0, 3.0])
def test_what_stands_between_passes_is_numpys_arithmetic(a, k):
    found = rule_of(library)
    given = {"p": 1.5, "g": a, "m": 0.0, "v": 0.0}
    with np.errstate(all="ignore"):
        arrays = {w: np.array([x]) for w, x in given.items()}
        p, states = reference.step(found, arrays["p"], arrays["g"], 1, {w: arrays[w] for w in "mv"}, {"k": k})
    tensors = {w: [torch.tensor([x], dtype=torch.float64)] for w, x in given.items()}
    at_once(library, tensors, k=k)
    for word, x in {"p": p, **states}.items():
        assert tensors[word][0].item() == pytest.approx(x.item(), rel=1e-15, nan_ok=True), word
