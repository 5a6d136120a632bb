"""What all wrappers share: they are optimizers whose groups, state and gradients are their base's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import UsageError
from ..formula import Hyper
from ..kernels.memory import BEHIND, empty_beside
from ..optim.base import FormulaOptimizer
from ..optim.detour import Detour, ImpassableError

Closure = Callable[[], Any]

_NOT_KEPT = ("step", "_zero_grad_profile_name", "_opt_called", "_detour", "_climber", "_versions")


class Wrapper(Optimizer):
    """Base of the wrappers: an optimizer around another one, `base`.

    `param_groups`, `state` and `defaults` are the base's. Hyper-parameters and counts of the wrapper stand in
    the parameter groups as `<tag>_<name>` (`group["sam_rho"]`), so that they differ by group and follow
    schedules as `lr` does. Its tensors are in `kept`, and join the base's in the state dict, which has
    torch's form. A wrapper inside another of its kind is called `ema2`, `ema3`, ...
    """

    base: Optimizer
    tag: str
    hypers: ClassVar[Mapping[str, Hyper]] = {}
    counts: ClassVar[Mapping[str, float]] = {}
    """What is counted, by group; what all groups have in common is read from the first."""
    tensors: ClassVar[tuple[str, ...]] = ()
    _passable = True

    def __init__(self, base: Optimizer, **values: float) -> None:
        if not isinstance(base, Optimizer):
            raise UsageError(
                f"{type(self).__name__} wraps an optimizer, such as torch.optim.SGD(model.parameters()); "
                f"got {base!r:.80}"
            )
        inner, depth = base, 1
        while isinstance(inner, Wrapper):
            depth += inner.tag.rstrip("0123456789") == type(self).tag
            inner = inner.base
        self.base = base
        self.tag = type(self).tag + (str(depth) if depth > 1 else "")
        self.kept: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self._values = {name: self._checked(name, value) for name, value in values.items()}
        for group in base.param_groups:
            taken = [key for key in self._names() if key in group]
            if taken:
                raise UsageError(
                    f"a parameter group already has {taken[0]!r}: the optimizer was wrapped before. Wrap a "
                    "fresh one; values of single groups are set afterwards, in the wrapper's param_groups"
                )
        for group in base.param_groups:
            self._join(group, {})
        super().__setstate__({})  # torch's hooks, as when it unpickles: its constructor would make groups

    # -- groups ---------------------------------------------------------------------------------------

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base's parameter groups."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """The base's state; the wrapper's own tensors are in `kept`."""
        return self.base.state

    @state.setter
    def state(self, state: defaultdict[Tensor, Any]) -> None:
        self.base.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        """The base's defaults."""
        return self.base.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.base.defaults = defaults

    def _names(self) -> list[str]:
        return [f"{self.tag}_{name}" for name in (*self.hypers, *self.counts)]

    def _checked(self, name: str, value: Any) -> float:
        hyper = self.hypers[name]
        whole = isinstance(hyper.default, int)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UsageError(f"{name} must be a number in {hyper.allowed}, got {value!r}") from None
        if isinstance(value, bool) or (whole and number % 1 != 0):
            raise UsageError(f"{name} must be a whole number in {hyper.allowed}, got {value!r}")
        replace(hyper, name=name).check(number)
        return int(number) if whole else number

    def _join(self, group: dict[str, Any], given: Mapping[str, Any]) -> None:
        for name in self.hypers:
            key = f"{self.tag}_{name}"
            group[key] = self._checked(name, given[key]) if key in given else self._values[name]
        for name, start in self.counts.items():
            group[f"{self.tag}_{name}"] = start

    def _get(self, name: str, group: Mapping[str, Any] | None = None) -> Any:
        return (group or self.param_groups[0])[f"{self.tag}_{name}"]

    def _set(self, name: str, value: float, group: dict[str, Any] | None = None) -> None:
        for one in self.param_groups if group is None else [group]:
            one[f"{self.tag}_{name}"] = value

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base; it may hold values of its own for this wrapper, as `<tag>_<name>`."""
        own = {key: param_group[key] for key in self._names() if key in param_group}
        for name in self.hypers:
            if f"{self.tag}_{name}" in own:
                self._checked(name, own[f"{self.tag}_{name}"])
        self.base.add_param_group({key: v for key, v in param_group.items() if key not in own})
        self._join(self.param_groups[-1], own)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the base's parameters."""
        self.base.zero_grad(set_to_none)

    # -- steps and evaluation -------------------------------------------------------------------------

    def step(self, closure: Closure | None = None) -> Any:
        """Take one step."""
        raise NotImplementedError

    def _step_by(self, detour: Detour) -> bool:
        """Step the base by a detour, one program for its rule and for what is done around it, if it can.

        False where it cannot: then nothing has changed.
        """
        base = self.base
        if not (self._passable and isinstance(base, FormulaOptimizer)):
            return False
        if base._optimizer_step_pre_hooks or base._optimizer_step_post_hooks:
            return False  # they see the parameters as the base's rule has them
        try:
            base.step_by(detour)
        except ImpassableError:
            self._passable = False
        return self._passable

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The weights to evaluate and to publish are in place inside the `with` block.

        A wrapper that keeps none passes the question on to its base; the last answer is the weights as they
        are.
        """
        if isinstance(self.base, Wrapper):
            with self.base.applied():
                yield
        else:
            yield

    # -- state ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The base's state dict, joined by what the wrapper keeps: of torch's form, and complete."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        packed = self.base.state_dict()
        for group, saved in zip(self.param_groups, packed["param_groups"], strict=True):
            for p, number in zip(group["params"], saved["params"], strict=True):
                if self.kept.get(p):
                    own = {f"{self.tag}_{key}": value for key, value in self.kept[p].items()}
                    packed["state"][number] = {**packed["state"].get(number, {}), **own}
        for after in self._optimizer_state_dict_post_hooks.values():
            packed = _or(after(self, packed), packed)
        return packed

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a state dict was taken, in the middle of a cycle too, to the bit.

        Raises UsageError (a ValueError) where it is not one of this wrapper, or of another model; nothing has
        changed then.
        """
        given = dict(state_dict)
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            given = _or(before(self, given), given)
        params = {
            number: p
            for group, saved in zip(self.param_groups, given["param_groups"], strict=False)
            for p, number in zip(group["params"], saved["params"], strict=False)
        }
        for saved in given["param_groups"]:
            for key in self._names():
                if key not in saved:
                    raise UsageError(
                        f"this state dict is not one of {type(self).__name__} around "
                        f"{type(self.base).__name__}: a parameter group has no {key!r}. Load it into what "
                        "saved it; one of the base alone goes into the base, before it is wrapped"
                    )
            for name in self.hypers:
                self._checked(name, saved[f"{self.tag}_{name}"])
        names = {f"{self.tag}_{key}": key for key in self.tensors}
        kept: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        rest: dict[Any, Any] = {}
        for number, entry in given["state"].items():
            own = {names[key]: value for key, value in entry.items() if key in names}
            rest[number] = {key: value for key, value in entry.items() if key not in names}
            for key, value in own.items():
                p = params.get(number)
                if p is None or value.shape != p.shape:
                    raise UsageError(
                        f"the saved {key!r} of parameter {number} has shape {tuple(value.shape)}, "
                        f"the parameter {None if p is None else tuple(p.shape)}: the state dict belongs to "
                        "another model, or its parameters are in another order"
                    )
                place = BEHIND + [*self.tensors].index(key)
                kept[p][key] = empty_beside(p, place, value.dtype).copy_(value)
        self.base.load_state_dict({**given, "state": rest})
        self.kept = kept
        self._loaded()
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _loaded(self) -> None:
        """Called when a state dict has been loaded."""

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in self.__dict__.items()
            if key not in _NOT_KEPT and not key.startswith("_optimizer_")  # torch copies no hooks either
        }

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={self._get(name)}" for name in self.hypers)
        return f"{type(self).__name__}({values}) around {self.base!r}"


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
