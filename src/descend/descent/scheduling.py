"""Binds schedules to an optimizer's hyper-parameters: ours, as functions of the step, and torch's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..errors import UsageError, nearest
from ..schedules import Plateau, PlateauState, Schedule, parse

Factory = Callable[[torch.optim.Optimizer], LRScheduler]
Given = str | Schedule | LRScheduler | Factory
_PAIRS = {"beta1": ("betas", 0), "beta2": ("betas", 1)}


def _read(group: Mapping[str, Any], name: str) -> float:
    if name not in group and name in _PAIRS and _PAIRS[name][0] in group:
        key, place = _PAIRS[name]
        return float(group[key][place])
    return float(group[name])


def _write(group: dict[str, Any], name: str, value: float) -> None:
    if name not in group and name in _PAIRS:
        key, place = _PAIRS[name]
        pair = list(group[key])
        pair[place] = value
        group[key] = tuple(pair)
    elif isinstance(group[name], torch.Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


class Schedules:
    """The schedules of one descent.

    Args:
        optimizer: whose `param_groups` they set.
        given: a schedule for the learning rate (as a text, a `Schedule`, a torch scheduler, or a function
            that makes one from the optimizer), or a dict of schedules by the hyper-parameter's name.
        total: the number of steps of the run, where it is known.

    Parameter groups that begin at another value than the first keep their ratio to it. torch's schedulers
    take a step after each step of the optimizer; its ReduceLROnPlateau after each epoch, with the loss that
    is watched.

    Raises:
        UsageError: an unknown schedule or hyper-parameter.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        given: Given | Mapping[str, str | Schedule] | None,
        total: int | None,
    ) -> None:
        self.optimizer = optimizer
        self.torch: LRScheduler | None = None
        self.bound: dict[str, Schedule] = {}
        self.plateaus: dict[str, PlateauState] = {}
        self._ratios: dict[str, list[float]] = {}
        if given is None:
            return
        if isinstance(given, Mapping):
            for name, schedule in given.items():
                self._bind(name, schedule, total)
        elif isinstance(given, (str, Schedule)):
            self._bind("lr", given, total)
        else:
            made = given if isinstance(given, LRScheduler) else given(optimizer)
            if not isinstance(made, LRScheduler) or made.optimizer is not optimizer:
                raise UsageError(
                    f"schedule {given!r}: give a text, a descend schedule, or a function that makes a torch "
                    "LRScheduler of the optimizer it is given"
                )
            self.torch = made

    def _bind(self, name: str, given: str | Schedule, total: int | None) -> None:
        groups = self.optimizer.param_groups
        numbers = [key for key, value in groups[0].items() if isinstance(value, (int, float))]
        known = numbers + [key for key, (pair, _) in _PAIRS.items() if pair in groups[0]]
        if name not in known:
            raise UsageError(
                f"schedule of {name!r}: this rule has no such number{nearest(name, known)}; "
                f"it has {', '.join(known)}"
            )
        begins = [_read(group, name) for group in groups]
        schedule = parse(given, begins[0], total) if isinstance(given, str) else given
        if not isinstance(schedule, Schedule):
            raise UsageError(f"schedule of {name!r}: {given!r} is neither a text nor a schedule")
        self.bound[name] = schedule
        self._ratios[name] = [begin / begins[0] if begins[0] else 1.0 for begin in begins]
        if isinstance(schedule, Plateau):
            self.plateaus[name] = PlateauState()

    def __bool__(self) -> bool:
        return bool(self.bound) or self.torch is not None

    def text(self) -> dict[str, str]:
        """The schedules by name, as a configuration holds them."""
        if self.torch is not None:
            return {"lr": f"torch:{type(self.torch).__name__}"}
        return {name: str(schedule) for name, schedule in self.bound.items()}

    def before(self, step: int) -> None:
        """Sets the values for the step with this number, from 0."""
        for name, schedule in self.bound.items():
            state = self.plateaus.get(name)
            value = schedule(step, state) if isinstance(schedule, Plateau) else schedule(step)
            for group, ratio in zip(self.optimizer.param_groups, self._ratios[name], strict=True):
                _write(group, name, value * ratio)

    def after(self) -> None:
        """Lets torch's scheduler take its step."""
        if self.torch is not None and not isinstance(self.torch, ReduceLROnPlateau):
            self.torch.step()

    def epoch_ended(self, loss: float) -> None:
        """Shows the loss that is watched to the schedules that look at it."""
        for name, state in self.plateaus.items():
            schedule = self.bound[name]
            assert isinstance(schedule, Plateau)
            self.plateaus[name] = schedule.seen(state, loss)
        if isinstance(self.torch, ReduceLROnPlateau):
            self.torch.step(loss)

    def values(self) -> dict[str, float]:
        """The scheduled values at present, for the history; the learning rate is there anyway."""
        return {name: _read(self.optimizer.param_groups[0], name) for name in self.bound if name != "lr"}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of them."""
        return {
            "plateaus": {name: asdict(state) for name, state in self.plateaus.items()},
            "torch": None if self.torch is None else self.torch.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.plateaus = {name: PlateauState(**held) for name, held in state["plateaus"].items()}
        if self.torch is not None:
            self.torch.load_state_dict(state["torch"])
