"""`optimizer.state` as torch has it, which notices when someone replaces a part of it."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch

from ..errors import UsageError
from ..formula import Rule, State
from ..kernels.cpu import takes
from ..kernels.matrix import Shape, vector_shape
from ..kernels.memory import empty_beside
from .checks import check_saved_state

HALF = (torch.float16, torch.bfloat16)
"""What rounds a number each time it is written."""


NEUTRAL: dict[str, Any] = {
    "adamw_betas": (0.9, 0.999),
    "adamw_eps": 1e-8,
    "adamw_lr_ratio": 1.0,
    "amsgrad": False,
    "capturable": False,
    "centered": False,
    "decoupled_weight_decay": False,
    "differentiable": False,
    "foreach": None,
    "fused": None,
    "independent_weight_decay": False,
    "maximize": False,
    "momentum": 0,
    "nesterov": False,
    "ns_bits": 16,
    "use_muon": True,
}
"""What a state dict of an older torch, or of another class, leaves out, and what it means there."""


class Changes:
    """How often any state of an optimizer was replaced; every step compares it with what it has seen.

    `shown` says whether anybody has ever looked at the states. Until then nobody can have moved one, or have
    kept it for a backward pass, and the steps need not look at them.
    """

    __slots__ = ("counted", "shown")

    def __init__(self) -> None:
        self.counted = ctypes.c_int64()  # where a compiled step can read it
        self.shown = False

    @property
    def count(self) -> int:
        """How often something was replaced."""
        return self.counted.value

    @count.setter
    def count(self, value: int) -> None:
        self.counted.value = value

    def show(self) -> None:
        """Note that somebody looks at a state."""
        if not self.shown:
            self.shown = True
            self.count += 1


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
    """`optimizer.state`: a ParameterState for every parameter, made by `fresh` where there is none yet.

    `raw` is the same for the optimizer itself, without notice that somebody looks.
    """

    def __init__(
        self, changes: Changes, content: Mapping[Any, Any], fresh: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        super().__init__(dict)
        self.changes = changes
        self.fresh = fresh
        for key, value in content.items():
            self[key] = value

    def raw(self, key: Any) -> ParameterState:
        """The state of a parameter, made if there is none."""
        found = super().get(key)
        return self.__missing__(key) if found is None else found

    def peek(self, key: Any) -> ParameterState | None:
        """The state of a parameter, or None."""
        return super().get(key)

    def __missing__(self, key: Any) -> ParameterState:
        self[key] = self.fresh(key)
        found = super().get(key)
        assert isinstance(found, ParameterState)
        return found

    def __getitem__(self, key: Any) -> Any:
        self.changes.show()
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes.count += 1
        known = isinstance(value, ParameterState) and value.changes is self.changes
        wrap = isinstance(value, dict) and not known
        super().__setitem__(key, ParameterState(self.changes, value) if wrap else value)

    def __delitem__(self, key: Any) -> None:
        self.changes.count += 1
        super().__delitem__(key)

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()  # its presence makes dict(state) come here for the values

    def get(self, *args: Any) -> Any:
        """The state of a parameter, or the default."""
        self.changes.show()
        return super().get(*args)

    def items(self) -> Any:
        """Parameters with their states."""
        self.changes.show()
        return super().items()

    def values(self) -> Any:
        """The states."""
        self.changes.show()
        return super().values()

    def clear(self) -> None:
        """Forget everything: the next step starts anew."""
        self.changes.count += 1
        super().clear()

    def pop(self, *args: Any) -> Any:
        """Remove a parameter's state and return it."""
        self.changes.count += 1
        self.changes.show()
        return super().pop(*args)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The state of a parameter, `default` from now on if it had none."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Replace several states."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __or__(self, other: Any) -> Any:
        return {**self, **other}

    def copy(self) -> Any:
        """The states in a dictionary of their own."""
        return defaultdict(dict, self.items())

    def __reduce__(self) -> Any:
        pairs = super().items()
        return _restored, ({k: dict(v) if isinstance(v, dict) else v for k, v in pairs},)


