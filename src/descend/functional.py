"""Update rules for those who hold their own gradients: as pure functions, and an object that steps.

Both take NumPy arrays or tensors, and run the kernels of the optimizers. Parameters are one array, or a
list, tuple or dict of them; gradients and state have the same form. A gradient that is None leaves its
parameter out, and each parameter counts its own steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from . import rules
from .errors import UsageError
from .formula import Rule, rule_of
from .optim.rule_optimizer import RuleOptimizer, class_of

Array = Any
"""A NumPy array or a tensor."""
Tree = Any
"""An array, or a list, tuple or dict of arrays."""
AnyRule = str | Rule | Callable[..., Any]
"""A name of `descend rules`, a Rule, or a bare formula."""


def init(rule: AnyRule, params: Tree, **hypers: float) -> Tree:
    """The state before the first step: for every parameter a dict of arrays and numbers, by torch's names.

    `hypers` need only be given where a state starts at one (Rprop's `lr`).

    >>> init("adam", np.ones(2, np.float32))
    {'step': 0.0, 'exp_avg': array([0., 0.], dtype=float32), 'exp_avg_sq': array([0., 0.], dtype=float32)}

    Raises UsageError for an unknown rule or hyper-parameter, or for arrays that are not floating point.
    """
    leaves, rebuild = _flat(params, "params")
    optimizer = _optimizer(rule, [_copied(leaf) for leaf in leaves], hypers)
    group = optimizer.param_groups[0]
    made = [(optimizer._rule_of(group, p), p) for p in group["params"]]
    states = [(own, optimizer._member(own, group, p).state) for own, p in made]
    return rebuild([_state_of(own, kept, leaf) for (own, kept), leaf in zip(states, leaves, strict=True)])


def step(
    rule: AnyRule, params: Tree, grads: Tree, state: Tree, *, maximize: bool = False, **hypers: float
) -> tuple[Tree, Tree]:
    """One step: the new parameters and the new state. Nothing that is given is changed.

    >>> p = np.array([3.0])
    >>> state = init("momentum", p)
    >>> for _ in range(2):
    ...     p, state = step("momentum", p, 2 * p, state, lr=0.1, momentum=0.5)
    >>> p
    array([1.62])

    Raises UsageError for an unknown rule or hyper-parameter, a value out of range, or for gradients or states
    of another form than the parameters'.
    """
    leaves, rebuild = _flat(params, "params")
    copies = [_copied(leaf) for leaf in leaves]
    optimizer = _optimizer(rule, copies, {**hypers, "maximize": maximize})
    group = optimizer.param_groups[0]
    given = [*zip(copies, _matching(grads, params, "grads"), _matching(state, params, "state"), strict=True)]
    for p, g, kept in given:
        p.grad = _gradient(g, p)
        optimizer.state[p] = _entries(optimizer._rule_of(group, p), kept)
    optimizer.step()
    pairs = [*zip(copies, leaves, strict=True)]
    states = [_state_of(optimizer._rule_of(group, p), optimizer.state[p], leaf) for p, leaf in pairs]
    return rebuild([_given_back(p, leaf) for p, leaf in pairs]), rebuild(states)


class Stepper:
    """A rule with its state, made without parameters: `step(grads, params)` updates arrays in place.

    `hypers` holds the hyper-parameters, which may be set between steps; `state` the state, once there is one.

    >>> stepper = Stepper("adam", lr=0.5)
    >>> x = np.array([2.0, -1.0])
    >>> stepper.step(2 * x, x)
    >>> x.round(3)
    array([ 1.5, -0.5])
    >>> stepper.hypers["lr"] = 0.1

    Raises UsageError for an unknown rule or hyper-parameter, or a value out of range.
    """

    def __init__(
        self, rule: AnyRule, *, maximize: bool = False, strict: bool = False, **hypers: float
    ) -> None:
        options = {**hypers, "maximize": maximize, "strict": strict}
        self._optimizer = _optimizer(rule, [torch.zeros(0, device="cpu")], options)
        self._group = self._optimizer.param_groups[0]
        self._group["params"] = []
        self._known: list[Array] = []

    @property
    def rule(self) -> Rule:
        """The rule that it follows."""
        return self._optimizer.rule

    @property
    def hypers(self) -> dict[str, Any]:
        """The hyper-parameters, read at every step."""
        return self._group

    @property
    def state(self) -> list[dict[str, Any]]:
        """Every parameter's state, in the order of the parameters; empty before the first step."""
        return [self._optimizer.state[p] for p in self._group["params"]]

    def step(self, grads: Tree, params: Tree) -> None:
        """Step `params` in place, along `grads` of the same form.

        Arrays may be replaced by others of the same shape between steps; their states go over.

        Raises UsageError when the form changes, or for arrays that cannot be written.
        """
        leaves, _ = _flat(params, "params")
        gradients = _matching(grads, params, "grads")
        if len(leaves) != len(self._known):
            if self._known:
                raise UsageError(
                    f"{len(leaves)} parameters, after steps with {len(self._known)}; make a new Stepper"
                )
            self._group["params"] = [_shared(leaf) for leaf in leaves]
            self._known = list(leaves)
        held = self._group["params"]
        for k, leaf in enumerate(leaves):
            if leaf is not self._known[k] or not _lies_there(leaf, held[k]):
                self._replace(k, leaf)
        try:
            for p, g in zip(held, gradients, strict=True):
                p.grad = _gradient(g, p)
            self._optimizer.step()
        finally:
            for p in held:
                p.grad = None

    def _replace(self, k: int, leaf: Array) -> None:
        held = self._group["params"]
        if tuple(leaf.shape) != tuple(held[k].shape):
            raise UsageError(f"parameter {k} has shape {tuple(leaf.shape)}, it had {tuple(held[k].shape)}")
        state = self._optimizer.state.pop(held[k], None)
        held[k] = _shared(leaf)
        self._known[k] = leaf
        if state is not None:
            self._optimizer.state[held[k]] = state


def _lies_there(leaf: Array, held: torch.Tensor) -> bool:
    """Whether an array is still where it was at the last step."""
    if not isinstance(leaf, torch.Tensor):
        return True  # NumPy does not move an array that others look at
    return leaf.data_ptr() == held.data_ptr() and leaf.stride() == held.stride() and leaf.dtype == held.dtype


def _optimizer(rule: AnyRule, params: list[torch.Tensor], options: Mapping[str, Any]) -> RuleOptimizer:
    return class_of(rules.get(rule) if isinstance(rule, str) else rule_of(rule))(params, **options)


def _flat(tree: Tree, what: str) -> tuple[list[Array], Callable[[list[Any]], Tree]]:
    """The arrays of a tree in order, and what puts others in their places."""
    if isinstance(tree, (np.ndarray, torch.Tensor)):
        return [tree], lambda leaves: leaves[0]
    if isinstance(tree, Mapping):
        keys = list(tree)
        return [*_arrays(tree.values(), what)], lambda leaves: dict(zip(keys, leaves, strict=True))
    if isinstance(tree, (list, tuple)):
        kind = type(tree)
        return [*_arrays(tree, what)], lambda leaves: kind(leaves)
    raise UsageError(
        f"{what} must be an array, a tensor, or a list, tuple or dict of them; got {type(tree).__name__}"
    )


def _arrays(leaves: Any, what: str) -> Iterator[Array]:
    for leaf in leaves:
        if not isinstance(leaf, (np.ndarray, torch.Tensor)):
            raise UsageError(f"{what} holds a {type(leaf).__name__}; give arrays or tensors")
        yield leaf


def _matching(tree: Tree, params: Tree, what: str) -> list[Any]:
    """What belongs to each parameter: of a gradient tree or a state tree."""
    if isinstance(params, (np.ndarray, torch.Tensor)):
        return [tree]
    if isinstance(params, Mapping):
        if not isinstance(tree, Mapping) or set(tree) != set(params):
            raise UsageError(f"{what} must be a dict with the keys of params: {', '.join(map(str, params))}")
        return [tree[key] for key in params]
    if not isinstance(tree, (list, tuple)) or len(tree) != len(params):
        raise UsageError(f"{what} must be a list of {len(params)}, one for each of params")
    return list(tree)


def _copied(leaf: Array) -> torch.Tensor:
    if isinstance(leaf, torch.Tensor):
        return _floating(leaf.detach().clone())
    return _floating(torch.from_numpy(np.array(leaf, order="C")))


def _shared(leaf: Array) -> torch.Tensor:
    if isinstance(leaf, torch.Tensor):
        return _floating(leaf.detach())
    if not leaf.flags.writeable:
        raise UsageError("an array to be stepped in place is read-only; give a copy of it")
    return _floating(torch.from_numpy(leaf))


def _floating(p: torch.Tensor) -> torch.Tensor:
    if not (p.is_floating_point() or p.is_complex()):
        raise UsageError(f"parameters must be floating point or complex, got {p.dtype}")
    return p


def _gradient(g: Any, p: torch.Tensor) -> torch.Tensor | None:
    if g is None:
        return None
    if not isinstance(g, (np.ndarray, np.generic, torch.Tensor)):
        raise UsageError(f"a gradient must be an array or a tensor, got {type(g).__name__}")
    found = g.detach() if isinstance(g, torch.Tensor) else torch.from_numpy(np.array(g, order="C"))
    if found.shape != p.shape:
        raise UsageError(f"a gradient has shape {tuple(found.shape)}, its parameter {tuple(p.shape)}")
    return found.to(p.device, p.dtype)


def _entries(rule: Rule, kept: Any) -> dict[str, Any]:
    """A state that was given, as the optimizer keeps it, in memory of its own."""
    needed = {"step", *(s.key for s in rule.states)}
    if not isinstance(kept, Mapping) or set(kept) != needed:
        got = ", ".join(map(str, kept)) if isinstance(kept, Mapping) else type(kept).__name__
        raise UsageError(f"a state of {rule.name} holds {', '.join(sorted(needed))}; got {got}: use init()")
    found = {}
    for key, value in kept.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value.copy())
        found[key] = value.clone() if isinstance(value, torch.Tensor) else value
    return found


def _state_of(rule: Rule, state: Mapping[str, Any], like: Array) -> dict[str, Any]:
    """The optimizer's state in the form that was given, numbers as floats."""
    numbers = {s.key: float(state[s.key]) for s in rule.states if s.scalar}
    arrays = {s.key: _given_back(state[s.key], like) for s in rule.states if not s.scalar}
    return {"step": float(state.get("step", 0.0)), **numbers, **arrays}


def _given_back(value: torch.Tensor, like: Array) -> Array:
    return value.numpy() if isinstance(like, np.ndarray) else value
