"""Rules that sum over tensors: compiled passes against the float64 reference, same bits on any threads."""

import numpy as np
import pytest
import torch

from descend.formula import State, rule_of, stage
from descend.formula.vocabulary import (
    abs,
    global_max,
    global_norm,
    max,
    maximum,
    mean,
    minimum,
    norm,
    sqrt,
    sum,
    where,
)
from descend.kernels import cpu, reference, torch_ops
from descend.kernels.cpu import team
from descend.kernels.staged import join


def lamb_like(p, g, t, m, v, lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-6, decay=0.01):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    u = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps) + decay * p
    p = p - lr * norm(p) / norm(u) * u
    return p, m, v


def many_sums(p, g, m, lr=1e-2):
    m = m + g * mean(g) - max(p) * 1e-3
    u = m / (1 + sum(p * m) ** 2)
    p = p - lr * u / (1 + norm(u))
    return p, m


def global_clip(p, g, lr=1e-2, top=1.0):
    c = where(global_norm(g) > top, top / global_norm(g), 1)
    p = p - lr * c * g / (1 + global_max(g))
    return p


def prepared(rule, tensors, t=1, **hypers):
    """A table over several tensors on the CPU; `tensors` maps operands to lists."""
    program = stage(rule_of(rule))
    columns = [tensors[word] for word in program.operands]
    n = len(columns[0])
    kernel = cpu.kernel(program, tuple(cpu.storage_name(c[0].dtype) for c in columns))
    shapes = [tuple(x.shape) for x in columns[0]] if columns[0][0].dim() == 2 else []
    table = cpu.Table(kernel, [x.numel() for x in columns[0]], shapes)
    addresses = np.array([[c[i].data_ptr() for c in columns] for i in range(n)], np.int64)
    row, _ = program.scalars(t, *(hypers.get(h.name, h.default) for h in program.rule.hypers))
    rows = kernel.rows(1)
    rows[0 : len(row)] = row
    table.bind(addresses, rows, np.zeros(n, np.int64))
    return table


def by_passes(rule, tensors, t=1, threads=None, active=None):
    """A step, one pass after the other; changes the tensors in place."""
    table = prepared(rule, tensors, t)
    took = 1 if active is None else active
    counts = {domain: extent * took for domain, extent in table.extents.items()}
    for k, one in enumerate(table.kernel.program.passes):
        table.learn(k, join([one], [table.launch_pass(k, active, threads)], [counts])[0])
    return tensors


def at_once(rule, tensors, t=1, threads=None, active=None, **hypers):
    """The same step in one launch."""
    prepared(rule, tensors, t, **hypers).launch(active, threads)
    return tensors


def start(rule, dtype=torch.float32, sizes=(33, 1, 70_001, 16)):
    random = torch.Generator().manual_seed(1)
    words = stage(rule_of(rule)).operands
    return {
        w: [torch.randn(n, generator=random, dtype=torch.float64).to(dtype).abs() for n in sizes]
        for w in words
    }


def factored(p, g, t, r=State(shape="rows"), c=State(shape="columns"), lr=1e-2, decay=0.1, eps=1e-7):
    w = 1 - decay**t
    r = (1 - w) * r + w * mean(g**2, "rows")
    c = (1 - w) * c + w * mean(g**2, "columns")
    u = g / sqrt(maximum(r * c / maximum(mean(r), eps), eps))
    p = p - lr * maximum(1e-3, sqrt(mean(p**2))) * u / maximum(1, sqrt(mean(u**2)))
    return p, r, c


def by_rows(p, g, m, lr=1e-2, top=0.01):
    rate = minimum(1, top * norm(p, "rows") / norm(g, "rows"))
    m = m + (g - mean(g, "columns")) * rate - max(g, "rows") * max(p, "columns")
    p = p - lr * m / (1 + sum(sum(m, "rows")))
    return p, m


def fewer_columns_later(p, g, m, lr=1e-2):
    m = m + g * mean(g, "columns") - max(g, "columns")
    p = p - lr * m / (1 + mean(abs(m) / (1 + norm(g)), "columns"))
    return p, m


