"""The numbers that the host keeps of a plan's parameters: step counts and scalar states.

Parameters for which they are the same, and the group too, share one row of scalars.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..formula import Program, State
from .cpu import counting

Values = Callable[[dict[str, Any]], tuple[Any, ...]]
"""Reads the hyper-parameters of a rule, in its order, out of a parameter group."""


@dataclass
class Member:
    """One parameter with its group, its state dict, and how many steps it has taken."""

    param: torch.Tensor
    group: dict[str, Any]
    state: dict[str, Any]
    count: float


class Counters:
    """Step counts and scalar states of a plan's parameters, each in one array.

    The numbers that a person finds in `opt.state[p]` are views of these arrays, so both are always the
    same. `cohorts` sorts the parameters by (group, count, scalar states): one row of scalars each.
    """

    def __init__(
        self,
        members: Sequence[Member],
        scalars: Sequence[State],
        values: Values,
        program: Program,
        step_key: str | None,
    ) -> None:
        self.members = members
        self.program = program
        self.values = values
        self._groups = {id(m.group): m.group for m in members}
        self._group_of = np.array([id(m.group) for m in members], np.int64)
        steps = torch.tensor([float(m.count) for m in members], dtype=torch.float32, device="cpu")
        kept = torch.tensor(
            [[float(m.state[s.key]) for m in members] for s in scalars], dtype=torch.float64, device="cpu"
        ).reshape(len(scalars), len(members))
        for i, m in enumerate(members):
            if step_key is not None:
                dict.__setitem__(m.state, step_key, steps[i])
            for k, s in enumerate(scalars):
                dict.__setitem__(m.state, s.key, kept[k, i])
        self.counts = steps.numpy()
        self.kept = kept.numpy()
        self._seen_counts = np.full_like(self.counts, np.nan)
        self._seen_kept = np.full_like(self.kept, np.nan)
        n = len(members)
        self._same, self._count = counting.same(), counting.count()
        self._counts_at = (self.counts.ctypes.data, self._seen_counts.ctypes.data, n)
        self._kept_at = (self.kept.ctypes.data, self._seen_kept.ctypes.data, 2 * self.kept.size)
        self._scalars = program.scalars
        self._names = [s.name for s in scalars]
        self._early = [k for k, s in enumerate(scalars) if s.name in program.scalars.states]
        self._steps = (ctypes.c_double * 0)()
        self.cohorts: list[tuple[dict[str, Any], Any, int]] = []
        self._several: list[tuple[Any, int]] = []
        self.row_of = np.zeros(len(members), np.int64)

    def sort(self, active: Any = None) -> bool:
        """Bring `cohorts` up to date; whether they were sorted anew. `active` leaves parameters out."""
        if active is None and self._unchanged():
            return False
        keys: dict[tuple[Any, ...], list[int]] = {}
        for i in range(len(self.members)) if active is None else np.flatnonzero(active):
            key = (self._group_of[i], self.counts[i], *self.kept[:, i])
            keys.setdefault(key, []).append(int(i))
        self.cohorts = []
        self.row_of.fill(0)  # of those that take no part, too, a row that there is
        for row, (key, places) in enumerate(keys.items()):
            index = slice(None) if len(places) == len(self.members) else np.array(places)
            self.row_of[index] = row
            self.cohorts.append((self._groups[int(key[0])], index, places[0]))
        self._firsts = np.array([first for _, _, first in self.cohorts], np.int64)
        self._steps = (ctypes.c_double * len(self.cohorts))(*self.counts[self._firsts].tolist())
        self._several = [(self.cohorts[row][1], p[0]) for row, p in enumerate(keys.values()) if len(p) > 1]
        return True

    def _unchanged(self) -> bool:
        """Whether all numbers are as the last step left them: someone may have edited them."""
        return bool(self._same(*self._counts_at)) and (not len(self.kept) or bool(self._same(*self._kept_at)))

    def advance(self, active: Any = None) -> list[tuple[Any, ...]]:
        """Count the step and compute every cohort's row, in float64."""
        rows = []
        kept = self.kept.T.tolist() if len(self.kept) else None
        of, hypers = None, tuple[Any, ...]()
        for k, (group, index, first) in enumerate(self.cohorts):
            if group is not of:
                of, hypers = group, self.values(group)
            t = self._steps[k] = self._steps[k] + 1
            row, states = self._scalars(t, *hypers, *(kept[first] if kept else ()))
            rows.append(row)
            for at, value in zip(self._early, states, strict=True):
                self.kept[at, index] = value
        if active is None:
            self._count(*self._counts_at)
            if len(self.kept):
                self._seen_kept[:] = self.kept
        else:
            self.counts[active] += 1
            self._seen_counts.fill(np.nan)
        return rows

    def notes(self, late: Sequence[str]) -> tuple[dict[str, int], Any, Any]:
        """What a replay needs: its words, the arguments of the next step's scalars, and what they lie in."""
        kept = self.kept.T[self._firsts]
        rows = zip(self._steps, self.cohorts, kept.tolist(), strict=True)
        arguments = np.array([[t + 1, *self.values(group), *states] for t, (group, _, _), states in rows])
        early = np.zeros((len(self.cohorts), len(self._early)))
        places = [np.array(x, np.int64) for x in (self._early, [self._names.index(name) for name in late])]
        words = {
            **dict(zip(("counts", "counts_seen", "tensors"), self._counts_at, strict=True)),
            **dict(zip(("kept", "kept_seen", "kept_words"), self._kept_at, strict=True)),
            "cohorts": len(self.cohorts),
            "firsts": self._firsts.ctypes.data,
            "steps": ctypes.addressof(self._steps),
            "row_of": self.row_of.ctypes.data,
            "arguments": arguments.ctypes.data,
            "argument_count": arguments.shape[1],
            "kept_from": arguments.shape[1] - len(self.kept),
            "kept_count": len(self.kept),
            "early": early.ctypes.data,
            "early_count": len(self._early),
            "early_places": places[0].ctypes.data,
            "late_places": places[1].ctypes.data,
            "late_count": len(late),
        }
        return words, arguments, (self._firsts, self._steps, early, places)

    def settle(self, states: Sequence[str], values: Any, active: Any) -> None:
        """Set scalar states that depend on a sum to `values` [n, states]; cohorts that stay alike stay."""
        same = active is None
        for k, name in enumerate(states):
            kept = self.kept[self._names.index(name)]
            np.copyto(kept, values[:, k], where=True if active is None else active)
            same = same and all((kept[index] == kept[first]).all() for index, first in self._several)
        if same:
            self._seen_kept[:] = self.kept
