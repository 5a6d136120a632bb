"""How the formulas of an optimizer are put together, and how torch.compile is kept out of its step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import torch

from .. import rules
from ..formula import Rule, chain
from ..modifiers import ascent, coupled_decay, decoupled_decay, independent_decay

F = TypeVar("F", bound=Callable[..., Any])
DECAYS = {"coupled": coupled_decay, "decoupled": decoupled_decay, "independent": independent_decay}


@cache
def joined(*parts: Rule) -> Rule:
    """Modifiers and a rule as one rule that bears the rule's name."""
    return parts[0] if len(parts) == 1 else chain(*parts, name=parts[-1].name)


def modified(group: Mapping[str, Any], name: str, decay: str = "coupled") -> Rule:
    """The rule of that name, after the modifiers that a group asks for: `maximize` and `weight_decay`."""
    parts = [ascent] if group["maximize"] else []
    if group.get("weight_decay", 0):
        parts.append(DECAYS[decay])
    return joined(*parts, rules.get(name))


def decoupled(group: Mapping[str, Any]) -> str:
    """The form of weight decay that a group asks for."""
    return "decoupled" if group["decoupled_weight_decay"] else "coupled"


def untraced(function: F) -> F:
    """Keep torch.compile out of a function and of all that it calls.

    torch.compiler.disable does the same but imports torch._dynamo, which takes as long as torch itself.
    """
    frames = torch._C._dynamo.eval_frame
    if not hasattr(frames, "set_code_exec_strategy"):
        return cast(F, torch.compiler.disable(function))  # type: ignore[no-untyped-call]
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    function.__dict__["_torchdynamo_disable"] = True
    return function


def plain(method: F) -> F:
    """A method of torch's optimizer without the wrapper that imports torch._dynamo."""
    return cast(F, getattr(method, "__wrapped__", method))
