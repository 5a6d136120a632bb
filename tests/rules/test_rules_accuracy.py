"""Every rule is at least as exact as the best of torch's paths, measured against the reference."""

from __future__ import annotations

import pytest
import torch
from rule_checks import DTYPES, check_run_accuracy, check_step_accuracy
from rule_lines import WITH_TORCH, Line

by_name = pytest.mark.parametrize("line", WITH_TORCH, ids=lambda line: line.name)


@by_name
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_error_of_a_step_is_no_larger_than_torch_s(line: Line, dtype: torch.dtype) -> None:
    check_step_accuracy(line, dtype, n=10_000, steps=10)


@by_name
def test_the_error_after_100_steps_on_100000_elements_is_no_larger_than_torch_s(line: Line) -> None:
    check_run_accuracy(line, torch.float32, n=100_000, steps=100)


@by_name
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_the_error_after_100_steps_in_the_other_dtypes(line: Line, dtype: torch.dtype) -> None:
    check_run_accuracy(line, dtype, n=5_000, steps=100)
