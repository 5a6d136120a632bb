"""A step by way of other points than the parameters, for wrappers that keep such, as one program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..formula import Rule
from ..formula.detour import detoured, idle_at_zero
from ..kernels.counters import Member
from .checks import Where, raw
from .ways import Way


class ImpassableError(Exception):
    """Some parameter cannot take a detour; nothing has changed."""


class Detour:
    """No detour: the step goes from the parameters to the parameters."""

    def begin(self) -> None:
        """Called before plans are made."""

    def holds(self) -> bool:
        """Whether the plans made last are those that would be made now."""
        return True

    def knows(self, p: torch.Tensor, state: Any) -> bool:
        """Whether a parameter without a gradient is planned for, given the optimizer's state of it."""
        return bool(state)

    def origin(self, p: torch.Tensor) -> torch.Tensor:
        """Where the optimizer's rule starts from, so that its states may start there too."""
        return p

    def rule(self, rule: Rule, group: dict[str, Any], keys: Mapping[str, Where]) -> Rule:
        """What a parameter of a group follows; `keys` says where else than by name hyper-parameters are."""
        return rule

    def lend(self, member: Member) -> None:
        """Put the points into the parameter's state, under the keys that the rule has for them."""

    def take_back(self, members: Iterable[Member]) -> None:
        """Take them out again, when the plans are made."""

    def check(self, way: Way) -> None:
        """Raise ImpassableError where a parameter would be stepped in a way that is not foreseen."""


STRAIGHT = Detour()


class ByPoints(Detour):
    """A detour by a wrapper's points, on the CPU kernels only; a new one asks for new plans."""

    start: str
    """The state from which the optimizer's rule takes its step."""

    keys: tuple[str, ...]
    """The keys of the points."""

    def parts(self, group: Mapping[str, Any]) -> tuple[Rule, Rule | None]:
        """The formulas before and after the optimizer's rule."""
        raise NotImplementedError

    def points(self, p: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The points of a parameter, `start` first, made now where there are none.

        Raises ImpassableError where it cannot go.
        """
        raise NotImplementedError

    def origin(self, p: torch.Tensor) -> torch.Tensor:
        return self.points(p)[0]

    def begin(self) -> None:
        self._parts: dict[int, tuple[dict[str, Any], tuple[Rule, Rule | None]]] = {}
        self._zeros: dict[tuple[int, Where], tuple[dict[str, Any], Where, bool]] = {}

    def holds(self) -> bool:
        same = all(self.parts(group) == parts for group, parts in self._parts.values())
        return same and all((raw(group, at) == 0) == was for group, at, was in self._zeros.values())

    def rule(self, rule: Rule, group: dict[str, Any], keys: Mapping[str, Where]) -> Rule:
        before, after = parts = self.parts(group)
        self._parts[id(group)] = group, parts
        zero = []
        for word in idle_at_zero(rule):
            at = keys.get(word, word)
            was = bool(raw(group, at) == 0)
            self._zeros[id(group), at] = group, at, was
            zero += [word] if was else []
        return detoured(before, rule, after, self.start, tuple(zero))

    def lend(self, member: Member) -> None:
        dict.update(member.state, zip(self.keys, self.points(member.param), strict=True))

    def take_back(self, members: Iterable[Member]) -> None:
        for member in members:
            for key in self.keys:
                dict.pop(member.state, key, None)

    def check(self, way: Way) -> None:
        if way.kernel is None:
            raise ImpassableError
