"""Schedule-Free around a rule of ours: z, x and y in one program with it, and y alone to the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..formula import Rule, stage
from ..formula.nodes import name, substitute
from ..kernels import cpu
from ..kernels.cpu.gather import same_layout
from ..kernels.memory import BEHIND, empty_beside
from ..optim.detour import ByPoints, ImpassableError
from ..optim.members import beside
from .formulas import from_z, from_z_decayed, only_y, to_y
from .tensors import averaging_dtype, lerp_


class FromZToY(ByPoints):
    """The base steps z, x follows, and y takes the place of the parameter, in one program."""

    start = "schedule_free_z"
    keys = ("schedule_free_z", "schedule_free_x")

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
        own["z"] = empty_beside(p, BEHIND).copy_(p.detach())
        own["x"] = empty_beside(p, BEHIND + 1, averaging_dtype(p)).copy_(p.detach())


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
