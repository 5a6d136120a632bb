"""A run that ends at any point and is resumed becomes the uninterrupted one, to the bit."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import KINDS, Noisy, again, begin, jitter, tensors
from torch import nn

from descend import DataError, StorageError, UsageError, fit, record
from descend import data as loading
from descend.descent import Minimum, Result, checkpoint, prepare, resume, run

VARYING = ("seconds", "resumed", "resumes")


def outcome(directory: Path) -> dict[str, object]:
    """Everything of an ended run that must not depend on how often it was resumed."""
    files = ("final.safetensors", "best.safetensors", "history.jsonl", "surface.json", "config.toml")
    found: dict[str, object] = {
        name: (directory / name).read_bytes() for name in files if (directory / name).exists()
    }
    result = json.loads((directory / "result.json").read_text())
    return {**found, "result": {key: value for key, value in result.items() if key not in VARYING}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind of run, uninterrupted."""
    root = tmp_path_factory.mktemp("whole")
    for kind in KINDS:
        run(begin(kind, root / kind))
    return {kind: root / kind for kind in KINDS}


def stopped_at(kind: str, directory: Path, step: int) -> None:
    """A run that ends as by a kill once `step` steps are done."""
    descent = begin(kind, directory)
    events = iter(descent)
    for event in events:
        if event.step >= step:
            break
    events.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_to_the_bit(kind: str, whole: dict[str, Path], tmp_path: Path) -> None:
    stopped_at(kind, tmp_path / "run", 133)
    resume(tmp_path / "run", **again(kind))
    assert outcome(tmp_path / "run") == outcome(whole[kind])
    resumes = json.loads((tmp_path / "run" / "result.json").read_text())["resumes"]
    assert resumes == [{"step": 125, "exact": True, "why": [], "damaged": []}]


def test_resumed_many_times_and_from_the_start(whole: dict[str, Path], tmp_path: Path) -> None:
    stopped_at("plateau", tmp_path / "run", 10)
    for until in (30, 31, 170, 250):
        for event in _resumed(tmp_path / "run", "plateau"):
            if event.step >= until:
                break
    resume(tmp_path / "run", **again("plateau"))
    assert outcome(tmp_path / "run") == outcome(whole["plateau"])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["resumed"] == 5


def _resumed(directory: Path, kind: str):
    """The events of a resume, which may be left early."""
    held = record.RunDirectory.reopen(directory)
    descent = begin(kind, None)
    descent.resume(held)
    return iter(descent)


