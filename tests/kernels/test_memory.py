"""Where states lie: in large pages, apart from each other in their last bits, and all else as in torch."""

import pickle
import sys
import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import descend
from descend.kernels.memory import APART, LARGE, empty_beside

MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LINE = 64


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


def resident():
    """Bytes of this process's memory that have a place in the machine's."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def nearest(tensors):
    """How many bytes lie between the last twelve bits of any two addresses, at least."""
    found = sorted(x.data_ptr() % 4096 for x in tensors)
    return min((b - a) % 4096 for a, b in zip(found, [*found[1:], found[0] + 4096], strict=True))


def stepped(p, steps=1, **given):
    p.grad = torch.ones_like(p)
    optimizer = descend.AdamW([p], **given)
    for _ in range(steps):
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.complex128], ids=str
)
@pytest.mark.parametrize("count", [0, 3, APART // 2, LARGE // 2 + 100_001])
def test_a_tensor_is_as_torch_would_make_it(dtype, count):
    p = torch.ones(count, dtype=dtype)
    x = empty_beside(p, 1)
    assert (x.shape, x.dtype, x.stride()) == (p.shape, p.dtype, p.stride())
    assert x.data_ptr() % x.itemsize == 0
    assert torch.equal(x.fill_(2.0), torch.full((count,), 2.0, dtype=dtype))
    assert torch.equal(p, torch.ones(count, dtype=dtype))
    assert (x.storage_offset(), x.untyped_storage().nbytes()) == (0, count * dtype.itemsize)


@pytest.mark.parametrize(
    "p",
    [
        torch.empty(8, 16, 32, 32).to(memory_format=torch.channels_last),
        torch.empty(512, 256).t(),
        torch.empty(512, 256)[:, ::2],
    ],
    ids=["channels last", "transposed", "with gaps"],
)
def test_its_strides_are_those_that_torch_gives(p):
    x = empty_beside(p, 0)
    assert x.data_ptr() % 4096 == (p.data_ptr() + 32 * LINE) % 4096
    assert x.stride() == torch.empty_like(p).stride()


def test_a_state_of_wider_numbers_than_its_parameters_begins_where_it_may():
    p = torch.zeros(APART + 1, dtype=torch.bfloat16)[1:]
    x = empty_beside(p, 0, torch.float32)
    assert x.data_ptr() % 4 == 0
    assert (x.data_ptr() - p.data_ptr()) % 4096 == 32 * LINE - 2


@pytest.mark.parametrize("size", [APART // 4, 300_001, LARGE])
def test_states_lie_apart_from_their_parameter_and_from_each_other(size):
    p = torch.nn.Parameter(torch.zeros(size))
    optimizer = stepped(p, amsgrad=True)
    states = [x for x in optimizer.state[p].values() if x.numel() > 1]
    assert len(states) == 3
    assert nearest([p, *states]) == 16 * LINE


def test_eight_that_lie_together_are_eight_lines_apart():
    p = torch.empty(APART)
    assert nearest([p, *(empty_beside(p, k) for k in range(7))]) == 8 * LINE


def test_states_that_are_loaded_lie_apart_too():
    p, q = (torch.nn.Parameter(torch.zeros(APART)) for _ in range(2))
    saved = stepped(p).state_dict()
    together = torch.empty(2 * APART)
    for k, key in enumerate(("exp_avg", "exp_avg_sq")):
        part = together[k * APART : (k + 1) * APART]
        saved["state"][0][key] = part.copy_(saved["state"][0][key])
    optimizer = descend.AdamW([q])
    optimizer.load_state_dict(deepcopy(saved))
    state = optimizer.state[q]
    assert nearest([q, state["exp_avg"], state["exp_avg_sq"]]) == 16 * LINE
    assert torch.equal(state["exp_avg"], torch.full((APART,), 0.1))


def test_a_state_dict_survives_a_file(tmp_path):
    p = torch.nn.Parameter(torch.linspace(-1, 1, 3 * APART).view(3, APART))
    optimizer = stepped(p, steps=3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    found = torch.load(tmp_path / "state.pt", weights_only=True)["state"][0]
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(found[key], optimizer.state[p][key])
        assert found[key].is_contiguous()


def test_states_go_where_those_of_torch_go():
    """A storage of their own in other processes' memory, in copies and in pickles."""
    p = torch.nn.Parameter(torch.zeros(3, APART))
    optimizer = stepped(p)
    for other in (deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        (q,) = other.param_groups[0]["params"]
        q.grad = torch.ones_like(q)
        other.step()
        assert torch.allclose(other.state[q]["exp_avg"], torch.tensor(0.19))
    m = optimizer.state[p]["exp_avg"].share_memory_()
    assert m.is_shared()
    optimizer.step()
    assert torch.allclose(m, torch.tensor(0.19))


def test_a_device_that_is_the_default_elsewhere_changes_nothing():
    p, q = (torch.nn.Parameter(torch.zeros(APART)) for _ in range(2))
    with torch.device("meta"):
        optimizer = stepped(p)
        optimizer.step()
        loaded = descend.AdamW([q])
        loaded.load_state_dict(optimizer.state_dict())
    for one, owner in ((optimizer, p), (loaded, q)):
        assert {x.device.type for x in one.state[owner].values()} == {"cpu"}
        assert torch.equal(one.state[owner]["exp_avg"], torch.full((APART,), 0.19))


def test_what_stands_in_for_tensors_gives_a_tensor_of_its_own_kind():
    p = torch.zeros(APART)
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(empty_beside(p, 0), FakeTensor)


@pytest.mark.parametrize("size", [LARGE // 4, 5 * LARGE // 4])
def test_states_of_a_large_parameter_begin_with_a_large_page(size):
    p = torch.nn.Parameter(torch.zeros(size))
    m = stepped(p).state[p]["exp_avg"]
    assert torch.equal(m, torch.full_like(m, 0.1))
    assert m.data_ptr() % LARGE < 4096
    if sys.platform.startswith("linux") and MODES.exists():
        assert "hg" in flags(m.data_ptr())
        assert "hg" in flags(m.data_ptr() + 4 * size - 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /proc/self/statm")
@pytest.mark.parametrize("size", [APART, 3 * LARGE // 8])
def test_in_all_memory_a_state_takes_what_it_needs(size):
    """The rest of the room for its place is never written to."""
    p = torch.zeros(size)
    before = resident()
    kept = [empty_beside(p, k % 7).fill_(1.0) for k in range(40)]
    assert resident() - before < 1.1 * sum(x.nbytes for x in kept) + (1 << 20)
