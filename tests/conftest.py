"""What every test starts from: one thread a process, and torch as it comes."""

import os
from collections.abc import Iterator

# Two processes with two threads each stand still waiting for one another; who needs threads asks for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def torch_as_it_comes() -> Iterator[None]:
    """A program that a test runs may set torch's defaults; the next test must not see it."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
