"""The run directory: it appears whole or not at all, belongs to one process, and reads back."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from descend import StorageError, record

CONFIG = {"run": {"kind": "fit", "seed": 0, "none": None}, "choices": [{"what": "x", "value": 1, "why": "y"}]}


def begin(directory: Path) -> None:
    (directory / "step-00000000").mkdir()


def made(path: Path) -> record.RunDirectory:
    return record.RunDirectory.create(path, CONFIG, {"name": "d"}, begin)


def test_round_trip(tmp_path: Path) -> None:
    directory = made(tmp_path / "run")
    row = {"step": 1, "epoch": 0.1, "loss": 0.1 + 0.2, "grad_norm": math.inf, "lr": 1e-300}
    directory.append(row)
    directory.append({"step": 2, "loss": math.nan})
    directory.close()
    run = record.read(tmp_path / "run")
    assert run.config["run"] == {"kind": "fit", "seed": 0}
    assert run.data == {"name": "d"}
    assert run.history[0] == row
    assert math.isnan(run.history[1]["loss"])
    assert run.result is None
    assert run.surface is None
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[1], parse_constant=pytest.fail) == {"step": 2, "loss": "NaN"}


def test_an_empty_directory_may_be_used(tmp_path: Path) -> None:
    made(tmp_path).close()
    assert record.read(tmp_path).config["run"]["kind"] == "fit"


def test_a_torn_last_line_is_left_out_and_a_damaged_one_named(tmp_path: Path) -> None:
    made(tmp_path / "run").close()
    history = tmp_path / "run" / "history.jsonl"
    history.write_text('{"step": 1}\n{"st')
    assert record.read(tmp_path / "run").history == [{"step": 1}]
    history.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(StorageError, match="line 2"):
        record.read(tmp_path / "run")


def test_refuses_what_is_there(tmp_path: Path) -> None:
    made(tmp_path / "run").close()
    with pytest.raises(StorageError, match="exists and is a run"):
        record.preflight(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(StorageError, match="not empty"):
        record.preflight(tmp_path / "other")
    with pytest.raises(StorageError, match="no directory"):
        record.preflight(tmp_path / "other" / "file")
    with pytest.raises(StorageError, match="cannot be used"):
        record.preflight(tmp_path / "other" / "file" / "below")
    with pytest.raises(StorageError, match="no such run"):
        record.RunDirectory.reopen(tmp_path / "nothing")
    with pytest.raises(StorageError, match="not a run directory"):
        record.read(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["other", "run"]


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    def full(directory: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="No space left"):
        record.RunDirectory.create(tmp_path / "run", CONFIG, None, full)
    assert os.listdir(tmp_path) == []


def test_a_read_only_place_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(StorageError, match="Read-only"):
        record.preflight(tmp_path / "run")


def test_truncate(tmp_path: Path) -> None:
    directory = made(tmp_path / "run")
    directory.append({"step": 1})
    length = directory.length
    directory.append({"step": 2})
    directory.truncate(length)
    directory.append({"step": 3})
    with pytest.raises(StorageError, match="damaged"):
        directory.truncate(10**6)
    directory.close()
    assert [row["step"] for row in record.read(tmp_path / "run").history] == [1, 3]


def test_one_holder_in_a_process(tmp_path: Path) -> None:
    first = made(tmp_path / "run")
    with pytest.raises(StorageError, match="another descent of this process"):
        record.RunDirectory.reopen(tmp_path / "run")
    first.close()
    record.RunDirectory.reopen(tmp_path / "run").close()
    assert not (tmp_path / "run" / "lock").exists()


HOLD = """
import sys
from pathlib import Path
from descend._lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_holder_among_processes_and_none_after_a_kill(tmp_path: Path) -> None:
    made(tmp_path / "run").close()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(StorageError, match=f"process {other.pid} "):
            record.RunDirectory.reopen(tmp_path / "run")
    finally:
        other.kill()
        other.communicate()
    assert (tmp_path / "run" / "lock").exists()
    record.RunDirectory.reopen(tmp_path / "run").close()


def test_write_aside_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    record.write_aside(path, b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="free some room"):
        record.write_aside(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_fresh_counts(tmp_path: Path) -> None:
    assert record.fresh(tmp_path, "a").name == "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert record.fresh(tmp_path, "a").name == "a-3"


def test_a_lock_on_a_file_that_was_removed_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from descend import _lock

    taken, take = [], _lock._take

    def slow(file: object) -> bool:
        found = take(file)  # type: ignore[arg-type]
        if not taken:
            # Between our opening and our locking its former holder releases it, and another one takes it.
            (tmp_path / "lock").unlink()
            (tmp_path / "lock").touch()
        taken.append(found)
        return found

    monkeypatch.setattr(_lock, "_take", slow)
    lock = _lock.Lock(tmp_path)
    assert taken == [True, True]
    assert (tmp_path / "lock").exists()
    lock.release()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from descend import _lock

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(_lock.fcntl, "lockf", refuse)
    with pytest.raises(StorageError, match="cannot be locked"):
        made(tmp_path / "run")
