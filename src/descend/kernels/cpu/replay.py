"""A step that finds everything as the last one left it, in one compiled call.

After a pass over a large tensor the caches hold next to nothing of Python, and what costs ten microseconds on
small tensors costs sixty. So when some steps in a row have gone the same way, their plans are written down as
words in memory, and one function of them (`again`) does all that Python did: it looks whether groups,
parameters, gradients, states and counts are those of the last step, computes the scalars of this one, and
runs the kernels. Where anything differs it has changed nothing, and the step goes through Python.

A number in a group may change, as a schedule changes it; whether it is zero may not, for formulas hang on it.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ...formula.scalars import ScalarProgram
from . import again, counting, gather
from .compiler import announce, builtin, c_function, compile_function
from .scalars import compiled

_PYTHON = (
    *("PyLong_AsVoidPtr", "PyDict_Next", "PyDict_Size", "PyList_Size", "PyList_GetItem"),
    *("PyFloat_AsDouble", "PyBool_FromLong", "PyEval_SaveThread", "PyEval_RestoreThread"),
)
_TORCH = {
    "descend_threads": "_ZN2at15get_num_threadsEv",
    "descend_profiled": "_ZN5torch8profiler4impl15profilerEnabledEv",
    "descend_bump": "_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE",
}


@dataclass(frozen=True)
class Notes:
    """What a replay has to know of a plan: the words of again.PLAN, but for `first`, and its scalars.

    `arguments` are the scalars' of every cohort in the next step [cohorts, arguments], `groups` the cohorts'
    groups, and `keys` where a group keeps its hyper-parameters. `alive` must not be freed.
    """

    words: dict[str, int]
    scalars: ScalarProgram
    arguments: Any
    groups: Sequence[dict[str, Any]]
    keys: Sequence[Any]
    alive: Any


class Replay:
    """The last step of some plans of an optimizer, to be taken again; `of` makes it."""

    def __init__(self, step: int, alive: Any) -> None:
        self._taken = ctypes.c_int64.from_address(step + 8 * again.STEP.index("taken"))
        self.again = builtin(_again(), step, alive)
        """`again(groups, *hooks)`: whether it took the step; it does for the same objects, without hooks."""

    @property
    def taken(self) -> int:
        """How many steps it took."""
        return self._taken.value  # in what `again` keeps alive

    @staticmethod
    def of(
        plans: Sequence[Notes],
        groups: list[dict[str, Any]],
        watched: Collection[str],
        hooks: Sequence[dict[Any, Any]],
        common_hooks: Sequence[dict[Any, Any]],
        changes: ctypes.c_int64,
        seen: int,
    ) -> Replay | None:
        """The replay, or None where there cannot be one.

        Of the groups' keys, those `watched` decide something. The `common_hooks` are those of all optimizers,
        and `changes` is the count of changed states, which was `seen` when the plans were made.
        """
        keys = (key for plan in plans for key in plan.keys)
        watched = {*watched, *(key if isinstance(key, str) else key[0] for key in keys)}
        lists = [groups, *(group["params"] for group in groups)]
        values = [value for group in groups for key, value in group.items() if key in watched]
        plain = all(type(x) is list for x in lists) and all(type(group) is dict for group in groups)
        if not (plain and _is_possible() and all(map(_is_lasting, values))):
            return None
        firsts = [compiled(plan.scalars) or 0 for plan in plans]
        if not all(first and _agrees(plan, first) for plan, first in zip(plans, firsts, strict=True)):
            return None
        memory = _Memory()
        numbers = _numbers(plans)
        lines = [{**plan.words, "first": first} for plan, first in zip(plans, firsts, strict=True)]
        step = {
            **memory.array("given", ("id",), [{"id": id(x)} for x in (groups, *hooks)]),
            **memory.array("hooks", ("hook",), [{"hook": id(x)} for x in (*hooks, *common_hooks)]),
            **memory.array("lists", again.LIST, [memory.items(x) for x in lists]),
            **memory.array("groups", again.GROUP, [memory.group(x, watched, numbers) for x in groups]),
            **memory.array("plans", again.PLAN, lines),
            "changes": ctypes.addressof(changes),
            "seen": seen,
            "threads": torch.get_num_threads(),
            "float": id(float),
            "taken": 0,
        }
        memory.alive += [plans, groups, hooks, common_hooks, changes]
        return Replay(memory.structures(again.STEP, [step]), memory.alive)


class _Memory:
    """Lays out structures of words; `alive` holds them, and the objects that they name."""

    def __init__(self) -> None:
        self.alive: list[Any] = []

    def structures(self, names: Sequence[str], rows: Sequence[Mapping[str, int]]) -> int:
        """The address of some structures, one behind the other."""
        words = [int(row[name]) for row in rows for name in names]
        self.alive.append((ctypes.c_int64 * max(1, len(words)))(*words))
        return ctypes.addressof(self.alive[-1])

    def array(self, name: str, names: Sequence[str], rows: Sequence[Mapping[str, int]]) -> dict[str, int]:
        """The words `name` and `name_count` of some structures."""
        return {name: self.structures(names, rows), f"{name}_count": len(rows)}

    def ids(self, objects: Sequence[Any]) -> int:
        """The address of the addresses of objects."""
        self.alive.append([*objects])
        return self.structures(("id",), [{"id": id(x)} for x in objects])

    def items(self, objects: list[Any]) -> dict[str, int]:
        """A list as it is now."""
        return {"list": id(objects), "objects": self.ids(objects), "objects_count": len(objects)}

    def group(
        self, group: dict[str, Any], watched: Collection[str], numbers: Mapping[tuple[int, str], list[int]]
    ) -> dict[str, int]:
        """A parameter group as it is now; `numbers` says where else a number of it has to stand."""
        items = []
        for key, value in group.items():
            number = type(value) is float
            targets = [{"to": to} for to in numbers.get((id(group), key), ())] if number else []
            items.append(
                {
                    "key": id(key),
                    "value": id(value),
                    "watched": key in watched or key == "params",
                    "number": number,
                    "is_zero": number and value == 0,
                    **self.array("targets", ("to",), targets),
                }
            )
        self.alive.append([*group.items()])
        return {"dict": id(group), **self.array("items", again.ITEM, items)}


def _numbers(plans: Sequence[Notes]) -> dict[tuple[int, str], list[int]]:
    """Where the hyper-parameters of a group stand among the arguments of scalars, by group and key."""
    found = defaultdict(list)
    for plan in plans:
        for arguments, group in zip(plan.arguments, plan.groups, strict=True):
            for place, key in enumerate(plan.keys, 1):
                found[id(group), key].append(arguments[place:].ctypes.data)
    return found


def _is_lasting(value: Any) -> bool:
    """Whether what an object says cannot change while it stays the same object."""
    if isinstance(value, tuple):
        return all(map(_is_lasting, value))
    return value is None or type(value) in (bool, int, float, str)


def _agrees(plan: Notes, first: int) -> bool:
    """Whether the compiled scalars of the next step are, bit for bit, those that Python finds."""
    function = c_function(first, ctypes.c_int64, *[ctypes.c_void_p] * 3)
    for given in np.ascontiguousarray(plan.arguments):
        wanted = [np.array(x, np.float64) for x in plan.scalars(*given.tolist())]
        found = [np.zeros_like(x) for x in wanted]
        careful = function(given.ctypes.data, *(x.ctypes.data for x in found))
        if careful or any(a.tobytes() != b.tobytes() for a, b in zip(wanted, found, strict=True)):
            return False
    return True


@cache
def _is_possible() -> bool:
    """Whether all the functions are there that `again` calls by name, and objects lie as it reads them."""
    native = gather.native()
    if native is None or ctypes.c_int64.from_address(id(1.0) + again.TYPE * 8).value != id(float):
        return False
    try:
        found: dict[str, Any] = {name: getattr(ctypes.pythonapi, name) for name in _PYTHON}
        found |= {name: getattr(gather.library("torch_cpu"), symbol) for name, symbol in _TORCH.items()}
    except (OSError, AttributeError):
        return False
    announce(
        found
        | {
            "descend_same": counting.same(),
            "descend_holds": counting.holds()[0],
            "descend_gather": native.gather,
        }
    )
    return True


@cache
def _again() -> int:
    return compile_function(again.module(), "again")
