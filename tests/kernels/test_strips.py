"""Sums by column: the strips of a tensor's chunks are added up in a tree that the chunks alone decide."""

import numpy as np
import pytest
import torch

import descend
from descend.formula import rule_of, stage
from descend.formula.vocabulary import max, mean, sum
from descend.kernels.cpu.schedule import CHUNK, ENTRY, FEWEST, Schedule

COLUMNS = 1000
ROWS = [FEWEST * share - less for share in range(1, 10) for less in (0, 3)]


def three(p, g, a, b):
    p = p - sum(g, "columns")
    a = a - mean(g, "columns")
    b = b + max(g, "columns")
    return p, a, b


def tree(g):
    """The sums by column of a matrix in float64: a chunk's rows one by one, and the chunks in a tree."""
    tall = np.maximum(FEWEST, CHUNK // g.shape[1])
    strips = []
    for first in range(0, len(g), tall):
        strip = np.zeros(g.shape[1])
        for row in g[first : first + tall]:
            strip = strip + row
        strips.append(strip)
    while len(strips) > 1:
        strips = [np.add.reduce(strips[k : k + 2]) for k in range(0, len(strips), 2)]
    return strips[0] if strips else np.zeros(g.shape[1])


def drawn(rows, columns, seed):
    """Numbers of all sizes, so that no two orders of adding give the same bits."""
    random = np.random.default_rng(seed)
    return random.standard_normal((rows, columns)) * 10.0 ** random.integers(-6, 7, (rows, columns))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_bits_are_those_of_a_tree_of_chunks(threads):
    torch.set_num_threads(threads)  # the fixture of all tests puts it back
    shapes = [(rows, COLUMNS) for rows in ROWS] + [(3 * CHUNK, 1), (1, 7), (5 * CHUNK // 40 + 1, 40)]
    params = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    optimizer = descend.optimizer(three)(params)
    for step in range(3):
        gradients = [drawn(*shape, seed=7 * step + k) for k, shape in enumerate(shapes)]
        for p, g in zip(params, gradients, strict=True):
            p.grad = torch.from_numpy(g)
            p.data.zero_()
            for state in optimizer.state[p].values():
                state.zero_()
        optimizer.step()
        for p, g in zip(params, gradients, strict=True):
            summed = tree(g)
            assert np.array_equal(p.detach().numpy(), np.broadcast_to(-summed, g.shape))
            a, b = (optimizer.state[p][word].numpy() for word in "ab")
            assert np.array_equal(a, np.broadcast_to(-(summed / len(g)), g.shape))
            assert np.array_equal(b, np.broadcast_to(g.max(0), g.shape))


def test_every_chunk_that_sums_by_column_has_a_count_of_its_own():
    def twice(p, g):
        p = p - sum(g, "columns")
        p = p * sum(p, "columns")
        return p

    program = stage(rule_of(twice))
    rows, columns = np.array([300, 0, 65, 1]), np.array([1000, 4, 33, 5])
    schedule = Schedule(program, {"element": rows * columns, "rows": rows, "columns": columns})
    joins = [join for k in (0, 1) for join in schedule.entries[k][:, ENTRY.index("join")].tolist()]
    assert sorted(joins) == list(range(schedule.joins))
    assert schedule.joins == 2 * (5 + 1 + 1 + 1)
