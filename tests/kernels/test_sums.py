"""Sums of squares of float32, as exact where a few are too large or small for it; zeros and ones, counted."""

import math

import numpy as np
import pytest
import torch

from descend.formula import rule_of, stage
from descend.formula.vocabulary import abs, max, mean, sum, where
from descend.kernels import cpu

SIZES = (1, 16, 63, 64, 65, 127, 1000, 32_768, 100_003)


def squares(p, g):
    p = p - sum(g**2)
    return p


def squares_of_the_new(p, g, m):
    m = m - g
    p = p - sum(m**2)
    return p, m


def squares_of_a_part(p, g, m):
    m = m - g
    p = p - sum((3 * m) ** 2)
    return p, m


def rows(p, g):
    p = p - sum(g**2, "rows")
    return p


def columns(p, g):
    p = p - sum(g**2, "columns")
    return p


def columns_of_the_new(p, g, m):
    m = m - g
    p = p - sum(m**2, "columns")
    return p, m


def columns_of_the_old(p, g, m):
    p = p - sum(m**2, "columns")
    m = m - g
    return p, m


def mean_of_columns(p, g):
    p = p - mean(g**2, "columns")
    return p


def summed(rule, *operands):
    """What the first pass of a rule sums up over each of some matrices."""
    program = stage(rule_of(rule))
    kernel = cpu.kernel(program, tuple(cpu.storage_name(x.dtype) for x in operands))
    size = operands[0].numel()
    shape = [tuple(operands[0].shape)] if operands[0].dim() == 2 else []
    table = cpu.Table(kernel, [size], shape)
    addresses = np.array([[x.data_ptr() for x in operands]], np.int64)
    table.bind(addresses, kernel.rows(1), np.zeros(1, np.int64))
    return table.launch_pass(0)[0].item()


def exact(x):
    return math.fsum(float(value) ** 2 for value in x.double().flatten().tolist())


def drawn(size, scale=1.0):
    return torch.randn(size, generator=torch.Generator().manual_seed(size)) * scale


@pytest.mark.parametrize("size", SIZES)
def test_a_sum_of_squares_is_off_by_less_than_one_rounding_of_float32(size):
    g = drawn(size)
    assert summed(squares, g.clone(), g) == pytest.approx(exact(g), rel=2.0**-24, abs=0)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-22, 1e-15, 1e18, 1e19, 1e25, 1e37])
@pytest.mark.parametrize("size", [64, 1000])
def test_squares_that_float32_would_lose_are_kept(size, scale):
    g = drawn(size, scale)
    assert summed(squares, g.clone(), g) == pytest.approx(exact(g), rel=2.0**-22, abs=0)


@pytest.mark.parametrize("place", [0, 20, 40, 63])
@pytest.mark.parametrize("number", [3e38, 1e20, 1e-20, 1e-40, 0.0])
def test_one_number_among_usual_ones_of_another_size(number, place):
    g = torch.full((64,), 1e-15 if number < 1 else 1.0)
    g[place] = number
    g[(place + 16) % 64] = number
    assert summed(squares, g.clone(), g) == pytest.approx(exact(g), rel=2.0**-22, abs=0)


def test_where_float32_stops_adding():
    for power in (-49, -48.5, -48, -47, 61, 62, 62.5, 63, 63.5):
        g = torch.full((64,), 2.0**power)
        assert summed(squares, g.clone(), g) == pytest.approx(exact(g), rel=2.0**-22, abs=0)


def test_zeros_sum_to_zero_and_no_number_stays_none():
    g = torch.zeros(1000)
    assert summed(squares, g.clone(), g) == 0
    g[500] = float("inf")
    assert summed(squares, g.clone(), g) == float("inf")
    g[3] = float("nan")
    assert np.isnan(summed(squares, g.clone(), g))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
def test_of_a_value_that_its_own_pass_writes(scale):
    g, m = drawn(1000, scale), torch.zeros(1000)
    wanted = exact(m - g)
    assert summed(squares_of_the_new, g.clone(), g, m) == pytest.approx(wanted, rel=2.0**-22, abs=0)
    assert torch.equal(m, -g)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
