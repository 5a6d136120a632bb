"""In which order, and on which thread, the chunks of a step are taken."""

import itertools

import numpy as np
import pytest
import torch
from test_reductions import by_own_rows

from descend import modifiers, rules
from descend.formula import chain, rule_of
from descend.formula.nodes import scope
from descend.formula.stage import stage
from descend.formula.vocabulary import global_norm, norm
from descend.kernels import cpu
from descend.kernels.cpu.schedule import CHUNK, ENTRY, LONE, LONG, Schedule
from descend.modifiers import clip_global_norm

SIZES = (5 * CHUNK + 3, 0, 40, CHUNK, 7, 3 * CHUNK, 2 * CHUNK + 1, 0)
RULES = {
    "adamw": rules.get("adamw"),
    "lamb": rules.get("lamb"),
    "clip, lamb": chain(clip_global_norm, rules.get("lamb")),
}


def cells(order):
    """The entries of every lane of every phase, as dicts, in the order in which they are taken."""
    found = []
    for begin, end in zip(order.starts.ravel(), order.ends.ravel(), strict=True):
        rows = order.entries[order.batches[begin] : order.batches[end]]
        found.append([dict(zip(ENTRY, row, strict=True)) for row in rows.tolist()])
    return found


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize(
    "active", [None, [True, False, True, False, True, True, True, True], [False] * 8], ids=str
)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("times", [1, 9], ids=["few", "many"])
def test_every_chunk_is_taken_once_after_what_it_waits_for(name, active, lanes, times):
    program = stage(RULES[name])
    sizes = SIZES * times
    active = None if active is None else active * times
    active = None if active is None else np.array(active)
    schedule = Schedule(program, {"element": np.array(sizes, np.int64)})
    numbers = range(len(program.passes))
    order = schedule.order(numbers, lanes, active)
    found = cells(order)
    taken = [(e["number"], e["tensor"], e["piece"]) for cell in found for e in cell]
    wanted = [
        (k, i, piece)
        for k in numbers
        for i, size in enumerate(sizes)
        for piece in range(max(1, -(-size // CHUNK)))
        if active is None or active[i]
    ]
    assert sorted(taken) == sorted(wanted)
    assert order.starts.shape == order.ends.shape == (len(found) // lanes, lanes)
    assert schedule.work(numbers, active) == sum(e["length"] for cell in found for e in cell)

    place = {key: (k // lanes, k) for k, cell in enumerate(found) for key in _keys(cell)}
    turn = {key: j for j, key in enumerate(taken)}
    for number, tensor, piece in taken:
        if number == 0:
            continue
        every = any(scope(n) == "global" for n in program.passes[number - 1].reductions)
        before = [key for key in taken if key[0] == number - 1 and (every or key[1] == tensor)]
        mine = place[number, tensor, piece]
        for key in before:
            earlier = place[key][0] < mine[0]
            assert earlier or (place[key] == mine and turn[key] < turn[number, tensor, piece])


def _keys(cell):
    return [(e["number"], e["tensor"], e["piece"]) for e in cell]


def test_a_thread_has_the_same_half_of_a_tensor_in_every_pass_and_turns_round():
    schedule = Schedule(stage(rules.get("lamb")), {"element": np.array([4 * CHUNK], np.int64)})
    found = cells(schedule.order((0, 1), 2))
    assert [[e["piece"] for e in cell] for cell in found] == [[0, 1], [2, 3], [1, 0], [3, 2]]


def test_small_tensors_are_shared_out_by_their_work():
    schedule = Schedule(stage(rules.get("lamb")), {"element": np.array([300, 100, 100, 100], np.int64)})
    found = cells(schedule.order((0, 1), 2))
    assert [[(e["tensor"], e["number"]) for e in cell] for cell in found] == [
        [(0, 0), (0, 1)],
        [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)],
    ]


def passes_of(sizes, lanes):
    """Of each lane of each phase, which passes of which tensors it holds, in order."""
    schedule = Schedule(stage(rules.get("lamb")), {"element": np.array(sizes, np.int64)})
    found = cells(schedule.order((0, 1), lanes))
    return [list(dict.fromkeys((e["tensor"], e["number"]) for e in cell)) for cell in found]


def test_one_thread_takes_all_passes_of_a_tensor_that_is_one_of_many():
    assert passes_of([3 * CHUNK] * 8, 2) == [
        [(k, j) for k in half for j in (0, 1)] for half in ([*range(4)], [*range(4, 8)])
    ]
    assert all(len({i for i, _ in cell} & {*range(8)}) == 4 for cell in passes_of([LONE * CHUNK] * 8, 2))


def test_threads_share_a_tensor_that_is_one_of_few_or_large():
    for sizes in ([3 * CHUNK] * 7, [(LONE + 1) * CHUNK] * 20, [5 * CHUNK, 40 * CHUNK]):
        found = passes_of(sizes, 2)
        assert all(cell for cell in found)
        assert all(found[k] == found[k + 1] for k in range(0, len(found), 2))


def test_a_large_tensor_is_shared_among_however_many_small_ones():
    found = passes_of([(LONE + 1) * CHUNK, *[2 * CHUNK] * 50], 2)
    assert found[:2] == [[(0, 0)]] * 2


def test_lone_tensors_come_after_those_that_are_shared():
    found = passes_of([2 * CHUNK, 40 * CHUNK, *[2 * CHUNK] * 40], 2)
    assert found[:4] == [[(1, 0)]] * 2 + [[(1, 1)]] * 2
    assert sorted(i for cell in found[4:] for i, j in cell if j == 0) == [0, *range(2, 42)]


def test_a_long_pass_is_followed_by_the_next_one_of_its_tensor_and_a_short_one_by_another_tensors():
    long, short = 2 * LONG * CHUNK, (2 * LONG - 1) * CHUNK
    assert [cell[0] for cell in passes_of([long, long], 2)[::2]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [cell[0] for cell in passes_of([short, short], 2)[::2]] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_passes_that_need_the_sums_of_their_own_rows_alone_follow_chunk_by_chunk():
    program = stage(rule_of(by_own_rows))
    assert [one.domain for one in program.passes] == ["element", "rows", "element", "columns", "element"]
    assert program.leaders == (0, 0, 0, 3, 4)
    rows = np.array([300, 1, 70, 0])
    extents = {"rows": rows, "columns": np.array([1000, 4, 33, 5])}
    extents["element"] = rows * extents["columns"]
    schedule = Schedule(program, extents)
    for lanes in (1, 2, 3):
        order = schedule.order(range(5), lanes)
        taken = set()
        for begin, end in zip(order.batches, order.batches[1:], strict=False):
            found = [dict(zip(ENTRY, row, strict=True)) for row in order.entries[begin:end].tolist()]
            keys = [(e["tensor"], e["piece"], e["number"]) for e in found]
            for k, (tensor, piece, number) in enumerate(keys):
                taken.add((tensor, piece, number))
                if number in (1, 2):
                    assert keys[k - 1] == (tensor, piece, number - 1)
        assert len(taken) == len(order.entries) == sum(map(len, schedule.entries))
        chunks = [row for k in (0, 2) for row in schedule.entries[k]]
        strips = sorted((row[5], row[5] + extents["columns"][row[1]]) for row in chunks)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(strips))
        assert strips[-1][1] <= schedule.scratch


@pytest.mark.parametrize("modifier", ["agc", "centralise"])
def test_modifiers_by_row_follow_and_those_of_everything_do_not(modifier):
    assert stage(chain(getattr(modifiers, modifier), rules.get("adamw"))).leaders == (0, 0)
    assert stage(rules.get("lamb")).leaders == (0, 1)
    assert stage(rules.get("adafactor")).leaders == (0, 0, 2, 3, 4)  # its mean waits for the columns


def test_a_sum_over_all_tensors_ends_a_run_of_passes():
    def clipped_later(p, g, m, lr=0.1):
        m = g / norm(g, "rows")
        p = p - lr * m / global_norm(g) / norm(m)
        return p, m

    program = stage(rule_of(clipped_later))
    assert not program.passes[1].scalars.late
    assert program.leaders == (0, 1, 2)


def takes_the_gradient(p, g):
    p = g
    return p


def takes_it_after_a_norm(p, g):
    p = g + 0 * norm(g)
    return p


@pytest.mark.parametrize(
    ("rule", "last"),
    [(takes_the_gradient, [0, 3, 0]), (takes_it_after_a_norm, [3, 3, 3])],
    ids=["one", "two"],
)
def test_a_single_pass_runs_backwards_in_every_other_step(rule, last):
    """Four tensors whose parameters are the same memory: what was written last is what stands there."""
    program = stage(rule_of(rule))
    kernel = cpu.kernel(program, ("float32", "float32"))
    size = CHUNK // 2
    table = cpu.Table(kernel, [size] * 4)
    p, g = torch.zeros(size), [torch.full((size,), float(k)) for k in range(4)]
    addresses = np.array([[p.data_ptr(), x.data_ptr()] for x in g], np.int64)
    table.bind(addresses, kernel.rows(1), np.zeros(4, np.int64))
    found = []
    for _ in range(3):
        table.launch(threads=1)
        assert (p == p[0]).all()
        found.append(int(p[0]))
    assert found == last
