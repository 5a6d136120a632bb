"""Schedule-Free's formulas, as one program with the base's rule, and by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..formula import Hyper, Rule, State, rule, stage
from ..formula.nodes import name, substitute
from ..formula.vocabulary import maximum, where
from ..kernels import cpu
from ..kernels.cpu.gather import same_layout
from ..optim.detour import ByPoints, ImpassableError
from ..optim.members import beside
from .tensors import averaging_dtype, lerp_

SOURCE = "Defazio et al. 2024, section 1 and Algorithm 1, arXiv:2405.15682"
Z = State("schedule_free_z", init="p", doc="what the base steps")
X = State("schedule_free_x", init="p", doc="average of z, to be evaluated")
LR = Hyper(1e-3, "[0, inf)", "learning rate of this step")
BETA = Hyper(0.9, "[0, 1]", "how near to the average the gradient is taken")
DECAY = Hyper(0.0, "[0, inf)", "decoupled decay at y")
COUNT = Hyper(0.0, "[0, inf)", "what the wrapper counts")


@rule("from z", SOURCE)
def from_z(p, schedule_free_z=Z):  # type: ignore[no-untyped-def]
    """The base's rule starts from z."""
    p = schedule_free_z
    return p, schedule_free_z


@rule("from z, decayed at y", SOURCE)
def from_z_decayed(p, schedule_free_z=Z, lr=LR, schedule_free_weight_decay=DECAY):  # type: ignore[no-untyped-def]
    """The base's rule starts from z, from which a share of y was taken; p holds y."""
    p = schedule_free_z - lr * schedule_free_weight_decay * p
    return p, schedule_free_z


@rule("to y", SOURCE)
def to_y(  # type: ignore[no-untyped-def]
    p,
    schedule_free_z=Z,
    schedule_free_x=X,
    lr=LR,
    schedule_free_beta=BETA,
    schedule_free_r=COUNT,
    schedule_free_weight_lr_power=COUNT,
    schedule_free_steps=COUNT,
    schedule_free_lr_max=COUNT,
    schedule_free_weight_sum=COUNT,
):
    """What the base's rule made is z; x takes its share of it, and y lies between the two."""
    largest = maximum(lr, schedule_free_lr_max)
    a = (schedule_free_steps + 1) ** schedule_free_r * largest**schedule_free_weight_lr_power
    total = schedule_free_weight_sum + a
    c = where(total > 0, a / total, 0)
    schedule_free_z = p
    schedule_free_x = (1 - c) * schedule_free_x + c * schedule_free_z
    p = (1 - schedule_free_beta) * schedule_free_z + schedule_free_beta * schedule_free_x
    return p, schedule_free_z, schedule_free_x


@rule("y", SOURCE)
def only_y(p, schedule_free_z=Z, schedule_free_x=X, schedule_free_beta=BETA):  # type: ignore[no-untyped-def]
    """y by itself: the last line of `to_y`."""
    p = (1 - schedule_free_beta) * schedule_free_z + schedule_free_beta * schedule_free_x
    return p, schedule_free_z, schedule_free_x


class FromZToY(ByPoints):
    """The base steps z, x follows, and y takes the place of the parameter, in one program."""

    start = Z.key
    keys = (Z.key, X.key)

    def __init__(self, kept: dict[Tensor, dict[str, Tensor]]) -> None:
        self.kept = kept

    def parts(self, group: Mapping[str, Any]) -> tuple[Rule, Rule | None]:
        """Without decay y is not read."""
        return from_z_decayed if group["schedule_free_weight_decay"] else from_z, to_y

    def rule(self, rule: Rule, group: dict[str, Any], keys: Mapping[str, Any]) -> Rule:
        """As for every detour, as long as y is computed as it is by itself."""
        made = super().rule(rule, group, keys)
        written = stage(made).passes[-1].written
        alone = stage(only_y).passes[0].written["p"]
        if written.get("p") != substitute(alone, {key: written.get(key, name(key)) for key in self.keys}):
            raise ImpassableError
        return made

    def knows(self, p: Tensor, state: Any) -> bool:
        """Whether there is a z."""
        return "z" in self.kept.get(p, {})

    def points(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """z and x."""
        own = self.kept[p]
        start_at(p, own)
        own["z"], own["x"] = beside(p, own["z"]), beside(p, own["x"])
        if not (is_exact(p, own["x"]) and same_layout(own["z"], p) and own["z"].dtype == p.dtype):
            raise ImpassableError
        return own["z"], own["x"]


def start_at(p: Tensor, own: dict[str, Tensor]) -> None:
    """Let z and x begin at a parameter, where they have not begun."""
    if "z" not in own:
        own["z"] = p.detach().clone(memory_format=torch.preserve_format)
        own["x"] = p.detach().to(averaging_dtype(p), copy=True, memory_format=torch.preserve_format)


def is_exact(z: Tensor, x: Tensor) -> bool:
    """Whether the kernels give the same y within a step and outside of one: nothing is rounded in between."""
    return (
        z.dtype in (torch.float32, torch.float64)
        and x.dtype == z.dtype
        and cpu.takes(z)
        and cpu.is_dense(z)
        and same_layout(x, z)
    )


@torch.no_grad()
def write_y(zs: Sequence[Tensor], xs: Sequence[Tensor], beta: float) -> None:
    """y in the place of z, to the bit as a step by `FromZToY` leaves it."""
    by_kernel: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
    others: list[tuple[Tensor, Tensor]] = []
    for z, x in zip(zs, xs, strict=True):
        (by_kernel.setdefault(z.dtype, []) if is_exact(z, x) else others).append((z, x))
    program = stage(only_y)
    for dtype, pairs in by_kernel.items():
        kernel = cpu.kernel(program, (cpu.storage_name(dtype),) * len(program.operands))
        table = cpu.Table(kernel, [z.numel() for z, _ in pairs])
        scalars = kernel.rows(1)
        first, _ = program.scalars(1.0, beta)
        scalars[0 : len(first)] = first
        addresses = [[z.data_ptr(), 0, z.data_ptr(), x.data_ptr()] for z, x in pairs]
        table.bind(np.array(addresses, np.int64), scalars, np.zeros(len(pairs), np.int64))
        table.launch()
        torch._C._increment_version([z for z, _ in pairs])
    lerp_([z for z, _ in others], [x for _, x in others], beta)