def test_a_resume_is_not_fooled_by_a_stream_that_starts_elsewhere(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checker itself: a resume that forgets one part of the state is seen."""
    for part in ("random", "optimizer", "best"):
        stopped_at("momentum", tmp_path / part, 133)
        path = checkpoint.steps(tmp_path / part / "checkpoints")[-1]
        step, tree, _ = checkpoint.load(path.parent)
        _, first, _ = _first(whole["momentum"], tmp_path / f"{part}-first")
        tree[part] = first[part]
        checkpoint.save(path.parent, step, tree)
        resume(tmp_path / part, **again("momentum"))
        changed = outcome(tmp_path / part)
        assert changed != outcome(whole["momentum"]), part


def _first(whole: Path, directory: Path) -> tuple[int, dict, list[str]]:
    stopped_at("momentum", directory, 1)
    return checkpoint.load(directory / "checkpoints")


def test_the_newest_damaged_the_older_used(whole: dict[str, Path], tmp_path: Path) -> None:
    stopped_at("momentum", tmp_path / "run", 133)
    newest = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    (newest / "state.json").write_bytes(b"{}")
    (tmp_path / "run" / "checkpoints" / ".step-00000150.new").mkdir()
    result = resume(tmp_path / "run", **again("momentum"))
    assert isinstance(result, Result)
    assert result.resumes[0]["step"] == 100
    assert result.resumes[0]["exact"] is True
    assert "step-00000125 is damaged" in result.resumes[0]["damaged"][0]
    assert outcome(tmp_path / "run") == outcome(whole["momentum"])
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_no_sound_checkpoint_is_an_error_never_a_restart(tmp_path: Path) -> None:
    stopped_at("momentum", tmp_path / "run", 60)
    before = (tmp_path / "run" / "history.jsonl").read_bytes()
    for path in checkpoint.steps(tmp_path / "run" / "checkpoints"):
        (path / "manifest.json").unlink()
    with pytest.raises(StorageError, match="no sound checkpoint"):
        resume(tmp_path / "run", **again("momentum"))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(StorageError, match="holds no checkpoint"):
        resume(tmp_path / "run", **again("momentum"))
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == before
    assert not (tmp_path / "run" / "lock").exists()


def test_a_full_disk_loses_nothing(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = checkpoint.write_synced

    def full(path: Path, content: bytes) -> None:
        if "step-00000150" in str(path) and path.name == "state.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_synced", full)
        with pytest.raises(StorageError, match="resume the run") as caught:
            run(begin("momentum", tmp_path / "run"))
    assert caught.value.exit_code == 5
    resume(tmp_path / "run", **again("momentum"))
    assert outcome(tmp_path / "run") == outcome(whole["momentum"])


def test_a_disk_full_of_history(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, rows = record.RunDirectory.append, 0

    def full(self: record.RunDirectory, row: dict) -> None:
        nonlocal rows
        rows += 1
        if rows == 60:
            self._history.write(b'{"step": 17')  # a torn line, as a full disk leaves one
            self._history.flush()
            with record.storing(self.path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(record.RunDirectory, "append", full)
        with pytest.raises(StorageError, match="free some room"):
            run(begin("momentum", tmp_path / "run"))
    resume(tmp_path / "run", **again("momentum"))
    assert outcome(tmp_path / "run") == outcome(whole["momentum"])


def test_an_ended_run_is_returned_as_it_ended(whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["momentum"], tmp_path / "run")
    before = outcome(tmp_path / "run")
    result = resume(tmp_path / "run", **again("momentum"))
    assert isinstance(result, Result)
    assert result.reason == "epoch_limit"
    assert result.resumed == 0
    assert outcome(tmp_path / "run") == before
    assert len(result.history) == len(record.read(tmp_path / "run").history)


def test_an_ended_minimum_is_returned_as_it_ended(whole: dict[str, Path]) -> None:
    before = record.read(whole["function"])
    found = resume(whole["function"])
    assert isinstance(found, Minimum)
    assert before.result is not None
    assert (found.reason, found.value) == ("step_limit", before.result["loss"])
    assert isinstance(found.point, torch.Tensor)
    assert found.point.tolist() == found.path[-1]["x"]


def test_from_names_alone(tmp_path: Path) -> None:
    options = {"epochs": 6, "lr": 0.05, "batch": 32, "checkpoint_every": 5, "schedule": "cosine", "seed": 4}
    fit("mlp", "iris", out=tmp_path / "a", model_options={"hidden": 8}, **options)
    descent = prepare("mlp", "iris", out=tmp_path / "b", model_options={"hidden": 8}, **options)
    for event in descent:
        if event.step >= 12:
            break
    del event, descent
    result = resume(tmp_path / "b")
    assert isinstance(result, Result)
    assert outcome(tmp_path / "b") == outcome(tmp_path / "a")


def test_a_resume_of_changed_data_is_refused(tmp_path: Path) -> None:
    stopped_at("momentum", tmp_path / "run", 30)
    x, y = tensors()
    x[17, 3] += 1e-6
    changed = loading.load((x, y), transform=jitter)
    with pytest.raises(DataError, match="data have changed"):
        resume(tmp_path / "run", model=Noisy(), data=changed)


def test_what_was_an_object_is_asked_for(tmp_path: Path) -> None:
    stopped_at("loader", tmp_path / "run", 30)
    parts = again("loader")
    for missing in ("model", "data", "schedule"):
        with pytest.raises(UsageError, match=f"{missing}=..."):
            resume(tmp_path / "run", **{key: value for key, value in parts.items() if key != missing})
    with pytest.raises(UsageError, match="not of this model"):
        resume(tmp_path / "run", **{**parts, "model": nn.Linear(6, 3)})


def test_another_environment_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_at("momentum", tmp_path / "run", 30)
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    notices = []
    result = resume(
        tmp_path / "run",
        **again("momentum"),
        listener=lambda event: notices.append(event.message) if event.kind == "notice" else None,
    )
    assert isinstance(result, Result)
    assert result.resumes[0]["exact"] is False
    assert any("not exact: torch was" in notice and "is 2.99.0" in notice for notice in notices)


def test_the_random_state_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    run(begin("plateau", None))
    stopped_at("momentum", tmp_path / "run", 30)
    resume(tmp_path / "run", **again("momentum"))
    assert torch.equal(torch.rand(2), expected)


def test_a_second_descent_on_the_same_run_is_refused(tmp_path: Path) -> None:
    descent = begin("momentum", tmp_path / "run")
    events = iter(descent)
    next(events)
    with pytest.raises(StorageError, match="another descent"):
        resume(tmp_path / "run", **again("momentum"))
    events.close()  # type: ignore[attr-defined]
