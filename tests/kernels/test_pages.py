"""Large pages: asked for where there are any, and of no consequence for the numbers."""

import sys
from pathlib import Path

import pytest
import torch

import descend
from descend.kernels.pages import LEAST, in_large_pages

MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def flags(address):
    """The flags of the part of this process's memory that an address lies in."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds = line.split(maxsplit=1)[0].split("-")
        if len(bounds) == 2 and not line.startswith("VmFlags"):
            inside = int(bounds[0], 16) <= address < int(bounds[1], 16)
        elif inside and line.startswith("VmFlags"):
            return line.split()[1:]
    raise AssertionError(address)


@pytest.mark.parametrize("count", [0, 3, LEAST // 4, LEAST // 4 + 100_001])
def test_a_tensor_stays_what_it_is(count):
    x = torch.empty(count)
    assert in_large_pages(x) is x
    assert torch.equal(x.fill_(2.0), torch.full((count,), 2.0))


def test_states_of_a_large_parameter_lie_in_large_pages():
    p = torch.nn.Parameter(torch.zeros(5 * LEAST // 4))
    p.grad = torch.ones_like(p)
    optimizer = descend.Adam([p])
    optimizer.step()
    m = optimizer.state[p]["exp_avg"]
    assert torch.equal(m, torch.full_like(m, 0.1))
    if sys.platform.startswith("linux") and MODES.exists():
        assert "hg" in flags(m.data_ptr() + LEAST)