def by_own_rows(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
    r = 0.5 * r + mean(g**2, "rows")
    c = c + mean(abs(g) / sqrt(r), "columns") + mean(p * g, "columns")
    p = p - lr * g / sqrt(r) / mean(c)
    return p, r, c


def start_matrices(rule, dtype, shapes=((5, 33), (1, 16), (130, 700), (300, 3), (7, 1), (201, 65))):
    random = torch.Generator().manual_seed(2)
    program = stage(rule_of(rule))
    made = {}
    for word in program.operands:
        domain = program.domains[word]
        sizes = [(a if domain != "columns" else 1, b if domain != "rows" else 1) for a, b in shapes]
        drawn = [torch.randn(s, generator=random, dtype=torch.float64).abs() for s in sizes]
        made[word] = [x.to(dtype) for x in drawn]
    return made


RULES = [lamb_like, many_sums, global_clip]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_passes_follow_the_reference(rule, dtype):
    tensors = start(rule, dtype)
    found = rule_of(rule)
    hypers = {h.name: h.default for h in found.hypers}
    names = [s.name for s in found.states]
    given = [
        {w: x.double().numpy() for w, x in zip(tensors, xs, strict=True)}
        for xs in zip(*tensors.values(), strict=True)
    ]
    wanted = reference.step_together(
        found,
        [x["p"] for x in given],
        [x["g"] for x in given],
        3,
        [{k: x[k] for k in names} for x in given],
        hypers,
    )
    by_passes(rule, tensors, t=3)
    eps = torch.finfo(dtype).eps
    for i, (p, states) in enumerate(wanted):
        for word, x in {"p": p, **states}.items():
            assert np.allclose(tensors[word][i].double().numpy(), x, rtol=16 * eps, atol=4 * eps), (word, i)


@pytest.mark.parametrize(
    "rule", [factored, by_rows, by_own_rows, fewer_columns_later], ids=lambda r: r.__name__
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_passes_by_row_and_column_follow_the_reference(rule, dtype):
    tensors = start_matrices(rule, dtype)
    found = rule_of(rule)
    hypers = {h.name: h.default for h in found.hypers}
    names = [s.name for s in found.states]
    wanted = []
    for i in range(len(tensors["p"])):
        given = {w: x[i].double().numpy() for w, x in tensors.items()}
        wanted.append(reference.step(found, given["p"], given["g"], 2, {k: given[k] for k in names}, hypers))
    by_passes(rule, tensors, t=2)
    eps = torch.finfo(dtype).eps
    for i, (p, states) in enumerate(wanted):
        for word, x in {"p": p, **states}.items():
            got = tensors[word][i].double().numpy()
            assert np.allclose(got, x, rtol=32 * eps, atol=16 * eps * np.abs(x).max()), (word, i)


def test_matrices_have_the_same_bits_with_any_number_of_threads():
    for rule in (factored, by_rows, by_own_rows, fewer_columns_later):
        runs = [
            by_passes(rule, start_matrices(rule, torch.float32, ((700, 900), (64, 64))), threads=k)
            for k in (1, 2, 3)
        ]
        for other in runs[1:]:
            assert all(torch.equal(a, b) for w in other for a, b in zip(runs[0][w], other[w], strict=True))


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)
def test_sums_have_the_same_bits_with_any_number_of_threads(rule):
    sizes = (3 * team.SHARE + 5, 70, 2 * team.SHARE)
    results = [by_passes(rule, start(rule, sizes=sizes), threads=threads) for threads in (1, 2, 3)]
    for other in results[1:]:
        for word in other:
            assert all(torch.equal(a, b) for a, b in zip(results[0][word], other[word], strict=True))


def test_squares_do_not_overflow_and_nan_reaches_every_element():
    tensors = start(global_clip)
    tensors["g"][2][5] = 1e30
    by_passes(global_clip, tensors)
    assert all(torch.isfinite(x).all() for x in tensors["p"])
    tensors["g"][2][5] = float("nan")
    by_passes(global_clip, tensors)
    assert all(x.isnan().all() for x in tensors["p"])


def test_a_tensor_that_takes_no_part_is_neither_summed_nor_written():
    tensors = start(global_clip)
    before = tensors["p"][2].clone()
    alone = {w: [x for i, x in enumerate(xs) if i != 2] for w, xs in start(global_clip).items()}
    by_passes(global_clip, tensors, active=np.array([True, True, False, True]))
    by_passes(global_clip, alone)
    assert torch.equal(tensors["p"][2], before)
    assert all(torch.equal(tensors["p"][i], alone["p"][k]) for k, i in enumerate((0, 1, 3)))


def test_the_torch_back_end_sums_in_float64():
    program = stage(rule_of(many_sums))
    x = torch.full((1 << 12,), 1e30)
    row = program.scalars(1, 1e-2)[0]
    _, sums = torch_ops.run_pass(program, 0, row, {"p": x, "g": x, "m": x}, {})
    assert sums
    assert all(torch.isfinite(value) for value in sums.values())


@pytest.mark.parametrize("rule", [factored, by_rows, lamb_like, many_sums], ids=lambda r: r.__name__)
def test_the_torch_back_end_follows_the_kernels_pass_by_pass(rule):
    tensors = start_matrices(rule, torch.float64, ((6, 9),))
    program = stage(rule_of(rule))
    hypers = [h.default for h in program.rule.hypers]
    operands = {w: x[0].clone() for w, x in tensors.items()}
    vectors, known, first = {}, [], ()
    for k, one in enumerate(program.passes):
        given = (*first, *known) if k else (2.0, *hypers)
        row, _ = one.scalars(*given)
        first = first if k else row
        new, sums = torch_ops.run_pass(program, k, row, operands, vectors)
        operands |= new
        vectors |= {n: x for n, x in sums.items() if x.dim()}
        known += [float(x) for x in sums.values() if not x.dim()]
    by_passes(rule, tensors, t=2)
    for word, x in operands.items():
        assert torch.allclose(x, tensors[word][0], rtol=1e-12, atol=1e-14), word
