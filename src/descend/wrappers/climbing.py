"""SAM on the CPU kernels: the climb to the worst point nearby, and the base's rule from where it began."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..formula import Rule
from ..kernels import cpu
from ..kernels.counters import Member
from ..kernels.cpu.gather import same_layout
from ..optim.base import FormulaOptimizer
from ..optim.detour import ByPoints, Detour, ImpassableError
from ..optim.state import Changes, OptimizerState, nothing
from ..optim.ways import Way
from .formulas import climb, climb_scaled, from_saved


class FromSaved(ByPoints):
    """The base steps the saved weights, and the parameters hold what comes of it."""

    start = "sam_saved"
    keys = ("sam_saved",)

    def __init__(self, kept: Mapping[Tensor, Mapping[str, Tensor]]) -> None:
        self.kept = kept

    def parts(self, group: Mapping[str, Any]) -> tuple[Rule, Rule | None]:
        """The same for all groups; nothing follows the base's rule."""
        return from_saved, None

    def knows(self, p: Tensor, state: Any) -> bool:
        """Whether there are weights to come back to."""
        return "saved" in self.kept.get(p, {})

    def points(self, p: Tensor) -> tuple[Tensor]:
        """The saved weights."""
        saved = self.kept[p]["saved"]
        if saved.dtype != p.dtype or not same_layout(saved, p) or not cpu.is_dense(p):
            raise ImpassableError
        return (saved,)


class _OnKernels(Detour):
    """No detour, but only on the CPU kernels."""

    def check(self, way: Way) -> None:
        if way.kernel is None:
            raise ImpassableError


class Climber(FormulaOptimizer):
    """Takes the first half of a step, of the parameters of another optimizer's groups.

    `scaled` says for ASAM which are weights. It keeps the room for the saved weights from step to step.
    """

    step_key = None

    def __init__(self, tag: str, scaled: Callable[[Tensor], bool] | None) -> None:
        self.defaults: dict[str, Any] = {}
        self.hyper_keys = {word: f"{tag}_{word}" for word in ("rho", "eta")}  # type: ignore[misc]
        self._scaled = scaled
        self._way = _OnKernels()
        state = OptimizerState(Changes(), {}, nothing)
        self.__setstate__({"state": state, "param_groups": [], "strict": False})

    def climb(self, groups: list[dict[str, Any]], kept: defaultdict[Tensor, dict[str, Tensor]]) -> bool:
        """Go, and put what was saved into `kept`; False, and nothing has changed, where kernels cannot."""
        self.param_groups = groups
        try:
            self.step_by(self._way)
        except ImpassableError:
            return False
        for group in groups:
            for p in group["params"]:
                if p.grad is not None:
                    kept[p]["saved"] = self.state.raw(p)["saved"]
        return True

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return None

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return climb if self._scaled is None else climb_scaled

    def _member(self, rule: Rule, group: dict[str, Any], p: Tensor) -> Member:
        if self._scaled is not None:
            if p.is_complex():  # the kernels would take both parts for weights of their own
                raise ImpassableError
            dict.setdefault(self.state.raw(p), "scaled", torch.tensor(float(self._scaled(p))))
        return super()._member(rule, group, p)
