"""What an optimizer must know of a parameter, its gradient and its states to choose how they are stepped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch

from ..errors import UsageError
from ..formula import Rule, State, stage
from ..kernels import cpu
from ..kernels.counters import Member
from ..kernels.cpu.gather import same_layout
from .checks import Where
from .state import dtype_of_state, new_state, shape_of_state


def cpu_takes(member: Member, rule: Rule) -> bool:
    """Whether the CPU kernel can step a parameter where it lies."""
    p, g = member.param, member.param.grad
    program = stage(rule)
    matrix = p.dim() == 2 or rule.has_matrices or (rule.is_flat and p.dim() > 2)
    matrix = matrix or (p.dim() < 2 and cpu.takes_vectors(program))
    whole = p.is_contiguous() and not p.is_complex() and matrix
    if program.folds or ((cpu.asks_for_rows(program) or rule.has_matrices) and not whole):
        return False
    return (
        cpu.takes(p)
        and all(member.state[s.key].layout == p.layout for s in rule.states if not s.scalar)
        and (g is None or (g.layout == torch.strided and g.device == p.device and _computes(p, g)))
    )


def _computes(p: torch.Tensor, g: torch.Tensor) -> bool:
    """Whether the precision of a parameter's arithmetic holds its gradient."""
    return g.dtype in (p.dtype, torch.float32, torch.bfloat16, torch.float16) and not (
        p.is_complex() and g.dtype != p.dtype
    )


def dtypes(member: Member, rule: Rule) -> tuple[torch.dtype, ...]:
    """The types of a parameter, its gradient and its states: one kernel takes one combination."""
    p = member.param
    g = p.dtype if p.grad is None else p.grad.dtype
    return (p.dtype, g, *(member.state[s.key].dtype for s in rule.states if not s.scalar))


@cache
def reader(places: tuple[Where, ...], form: str) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    parts = [
        f"g[{where!r}]" if isinstance(where, str) else f"g[{where[0]!r}][{where[1]}]" for where in places
    ]
    made = "".join(form.format(part) + ", " for part in parts)
    return cast(Callable[[dict[str, Any]], tuple[Any, ...]], eval(f"lambda g: ({made})"))


def _detached(value: Any) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def started(
    rule: Rule, state: State, p: torch.Tensor, value: Any, hypers: Mapping[str, Any], traced: bool
) -> Any:
    """A parameter's state as a step needs it, from what there is of it: a new one where that is None.

    Raises UsageError for a tensor of another shape.
    """
    if state.scalar:
        if value is None:
            return hypers[state.init] if isinstance(state.init, str) else state.init
        return value
    if value is None:
        return new_state(rule, state, p, hypers)
    if value.shape != shape_of_state(rule, state, p, hypers):
        raise UsageError(
            f"the state {state.key!r} has shape {tuple(value.shape)}, its parameter {tuple(p.shape)}; "
            "give it a state of its own shape, or none"
        )
    return value if traced else beside(p, value)


def beside(p: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A state on its parameter's device, in a type and an order of memory that go with it."""
    dtype = dtype_of_state(p, value)
    if value.device != p.device or value.dtype != dtype:
        value = value.detach().to(p.device, dtype)
    if (
        value.layout == p.layout == torch.strided
        and value.shape == p.shape
        and cpu.is_dense(p)
        and not same_layout(value, p)
    ):
        value = torch.empty_like(p, dtype=dtype, requires_grad=False).copy_(value.detach())
    return value


def places(groups: Sequence[Mapping[str, Any]]) -> dict[int, tuple[int, str]]:
    """Every parameter's place among all of them, and its name where they came with names, by its id."""
    named = [
        pair
        for group in groups
        for pair in zip(group["params"], group.get("param_names") or [""] * len(group["params"]), strict=True)
    ]
    return {id(p): (k, name) for k, (p, name) in enumerate(named)}
