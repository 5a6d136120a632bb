"""Settings from a TOML file, from `--set KEY=VALUE` and from flags, in that order; the last one wins.

The file has the form of a run's `config.toml`: `descend fit --config runs/x/config.toml` runs it again.
What a run records for reading only (versions, the batch size taken and why, the choices) is ignored.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import StorageError, UsageError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The keys of a run's configuration. "rule.*" stands for any name in that table; whether it may be there is
# checked by the one who takes it, who knows the rule, the model or the source.
_COMMON = (
    "run.seed",
    "run.log_every",
    "rule.name",
    "rule.lr",
    "rule.*",
    "schedule.*",
    "stop.steps",
    "stop.tolerance",
    "stop.target",
    "stop.minutes",
    "stop.patience",
    "stop.min_change",
    "checkpoint.every",
)
FIT = (
    *_COMMON,
    "run.threads",
    "data.source",
    "data.name",
    "data.seed",
    "data.target",
    "data.validation",
    "data.encoding",
    "data.task",
    "data.standardise",
    "data.types",
    "data.image_size",
    "model.name",
    "model.init",
    "model.*",
    "batch.size",
    "batch.accumulate",
    "batch.shuffle",
    "batch.drop_last",
    "batch.clip_norm",
    "stop.epochs",
)
MINIMIZE = (*_COMMON, "checkpoint.clip_norm", "problem.function", "problem.start", "problem.maximize")
_READ_ONLY = (
    "problem.form",
    "problem.dtype",
    "problem.shapes",
    "run.own_loss",
    "run.descend",
    "run.torch",
    "run.python",
    "batch.taken",
    "batch.reason",
    "choices",
    "own_rule",
)

# What a file says of its rule, its model, its split is not for another rule, model or seed given over it.
_HEADS = {"rule.name": "rule.", "model.name": "model.", "run.seed": "data.seed"}


class Settings:
    """Flat settings, `{"rule.lr": 0.01}`, with the place that each one came from for the error messages.

    Args:
        command: "fit" or "minimize"; a file of the other one is refused.
        known: the keys allowed, as in `FIT`.
    """

    def __init__(self, command: str, known: Iterable[str]) -> None:
        self.command = command
        self.known = tuple(known)
        self.values: dict[str, Any] = {}
        self.origin: dict[str, str] = {}

    def read(self, path: Path) -> None:
        """Takes the settings of a TOML file.

        Raises:
            UsageError: no TOML, an unknown key, or the configuration of the other command.
            StorageError: a file that cannot be read.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"--config {path}: there is no such file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"--config {path} is not TOML: {error}") from None
        except OSError as error:
            raise StorageError(f"--config {path} cannot be read: {error.strerror}") from None
        flat = _flat(content, leaves=self.known)
        kind = flat.pop("run.kind", self.command)
        if kind != self.command:
            raise UsageError(f"{path} is the configuration of a {kind}: descend {kind} --config {path}")
        for key, value in flat.items():
            if key.split(".")[0] not in _READ_ONLY and key not in _READ_ONLY:
                self._take(key, value, str(path))

    def override(self, assignment: str) -> None:
        """Takes one `KEY=VALUE`; the value is read as TOML where it is TOML, and as plain text elsewhere.

        Raises:
            UsageError: no `=`, or an unknown key.
        """
        key, equals, raw = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: wanted KEY=VALUE, as in --set rule.lr=0.01")
        try:
            value = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw.strip()
        for name, part in _flat({key.strip(): value}, leaves=self.known).items():
            self._take(name, part, "--set")

    def flag(self, key: str, value: Any, option: str) -> None:
        """Takes what a flag said, unless the flag was not given (None)."""
        if value is not None:
            self._take(key, value, option)

    def table(self, name: str) -> dict[str, Any]:
        """The settings of one table, without its name: `table("rule")` gives `{"name": ..., "lr": ...}`."""
        start = f"{name}."
        return {key.removeprefix(start): value for key, value in self.values.items() if key.startswith(start)}

    def get(self, key: str, kind: type | tuple[type, ...], wanted: str) -> Any:
        """The setting `key`, or None where nobody gave it.

        Raises:
            UsageError: a value of another type than `kind`.
        """
        value = self.values.get(key)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if isinstance(value, int) and not isinstance(value, bool) and float in kinds:
            return value if int in kinds else float(value)
        if value is not None and (
            not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        ):
            raise UsageError(f"{self.origin[key]}: {key} is {value!r}, wanted {wanted}")
        return value

    def _take(self, key: str, value: Any, origin: str) -> None:
        table, parent = key.split(".")[0], key.rpartition(".")[0]
        if parent in self.known:  # an entry of a setting that is a table itself, as in data.types.zip
            value, key = {**self.values.get(parent, {}), key.rpartition(".")[2]: value}, parent
        if key not in self.known and f"{table}.*" not in self.known:
            raise UsageError(f"{origin}: unknown key '{key}'{self._advice(key)}")
        if key in _HEADS and self.values.get(key, value) != value:
            self._leave_behind(_HEADS[key])
        self.values[key] = value
        self.origin[key] = origin

    def _leave_behind(self, start: str) -> None:
        """Drops what a file says under `start`: it was for another rule, model or seed."""
        for key in list(self.values):
            if key.startswith(start) and not self.origin[key].startswith("--"):
                del self.values[key], self.origin[key]

    def _advice(self, key: str) -> str:
        named = [name for name in self.known if not name.endswith(".*")]
        close = nearest(key, named)
        if close:
            return close
        table, last = key.split(".")[0], key.split(".")[-1]
        within = [name for name in named if name.startswith(f"{table}.")]
        by_last = [name for name in named if name.split(".")[-1] == last]
        return (
            f". Allowed here: {', '.join(by_last or within or sorted({n.split('.')[0] for n in self.known}))}"
        )


def _flat(tables: Mapping[str, Any], before: str = "", leaves: Container[str] = ()) -> dict[str, Any]:
    """Nested tables as dotted keys; those among `leaves` stay tables.

    >>> _flat({"rule": {"name": "adam", "lr": 0.01}, "seed": 1})
    {'rule.name': 'adam', 'rule.lr': 0.01, 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping) and f"{before}{key}" not in leaves:
            flat |= _flat(value, f"{before}{key}.", leaves)
        else:
            flat[f"{before}{key}"] = value
    return flat
