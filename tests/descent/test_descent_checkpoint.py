"""Checkpoints: state to the bit, faults between every two of the writes, damage found and named."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from descend import StorageError, UsageError
from descend.descent import checkpoint
from descend.descent.state import pack, random_state, same, set_random_state, unpack


def tree(step: int = 0) -> dict:
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(3, 4, generator=generator)
    return {
        "step": step,
        "tied": [weight, weight],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "transposed": weight.T,
        "slice": torch.arange(10)[3:5],
        "empty": torch.zeros(0),
        "scalar": torch.tensor(float("nan")),
        "bf16": weight.bfloat16(),
        "numbers": [
            0.1 + 0.2,
            float("inf"),
            -0.0,
            float("nan"),
            2**80,
            True,
            None,
            np.float64(0.1),
            np.int64(3),
        ],
        "betas": (0.9, 0.999),
        "state": {0: {"exp_avg": weight * 2}, 1: {}},
        "milestones": Counter({3: 1, 5: 2}),
        "ordered": OrderedDict(a=1),
        "dtype": torch.float64,
        "$": "a key of ours",
    }


def test_state_round_trips_to_the_bit() -> None:
    before = tree()
    packed, tensors = pack(before)
    after = unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors)
    assert same(before, after)
    assert after["channels_last"].stride() == before["channels_last"].stride()
    assert isinstance(after["betas"], tuple)
    assert isinstance(after["milestones"], Counter)
    assert after["state"].keys() == {0, 1}
    assert all(part.data_ptr() % 64 == 0 for part in after["state"][0].values())


def test_same_sees_one_bit() -> None:
    before, after = tree(), tree()
    after["channels_last"] = before["channels_last"]
    assert same(before, after)
    after["betas"] = (0.9, 0.9990000000000001)
    assert not same(before, after)
    after["betas"] = before["betas"]
    after["bf16"] = before["bf16"].clone()
    after["bf16"][0, 0] = -after["bf16"][0, 0]
    assert not same(before, after)


def test_what_cannot_be_kept_is_named() -> None:
    with pytest.raises(UsageError, match="optimizer/state/hook is a function"):
        pack({"optimizer": {"state": {"hook": tree}}})


def test_random_state_round_trips() -> None:
    import random

    held = random_state()
    drawn = torch.rand(3), np.random.rand(3), random.random(), random.gauss(0, 1), np.random.normal()
    set_random_state(held)
    again = torch.rand(3), np.random.rand(3), random.random(), random.gauss(0, 1), np.random.normal()
    set_random_state(held)
    assert torch.equal(drawn[0], again[0])
    assert (drawn[1] == again[1]).all()
    assert drawn[2:] == again[2:]


def test_keeps_the_last_two(tmp_path: Path) -> None:
    for step in (0, 5, 10):
        checkpoint.save(tmp_path, step, {"step": step})
    assert sorted(os.listdir(tmp_path)) == ["step-00000005", "step-00000010"]
    step, found, damaged = checkpoint.load(tmp_path)
    assert (step, found, damaged) == (10, {"step": 10}, [])


def fault_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> list[str]:
    """Raises before the call with this number among those that a save makes; the calls that were made."""
    calls: list[str] = []

    def guard(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: object, **kwargs: object) -> object:
            if len(calls) == number:
                calls.append("fault")
                raise error
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in (
        (checkpoint, "write_synced"),
        (os, "fsync"),
        (os, "rename"),
        (shutil, "rmtree"),
        (checkpoint, "sync_directory"),
    ):
        guard(owner, name)
    return calls


def calls_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    for step in (0, 5):
        checkpoint.save(tmp_path / "count", step, {"step": step})
    with monkeypatch.context() as patch:
        calls = fault_at(patch, -1, RuntimeError())
        checkpoint.save(tmp_path / "count", 10, {"step": 10})
    return len(calls)


class Killed(BaseException):
    """Nothing of ours catches it: like a kill, but the test goes on."""


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), Killed()], ids=["full", "kill"]
)
def test_a_fault_at_every_point_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error) -> None:
    (tmp_path / "count").mkdir()
    number = calls_of_a_save(tmp_path, monkeypatch)
    assert number >= 11  # 3 writes with a sync each, the directory, the rename, its directory, the removal
    for point in range(number):
        directory = tmp_path / str(point)
        directory.mkdir()
        for step in (0, 5):
            checkpoint.save(directory, step, {"step": step, "w": torch.full((50,), float(step))})
        with monkeypatch.context() as patch:
            fault_at(patch, point, error)
            with pytest.raises((StorageError, Killed)):
                checkpoint.save(directory, 10, {"step": 10, "w": torch.full((50,), 10.0)})
        checkpoint.clean(directory)
        for path in checkpoint.steps(directory):
            checkpoint._read(path)  # none is torn
        step, found, damaged = checkpoint.load(directory)
        assert step in (5, 10)
        assert damaged == []
        assert same(found, {"step": step, "w": torch.full((50,), float(step))})
        checkpoint.save(directory, 15, {"step": 15})
        assert len(checkpoint.steps(directory)) == 2
        assert not [name for name in os.listdir(directory) if name.startswith(".")]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "emptied":
        content = bytearray()
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["missing", "truncated", "emptied", "flipped"])
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "state.safetensors"])
def test_a_damaged_one_is_named_and_the_one_before_used(tmp_path: Path, name: str, how: str) -> None:
    for step in (5, 10):
        checkpoint.save(tmp_path, step, {"step": step, "w": torch.ones(8)})
    damage(tmp_path / "step-00000010" / name, how)
    step, found, damaged = checkpoint.load(tmp_path)
    assert (step, found["step"]) == (5, 5)
    assert len(damaged) == 1
    assert "step-00000010 is damaged" in damaged[0]
    assert os.listdir(tmp_path) == ["step-00000005"]


def test_a_change_that_still_reads_is_found_by_its_hash(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, {"step": step, "w": torch.ones(8)}, keep=3)
    numbers = tmp_path / "step-00000015" / "state.json"
    numbers.write_bytes(numbers.read_bytes().replace(b"15", b"16"))
    tensors = tmp_path / "step-00000010" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"A")
    step, found, damaged = checkpoint.load(tmp_path)
    assert (step, found["step"], len(damaged)) == (5, 5, 2)
    assert all("does not match its hash" in notice for notice in damaged)


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 5, {"step": 5})
    manifest = tmp_path / "step-00000005" / "manifest.json"
    content = manifest.read_bytes()
    for place in range(len(content)):
        if content[place : place + 1].isspace():
            continue
        flipped = bytearray(content)
        flipped[place] ^= 1
        manifest.write_bytes(bytes(flipped))
        with pytest.raises(StorageError, match="no sound checkpoint"):
            checkpoint.load(tmp_path)


def test_none_left_is_an_error_that_names_each(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no checkpoint"):
        checkpoint.load(tmp_path)
    for step in (5, 10):
        checkpoint.save(tmp_path, step, {"step": step})
        damage(tmp_path / f"step-{step:08d}" / "manifest.json", "missing")
    with pytest.raises(StorageError, match=r"step-00000010: manifest.*step-00000005: manifest"):
        checkpoint.load(tmp_path)
    assert len(checkpoint.steps(tmp_path)) == 2  # left for a look


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    import pickle

    checkpoint.save(tmp_path, 5, {"step": 5})

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    folder = tmp_path / "step-00000005"
    contents = {name: pickle.dumps(Bomb()) for name in ("state.safetensors", "state.json")}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(checkpoint._manifest(5, contents))
    with pytest.raises(StorageError, match="no sound checkpoint"):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (25, "25 steps"),
        ("25", "25 steps"),
        ("1 step", "1 steps"),
        ("2 epochs", "2 epochs"),
        ("5 min", "300 seconds"),
        ("30 s", "30 seconds"),
        ("1.5 minutes", "90 seconds"),
        ("2h", "7200 seconds"),
    ],
)
def test_every(given: int | str, text: str) -> None:
    assert str(checkpoint.every(given)) == text


@pytest.mark.parametrize("given", [0, -1, "often", "2 fortnights", "1.5 epochs", True, "0 min"])
def test_every_refuses(given: object) -> None:
    with pytest.raises(UsageError, match="checkpoint every"):
        checkpoint.every(given)  # type: ignore[arg-type]