def _restored(content: dict[Any, Any]) -> OptimizerState:
    """A state that a copy or a file brought back: nobody else holds it."""
    return OptimizerState(Changes(), content, nothing)


def nothing(p: Any) -> dict[str, Any]:
    """The state before the first step, of most rules."""
    return {}


def dtype_of_state(p: torch.Tensor, value: torch.Tensor) -> torch.dtype:
    """What a state is kept in: its parameter's type, but float32 beside a half-precision parameter stays.

    torch rounds such a state to the parameter's type when it loads it, and loses most of its digits.
    """
    return torch.float32 if p.dtype in HALF and value.dtype == torch.float32 else p.dtype


def shape_of_state(rule: Rule, state: State, p: torch.Tensor, hypers: Mapping[str, Any]) -> torch.Size:
    """The shape of a parameter's state: its own, one number for each row or column of a matrix, or square.

    Where the rule takes a tensor of more dimensions for one matrix, as `Rule.is_flat` says, so are its rows.

    Raises UsageError where the parameter has no rows and columns.
    """
    if state.shape == "element":
        return p.shape
    if state.shape in ("left", "right"):
        bounds = (hypers.get(word) for word in (state.block, state.limit))
        return Shape.of(p, *bounds).size(state.shape)
    if p.dim() < 2:
        raise UsageError(
            f"the state {state.name!r} is one number for each of the {state.shape} of a matrix; a parameter "
            f"of shape {tuple(p.shape)} has none: give it a group with another rule"
        )
    return vector_shape(p, state.shape, rule.is_flat)


def new_state(rule: Rule, state: State, p: torch.Tensor, hypers: Mapping[str, Any]) -> torch.Tensor:
    """A state as it is before the first step."""
    place = rule.states.index(state)
    if state.init == "p":
        return empty_beside(p, place).copy_(p.detach())
    start = float(hypers[state.init] if isinstance(state.init, str) else state.init)
    if state.shape == "element":
        return filled(p, start, place)
    dtype = torch.float32 if state.shape in ("left", "right") and p.dtype in HALF else p.dtype
    return torch.full(shape_of_state(rule, state, p, hypers), start, dtype=dtype, device=p.device)


def copied(p: torch.Tensor, value: torch.Tensor, place: int) -> torch.Tensor:
    """A state in memory of its own, on its parameter's device and in the type that goes with it."""
    dtype = dtype_of_state(p, value)
    if takes(p) and type(value) is torch.Tensor and value.shape == p.shape:
        return empty_beside(p, place, dtype).copy_(value)
    return value.to(p.device, dtype, copy=True)


def filled(p: torch.Tensor, start: float, place: int = 0) -> torch.Tensor:
    """A new state that starts at a number; a complex one starts there in both parts."""
    return empty_beside(p, place).fill_(complex(start, start) if p.is_complex() else start)


def adopted(
    p: torch.Tensor,
    saved: Mapping[str, Any],
    rule: Rule,
    others: Sequence[Rule],
    hypers: Mapping[str, float],
    step_key: str | None,
    where: str,
) -> dict[str, Any]:
    """A saved state of a parameter that follows a rule with these hyper-parameters, in memory of our own.

    States of the `others` may lie in it too; `where` names the class, in errors.
    """
    variants = [rule, *others]
    known = {s.key: (variant, s) for variant in variants for s in variant.states}
    bounds = {h.name: h.default for variant in variants for h in variant.hypers} | dict(hypers)
    elements = {key: shape_of_state(*own, p, bounds) for key, own in known.items() if not own[1].scalar}
    scalars = [key for key, (_, s) in known.items() if s.scalar]
    check_saved_state(p, saved, elements, scalars, where)
    kept: dict[str, Any] = {}
    for key, value in saved.items():
        if value is None:
            continue
        if key in elements and isinstance(value, torch.Tensor):
            kept[key] = copied(p, value.detach(), [*elements].index(key))
        elif key == step_key and not isinstance(value, torch.Tensor):
            kept[key] = torch.tensor(float(value), device="cpu")
        else:
            kept[key] = deepcopy(value)
    return kept