@pytest.mark.parametrize("size", [511, 512, 3000, 100_003])
def test_of_a_value_that_nothing_but_the_sum_asks_for(size, scale):
    g, m = drawn(size, scale), torch.zeros(size)
    wanted = exact(3 * (m - g))
    assert summed(squares_of_a_part, g.clone(), g, m) == pytest.approx(wanted, rel=2.0**-22, abs=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(dtype):
    g = drawn(1000).to(dtype)
    assert summed(squares, g.clone(), g) == pytest.approx(exact(g), rel=2.0**-22, abs=0)


def test_float64_adds_every_square_alone():
    g = drawn(1000).double() * 1e-170
    assert summed(squares, g.clone(), g) == pytest.approx(exact(g), rel=1e-14, abs=0)


def stepped(rule, *operands):
    program = stage(rule_of(rule))
    kernel = cpu.kernel(program, tuple(cpu.storage_name(x.dtype) for x in operands))
    table = cpu.Table(kernel, [operands[0].numel()], [tuple(operands[0].shape)])
    addresses = np.array([[x.data_ptr() for x in operands]], np.int64)
    table.bind(addresses, kernel.rows(1), np.zeros(1, np.int64))
    table.launch()


def ones(p, g):
    p = p - sum(where(g > 0, 1, 0))
    return p


def ones_elsewhere(p, g):
    p = p - sum(where(g > 0, 0, 1))
    return p


def ones_of_a_row(p, g):
    p = p - mean(where(g > 0, 1, 0), "rows") - sum(where(g > 0, 0, 1), "rows")
    return p


def twos(p, g):
    p = p - sum(where(g > 0, 1, 2))
    return p


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_zeros_and_ones_are_counted(size, dtype):
    g = drawn(size).to(dtype)
    g[::7] = math.nan
    g[::5] = 0
    number = int((g > 0).sum())
    assert summed(ones, g.clone(), g) == number
    assert summed(ones_elsewhere, g.clone(), g) == size - number
    assert summed(twos, g.clone(), g) == 2 * size - number


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 64), (5, 1000), (2, 40_000)])
def test_those_of_every_row_too(shape):
    p, g = torch.zeros(shape), drawn(math.prod(shape)).reshape(shape)
    stepped(ones_of_a_row, p, g)
    number = (g > 0).double().sum(1, keepdim=True)
    wanted = -(number / shape[1]).float() - (shape[1] - number).float()
    assert torch.equal(p, wanted.expand(shape))


def largest_square(p, g):
    p = p - max(g**2) * g - max(abs(g))
    return p


def test_the_largest_square_is_formed_in_float64_and_the_largest_number_is_one_of_them():
    g = drawn(1000, 1e25)
    g[77] = 3e38
    assert summed(largest_square, g.clone(), g) == float(g[77].double() ** 2)
    g[5] = float("nan")
    assert np.isnan(summed(largest_square, g.clone(), g))


def by_row(matrix):
    return torch.tensor([exact(row) for row in matrix], dtype=torch.float64)


def close(found, wanted):
    assert wanted.min() > 0
    return torch.allclose(found.double(), wanted.expand_as(found), rtol=2.0**-22, atol=2.0**-149)


SHAPES = [(1, 64), (7, 64), (8, 100), (50, 3), (50, 700), (90, 16), (200, 1000)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-17])
def test_by_row_and_by_column(shape, scale):
    g = drawn(shape[0] * shape[1], scale).reshape(shape)
    p = torch.zeros(shape)
    stepped(rows, p, g)
    assert close(-p, by_row(g)[:, None])
    p = torch.zeros(shape)
    stepped(columns, p, g)
    assert close(-p, by_row(g.T))


@pytest.mark.parametrize("number", [1e18, 1e-16, 1e-19, 0.0])
@pytest.mark.parametrize("row", [0, 7, 8, 30])
def test_columns_of_another_size_than_their_neighbours(row, number):
    g = drawn(33 * 80).reshape(33, 80)
    g[:, 3:40:5] *= number or 1
    g[row, 50] = number
    p = torch.zeros(g.shape)
    stepped(columns, p, g)
    assert close(-p, by_row(g.T))


def test_columns_whose_squares_float32_cannot_add():
    g = torch.full((16, 64), 1.0)
    g[:, 20] = 1e19
    g[3, 30] = 1.5e19
    p = torch.zeros(g.shape)
    stepped(mean_of_columns, p, g)
    assert close(-p, by_row(g.T) / 16)


def test_half_types_by_column():
    g = drawn(40 * 64).reshape(40, 64).bfloat16()
    g[:, 5] *= 1e-17
    p = torch.zeros(g.shape)
    stepped(columns, p, g)
    assert close(-p, by_row(g.T))


@pytest.mark.parametrize("rule", [columns_of_the_new, columns_of_the_old], ids=lambda r: r.__name__)
def test_columns_of_what_its_own_pass_writes(rule):
    g, m, p = drawn(40 * 64).reshape(40, 64), torch.ones(40, 64), torch.zeros(40, 64)
    m[:, 5], g[:, 6] = 1e-20, 1 - 1e-7
    new = m - g
    wanted = by_row((new if rule is columns_of_the_new else m).T)
    stepped(rule, p, g, m)
    assert close(-p, wanted)
    assert torch.equal(m, new)


@pytest.mark.parametrize("power", [-48, -50, -56, -62])
def test_squares_below_the_normal_numbers_count_where_those_are_taken_for_zeros(power):
    g = torch.full((64,), 2.0**-63.5)
    g[:16] = 2.0**power
    assert torch.set_flush_denormal(True)
    try:
        found = summed(squares, g.clone(), g)
    finally:
        torch.set_flush_denormal(False)
    assert found == pytest.approx(exact(g), rel=2.0**-22, abs=0)
