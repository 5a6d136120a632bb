"""Checkpoints that survive a kill at any instant: written aside, synced, with the manifest of hashes last.

A checkpoint is a directory `step-00000025` of three files: `state.safetensors`, `state.json`, and
`manifest.json` with the length and SHA-256 of the other two and the hash of itself. Names that begin with a
dot are unfinished business.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StorageError, UsageError
from ..record import storing, sync_directory, write_synced
from .state import pack, unpack

FORMAT = 1
KEEP = 2
_EVERY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
_UNITS = {"": ("steps", 1), "step": ("steps", 1), "epoch": ("epochs", 1), "min": ("seconds", 60)}
_UNITS |= {"minute": ("seconds", 60), "s": ("seconds", 1), "second": ("seconds", 1), "h": ("seconds", 3600)}
_FILES = ("state.safetensors", "state.json")


@dataclass(frozen=True)
class Every:
    """How often to save: every `number` of steps, epochs or seconds."""

    number: float
    unit: str

    def __str__(self) -> str:
        return f"{self.number:g} {self.unit}"


def every(given: int | str) -> Every:
    """`25` or `"25"` (steps), `"2 epochs"`, `"5 min"`, `"30 s"`.

    >>> str(every("5 min"))
    '300 seconds'

    Raises:
        UsageError: something else.
    """
    match = _EVERY.fullmatch(str(given).lower())
    unit, scale = ("", 0) if match is None else _UNITS.get(match[2].removesuffix("s") or match[2], ("", 0))
    number = float(match[1]) * scale if match else 0.0
    if number <= 0 or (unit != "seconds" and not number.is_integer()) or isinstance(given, bool):
        raise UsageError(
            f"checkpoint every {given!r}: give a whole number of steps, or as in '2 epochs', '5 min'"
        )
    return Every(number, unit)


def save(directory: Path, step: int, tree: dict[str, Any], keep: int = KEEP) -> Path:
    """Writes the checkpoint of `step` and removes all but the last `keep`.

    Raises:
        StorageError: it cannot be written; the earlier checkpoints are then untouched.
        UsageError: the state holds something that is neither tensor nor JSON.
    """
    import safetensors.torch

    packed, tensors = pack(tree)
    contents = {
        "state.safetensors": safetensors.torch.save(tensors),
        "state.json": json.dumps(packed, allow_nan=False).encode(),
    }
    final = directory / f"step-{step:08d}"
    aside = directory / f".{final.name}.new"
    with storing(final):
        try:
            _remove(aside)
            aside.mkdir()
            for name, content in contents.items():
                write_synced(aside / name, content)
            write_synced(aside / "manifest.json", _manifest(step, contents))
            sync_directory(aside)
            if final.exists():
                _retire(final)
            os.rename(aside, final)
            sync_directory(directory)
        except OSError:
            with contextlib.suppress(OSError):
                _remove(aside)
            raise
    with storing(final, "cleaned up after"):
        for old in steps(directory)[:-keep]:
            _retire(old)
    return final


def steps(directory: Path) -> list[Path]:
    """The checkpoints in a directory, sound or not, the oldest first."""
    return sorted(path for path in directory.glob("step-*") if path.name[5:].isdigit())


def clean(directory: Path) -> None:
    """Removes what killed saves and removals left behind."""
    with storing(directory, "cleaned"):
        for left in directory.glob(".step-*"):
            _remove(left)


def load(directory: Path) -> tuple[int, dict[str, Any], list[str]]:
    """The last sound checkpoint: its step, its state, and a notice for every damaged one before it.

    Damaged ones are removed once a sound one is found.

    Raises:
        StorageError: there is none; the message names what is wrong with each.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(steps(directory)):
        try:
            step, tree = _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            damaged.append((path, str(error)))
            continue
        for bad, _ in damaged:
            _retire(bad)
        return step, tree, [f"{bad.name} is damaged ({why}): {path.name} used" for bad, why in damaged]
    if not damaged:
        raise StorageError(f"{directory}: holds no checkpoint: nothing to resume from; start the run anew")
    reasons = "; ".join(f"{bad.name}: {why}" for bad, why in damaged)
    raise StorageError(f"{directory}: no sound checkpoint is left ({reasons}); start the run anew elsewhere")


def _read(path: Path) -> tuple[int, dict[str, Any]]:
    import safetensors.torch

    manifest_path = path / "manifest.json"
    if not manifest_path.exists():
        raise ValueError("manifest.json is missing")
    manifest = json.loads(manifest_path.read_bytes())
    seal = manifest.pop("sha256")
    if hashlib.sha256(_canonical(manifest)).hexdigest() != seal:
        raise ValueError("manifest.json does not match its own hash")
    if manifest["format"] != FORMAT:
        raise ValueError(f"its format is {manifest['format']}, this version reads {FORMAT}")
    contents = {}
    for name in _FILES:
        if not (path / name).exists():
            raise ValueError(f"{name} is missing")
        contents[name] = (path / name).read_bytes()
        wanted = manifest["files"][name]
        if len(contents[name]) != wanted["bytes"]:
            raise ValueError(f"{name} has {len(contents[name])} of its {wanted['bytes']} bytes")
        if hashlib.sha256(contents[name]).hexdigest() != wanted["sha256"]:
            raise ValueError(f"{name} does not match its hash")
    try:
        tensors = safetensors.torch.load(contents["state.safetensors"])
    except safetensors.SafetensorError as error:
        raise ValueError(f"state.safetensors cannot be read: {error}") from error
    return int(manifest["step"]), unpack(json.loads(contents["state.json"]), tensors)


def _canonical(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True).encode()


def _manifest(step: int, contents: dict[str, bytes]) -> bytes:
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    manifest: dict[str, Any] = {"format": FORMAT, "step": step, "files": files}
    manifest["sha256"] = hashlib.sha256(_canonical(manifest)).hexdigest()
    return json.dumps(manifest, indent=1).encode()


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _retire(path: Path) -> None:
    """Removes a checkpoint; the rename first, so that a kill in between leaves no torn one under its name."""
    aside = path.with_name(f".{path.name}.old")
    _remove(aside)
    os.rename(path, aside)
    shutil.rmtree(aside)
