"""Passes that only sum squares: by row, by column and over the tensor, in tiles of eight rows."""

import numpy as np
import pytest
import torch

from descend.formula import State, rule_of, stage
from descend.formula.nodes import scope
from descend.formula.vocabulary import abs, mean, sqrt, sum
from descend.kernels import cpu
from descend.kernels.cpu.driver import Driver
from descend.kernels.cpu.tiles import BLOCK, PAGE

SHAPES = [
    *((1, 64), (7, 64), (8, 8), (8, 64), (9, 65), (40, 3), (3, 2000), (0, 5), (5, 0)),
    *((BLOCK, 100), (BLOCK + 1, 129), (2 * BLOCK + 9, 1030), (200, PAGE // 4 + 8), (300, 1000)),
]


def all_three(p, g, r=State(shape="rows"), c=State(shape="columns")):
    r = sum(g**2, "rows")
    c = sum(g**2, "columns") + sum(p**2)
    return p, r, c


def weighted(p, g, r=State(shape="rows"), c=State(shape="columns")):
    r = sqrt(mean(g**2, "rows"))
    c = sum((2 * g * abs(r)) ** 2, "columns")
    return p, r, c


def summed(rule, p, g):
    """Its sums by row and by column, and the one over the tensor, in float64; then its state by row."""
    program = stage(rule_of(rule))
    dtype = torch.promote_types(p.dtype, torch.float32)
    operands = [p, g, torch.zeros(len(p), dtype=dtype), torch.zeros(p.shape[1], dtype=dtype)]
    kernel = cpu.kernel(program, tuple(cpu.storage_name(x.dtype) for x in operands))
    table = cpu.Table(kernel, [p.numel()], [tuple(p.shape)])
    table.bind(np.array([[x.data_ptr() for x in operands]], np.int64), kernel.rows(1), np.zeros(1, np.int64))
    found = [table.launch_pass(k) for k in range(len(program.passes))]
    vectors = {scope(n): values for n, values in zip(program.vectors, table._vectors, strict=True)}
    tensor = [value for values in found for value in values]
    return vectors["rows"], vectors["columns"], *tensor, operands[2].double().numpy()


def drawn(shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random), torch.randn(shape, generator=random)


def check(p, g, rtol=2.0**-22):
    """Against NumPy's sums in float64, where no square of a float32 is lost."""
    rows, columns, tensor, _ = summed(all_three, p, g)
    p, g = p.double().numpy(), g.double().numpy()
    for found, wanted in ((rows, (g**2).sum(1)), (columns, (g**2).sum(0)), (tensor[0], (p**2).sum())):
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=0)


def test_such_a_pass_has_no_other_loop():
    for rule, tiles, bodies in ((all_three, 0, [1, 2]), (weighted, 2, [0, 1, 3])):
        program = stage(rule_of(rule))
        text = Driver(program, ("float32",) * len(program.operands), 8).module()
        found = [k for k in range(len(program.passes)) if f"@body{k}(" in text]
        assert found == bodies
        assert f"@tiles{tiles}(" in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_shapes(shape, dtype):
    p, g = drawn(shape)
    check(p.to(dtype), g.to(dtype))


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-17, 1e18, 1e25, 1e37])
def test_squares_that_float32_would_lose(scale):
    p, g = drawn((BLOCK + 11, 137))
    check(p * scale, g * scale)


@pytest.mark.parametrize("number", [0.0, 1e-40, 1e-20, 1e19, 3e38, float("inf"), float("nan")])
@pytest.mark.parametrize("row", [0, 7, 8, BLOCK - 1, BLOCK, BLOCK + 8])
def test_one_row_column_or_element_of_another_size(row, number):
    p, g = drawn((BLOCK + 9, 150))
    p[row, 70] = g[row, 70] = number
    check(p, g)
    p, g = drawn((BLOCK + 9, 150))
    p[row] = g[row] = number
    check(p, g)
    for column in (0, 63, 64, 149):
        p, g = drawn((BLOCK + 9, 150))
        p[:, column] = g[:, column] = number
        check(p, g)


def test_what_is_squared_may_take_numbers_of_its_row():
    p, g = drawn((100, 300))
    g[:, 5] *= 1e-22
    g[17] *= 1e-20
    rows, columns, r = summed(weighted, p, g)
    np.testing.assert_allclose(rows, (g.double() ** 2).mean(1).numpy(), rtol=2.0**-22, atol=0)
    wanted = ((2 * g.double().numpy() * r[:, None]) ** 2).sum(0)
    np.testing.assert_allclose(columns, wanted, rtol=2.0**-21, atol=0)


def test_float64_adds_every_square_alone():
    p, g = (x.double() * 1e-170 for x in drawn((50, 70)))
    check(p, g, rtol=1e-14)
