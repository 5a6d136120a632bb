"""The run directory: what was asked, and what happened. Whatever reads a run reads only this.

What was asked is in `config.toml` and `data.json`, what happened in `history.jsonl` and `result.json`. A run
directory appears whole, with its first checkpoint in it, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._lock import Lock
from .errors import StorageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HISTORY = "history.jsonl"
_FLUSHED = 0.5  # seconds that a row may wait before readers see it
_STRICT = json.JSONEncoder(allow_nan=False)
_STALE = 3600.0  # seconds after which an unfinished staging directory belongs to a killed process


@contextlib.contextmanager
def storing(path: Path, doing: str = "written") -> Iterator[None]:
    """Turns an OSError inside into a StorageError that names `path`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        advice = ""
        if error.errno == errno.ENOSPC:
            advice = "; free some room, then resume the run: what it had saved before is intact"
        raise StorageError(f"{path}: cannot be {doing}: {error.strerror or error}{advice}") from error


def sync_directory(path: Path) -> None:
    """Makes the entries of a directory durable, where the system can (Windows cannot and need not)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_aside(path: Path, content: bytes) -> None:
    """Replaces a file in one step: a reader, or a kill at any instant, finds the old content or the new.

    Raises:
        StorageError: it cannot be written; the old content is then still there.
    """
    aside = path.with_name(f".{path.name}.new")
    with storing(path):
        try:
            write_synced(aside, content)
            os.replace(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
        sync_directory(path.parent)


def plain(value: Any) -> Any:
    """`value` as strict JSON can hold it: NaN and the infinities become their names.

    >>> plain({"loss": float("inf"), "at": (1, 2)})
    {'loss': 'Infinity', 'at': [1, 2]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value


_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def numbers(value: Any) -> Any:
    """The other way round: the names of NaN and the infinities become floats.

    >>> numbers({"loss": "-Infinity", "reason": "diverged"})
    {'loss': -inf, 'reason': 'diverged'}
    """
    if isinstance(value, str):
        return _NAMES.get(value, value)
    if isinstance(value, dict):
        return {key: numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [numbers(part) for part in value]
    return value


def line(row: Mapping[str, Any]) -> bytes:
    """One line of the history. Python writes a float with the digits that read back to the same bits."""
    try:
        return (_STRICT.encode(row) + "\n").encode()
    except ValueError:
        return (_STRICT.encode(plain(row)) + "\n").encode()


def pretty(value: Any) -> bytes:
    """A JSON file for people and programs."""
    return (json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def without_none(value: Any) -> Any:
    """`value` as TOML can hold it: entries that are None left out."""
    if isinstance(value, Mapping):
        return {key: without_none(part) for key, part in value.items() if part is not None}
    if isinstance(value, (list, tuple)):
        return [without_none(part) for part in value]
    return value


def fresh(root: str | os.PathLike[str], stem: str) -> Path:
    """A directory under `root` that does not exist yet: `stem`, else `stem-2`, `stem-3`, ..."""
    path, count = Path(root) / stem, 1
    while path.exists():
        count += 1
        path = Path(root) / f"{stem}-{count}"
    return path


def preflight(path: str | os.PathLike[str]) -> Path:
    """Refuses, before anything else is done, a directory that a new run cannot have.

    Raises:
        StorageError: it exists and is not empty, is no directory, or cannot be made where it is.
    """
    directory = Path(path)
    with storing(directory, "used"):
        if directory.is_dir():
            if any(directory.iterdir()):
                what = "a run" if (directory / "config.toml").exists() else "not empty and not a run"
                raise StorageError(
                    f"{directory}: exists and is {what}; give another directory, remove it, or resume the run"
                )
        elif directory.exists():
            raise StorageError(f"{directory}: exists and is no directory; give another one")
        directory.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory.parent).close()
    return directory


class RunDirectory:
    """A run directory held for writing: its lock, its history, its results."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._lock = Lock(path)
        try:
            with storing(path / HISTORY):
                self._history = (path / HISTORY).open("ab")
        except StorageError:
            self._lock.release()
            raise
        self.length = self._history.tell()
        self._flushed = 0.0

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        data: Mapping[str, Any] | None,
        begin: Callable[[Path], None],
        files: Mapping[str, bytes] | None = None,
    ) -> RunDirectory:
        """Makes a new run directory: everything is written beside it and renamed into place at once.

        Args:
            path: where; it must not exist, or be an empty directory.
            config: the tables of `config.toml`.
            data: `data.json`, or None for none.
            begin: writes the first checkpoint into the `checkpoints` directory that it is given.
            files: further files by name.

        Raises:
            StorageError: it cannot be made.
        """
        import tomli_w

        directory = preflight(path)
        with storing(directory, "made"):
            _sweep(directory)
            staging = Path(
                tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".new", dir=directory.parent)
            )
            try:
                write_synced(staging / "config.toml", tomli_w.dumps(without_none(config)).encode())
                if data is not None:
                    write_synced(staging / "data.json", pretty(data))
                for name, content in (files or {}).items():
                    write_synced(staging / name, content)
                write_synced(staging / HISTORY, b"")
                (staging / "checkpoints").mkdir()
                begin(staging / "checkpoints")
                staging.chmod(0o777 & ~_umask())
                sync_directory(staging)
                if os.name == "nt" and directory.is_dir():
                    directory.rmdir()
                os.rename(staging, directory)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            sync_directory(directory.parent)
        return cls(directory)

    @classmethod
    def reopen(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Takes hold of an existing run directory.

        Raises:
            StorageError: it is none, or another process holds it.
        """
        directory = Path(path)
        if not directory.exists():
            raise StorageError(
                f"{directory}: there is no such run; start one with this directory as its place"
            )
        if not (directory / "config.toml").is_file():
            raise StorageError(f"{directory}: not a run directory: it has no config.toml")
        return cls(directory)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a line to the history; readers see it within half a second of work."""
        content = line(row)
        now = time.monotonic()
        with storing(self.path / HISTORY):
            self._history.write(content)
            if now - self._flushed > _FLUSHED:
                self._history.flush()
                self._flushed = now
        self.length += len(content)

    def sync(self) -> None:
        """Makes the history durable."""
        with storing(self.path / HISTORY):
            self._history.flush()
            os.fsync(self._history.fileno())

    def truncate(self, length: int) -> None:
        """Cuts the history to its first `length` bytes.

        Raises:
            StorageError: it is shorter than that.
        """
        if self.length < length:
            raise StorageError(
                f"{self.path / HISTORY}: damaged: {self.length} bytes long, the checkpoint needs {length}"
            )
        with storing(self.path / HISTORY):
            self._history.flush()
            self._history.truncate(length)
            self._history.seek(0, os.SEEK_END)
        self.length = length

    def write(self, name: str, content: bytes) -> None:
        """Replaces a file of the directory in one step."""
        write_aside(self.path / name, content)

    def remove(self, name: str) -> None:
        """Removes a file of the directory, if it is there."""
        with storing(self.path / name, "removed"):
            (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the history and lets go of the lock; again is harmless."""
        with contextlib.suppress(OSError):
            self._history.close()
        self._lock.release()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sweep(directory: Path) -> None:
    for left in directory.parent.glob(f".{directory.name}.*.new"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)


@dataclass(frozen=True)
class Run:
    """A run directory as read: finished, in progress or killed.

    Attributes:
        path: the directory.
        config: `config.toml`.
        data: `data.json`, or None.
        history: the rows of `history.jsonl`, non-finite numbers as floats.
        result: `result.json`, or None while the run is not at its end.
        surface: `surface.json`, or None.
    """

    path: Path
    config: dict[str, Any]
    data: dict[str, Any] | None
    history: list[dict[str, Any]]
    result: dict[str, Any] | None
    surface: dict[str, Any] | None


def read(path: str | os.PathLike[str]) -> Run:
    """Reads a run directory.

    Raises:
        StorageError: `path` is no run directory, or a file in it is damaged.
    """
    directory = Path(path)
    config_path = directory / "config.toml"
    with storing(config_path, "read"):
        if not config_path.is_file():
            raise StorageError(f"{directory}: not a run directory: it has no config.toml")
        try:
            config = tomllib.loads(config_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StorageError(f"{config_path}: damaged: {error}") from error
    return Run(
        directory,
        config,
        read_json(directory / "data.json"),
        _rows(directory / HISTORY),
        read_json(directory / "result.json"),
        read_json(directory / "surface.json"),
    )


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no file.

    Raises:
        StorageError: it cannot be read, or is damaged.
    """
    with storing(path, "read"):
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StorageError(f"{path}: damaged: {error}") from error
    if not isinstance(found, dict):
        raise StorageError(f"{path}: damaged: wanted an object, found {type(found).__name__}")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    with storing(path, "read"):
        content = path.read_bytes() if path.exists() else b""
    rows = []
    for number, text in enumerate(
        content.split(b"\n")[:-1], 1
    ):  # a last line without its end is still being written
        try:
            row = json.loads(text)
            rows.append({key: numbers(found) for key, found in row.items()})
        except (ValueError, AttributeError) as error:
            raise StorageError(f"{path}, line {number}: damaged: {error}") from error
    return rows
