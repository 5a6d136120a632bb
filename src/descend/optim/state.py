"""`optimizer.state` as torch has it, which notices when someone replaces a part of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch

_HALF = (torch.float16, torch.bfloat16)


class Changes:
    """How often any state of an optimizer was replaced; every step compares it with what it has seen."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def _noticing(name: str) -> Any:
    method = getattr(dict, name)

    def call(self: ParameterState, *args: Any, **kwargs: Any) -> Any:
        self.changes.count += 1
        return method(self, *args, **kwargs)

    call.__name__ = name
    return call


class ParameterState(dict[str, Any]):
    """A parameter's state. Replacing an entry counts as a change; writing into a tensor needs no notice."""

    def __init__(self, changes: Changes, content: Mapping[str, Any]) -> None:
        self.changes = changes
        super().__init__(content)

    __setitem__ = _noticing("__setitem__")
    __delitem__ = _noticing("__delitem__")
    __ior__ = _noticing("__ior__")
    clear = _noticing("clear")
    pop = _noticing("pop")
    popitem = _noticing("popitem")
    setdefault = _noticing("setdefault")
    update = _noticing("update")

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class OptimizerState(defaultdict[Any, Any]):
    """`optimizer.state`: a ParameterState for every parameter, made by `fresh` where there is none yet."""

    def __init__(
        self, changes: Changes, content: Mapping[Any, Any], fresh: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        super().__init__(dict)
        self.changes = changes
        self.fresh = fresh
        for key, value in content.items():
            self[key] = value

    def __missing__(self, key: Any) -> ParameterState:
        self[key] = self.fresh(key)
        found = self[key]
        assert isinstance(found, ParameterState)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes.count += 1
        known = isinstance(value, ParameterState) and value.changes is self.changes
        wrap = isinstance(value, dict) and not known
        super().__setitem__(key, ParameterState(self.changes, value) if wrap else value)

    def __delitem__(self, key: Any) -> None:
        self.changes.count += 1
        super().__delitem__(key)

    def clear(self) -> None:
        """Forget everything: the next step starts anew."""
        self.changes.count += 1
        super().clear()

    def pop(self, *args: Any) -> Any:
        """Remove a parameter's state and return it."""
        self.changes.count += 1
        return super().pop(*args)

    def __reduce__(self) -> Any:
        return defaultdict, (dict, {k: dict(v) if isinstance(v, dict) else v for k, v in self.items()})


def dtype_of_state(p: torch.Tensor, value: torch.Tensor) -> torch.dtype:
    """What a state is kept in: its parameter's type, but float32 beside a half-precision parameter stays.

    torch rounds such a state to the parameter's type when it loads it, and loses most of its digits.
    """
    return torch.float32 if p.dtype in _HALF and value.dtype == torch.float32 else p.dtype


def filled(p: torch.Tensor, start: float) -> torch.Tensor:
    """A new state that starts at a number; a complex one starts there in both parts."""
    value = complex(start, start) if p.is_complex() else start
    return torch.full_like(p, value, memory_format=torch.preserve_format, requires_grad=False)
