"""Every rule on both back ends against the float64 reference and torch.optim, a step from equal state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rule_checks import DTYPES, check_agreement, operands, start, ulp
from rule_contenders import Reference
from rule_lines import ELEMENT_FORMS, LINES, MATRIX, REDUCTION, RULES, Line

from descend import rules
from descend.kernels import reference

by_name = pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)


def test_the_table_has_a_line_for_every_rule() -> None:
    assert sorted(line.name for line in RULES + REDUCTION + MATRIX) == rules.built_in()


@by_name
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_step_agrees_with_torch_and_the_reference(line: Line, dtype: torch.dtype, backend: str) -> None:
    check_agreement(line, dtype, backend)


@pytest.mark.parametrize("line", ELEMENT_FORMS, ids=lambda line: line.name)
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_step_of_every_dialect_agrees_with_the_reference(line: Line, backend: str) -> None:
    check_agreement(line, torch.float32, backend)


@by_name
def test_the_tests_own_reference_is_the_package_s(line: Line) -> None:
    p, fresh = start(50, torch.float64)
    exact = Reference(line, p)
    kept = reference.initial_states(line.rule, exact.p, line.values)
    here = exact.p
    for t in range(1, 6):
        g = fresh()
        exact.step(g)
        here, kept = reference.step(line.rule, here, g.numpy(), t, kept, line.values)
    for word, x in operands(exact).items():
        assert np.array_equal(x, here if word == "p" else kept[word])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_ulp_is_the_step_to_the_next_number(dtype: torch.dtype) -> None:
    for value in (1.0, 1.5, 3.0, 1e-3, torch.finfo(dtype).tiny, 0.0):
        x = torch.tensor(value, dtype=dtype)
        up = torch.nextafter(x, torch.tensor(torch.inf, dtype=dtype))
        assert ulp(x.double().numpy(), dtype) == (up.double() - x.double()).item()
