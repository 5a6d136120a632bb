"""Runs of an optimizer with steps that are replayed, and the same runs through Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from descend import chain, modifiers, rules
from descend.formula import stage
from descend.kernels.cpu import replay, scalars
from descend.kernels.cpu.team import openmp
from descend.optim import replays

NEEDED = pytest.mark.skipif(
    not replay._is_possible() or not openmp() or scalars.compiled(stage(rules.get("adamw")).scalars) is None,
    reason="this Python, torch or system has not what replays read; every step goes through Python",
)
"""For every test of replays."""

SOON, NEVER = 2, 1 << 40
STEPS, CHANGED = 14, 7
SHAPES = ((6, 5), (4, 7), (9, 3))

CHAINS = {
    "clip by value, cautious, ema": ("clip_value", "adamw", "cautious_unscaled", "ema_weights"),
    "global clip": ("clip_global_norm", "adamw"),
    "per tensor": ("agc", "lamb"),
    "noise": ("gradient_noise", "adamw"),
    "caution": ("adamw", "cautious"),
}


def rule(name: str) -> Any:
    if name not in CHAINS:
        return rules.get(name)
    return chain(*(getattr(modifiers, part, None) or rules.get(part) for part in CHAINS[name]))


def hooks_of(opt: Any) -> tuple[Any, ...]:
    return opt._optimizer_step_pre_hooks, opt._optimizer_step_post_hooks


class Run:
    """Some steps of an optimizer on gradients that are always the same, with `change` before some of them."""

    def __init__(
        self,
        patience: int,
        make: Callable[[list[torch.Tensor]], Any],
        change: Callable[[Run], None] = lambda run: None,
        shapes: tuple[tuple[int, ...], ...] = SHAPES,
        dtype: torch.dtype = torch.float32,
        steps: int = STEPS,
        at: tuple[int, ...] = (CHANGED,),
    ) -> None:
        self.source = torch.Generator().manual_seed(1)
        self.params = [self.random(s, dtype).requires_grad_() for s in shapes]
        self.taken = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replays, "CALM", patience)
            self.opt = make(self.params)
            for self.k in range(steps):
                for p in self.params:
                    p.grad = self.random(tuple(p.shape), p.dtype)
                if self.k in at:
                    self.before = self.replayed
                    change(self)
                self.opt.step()
        self.after = self.replayed

    def random(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(shape, generator=self.source).to(dtype)

    @property
    def replayed(self) -> int:
        """Steps that the replay that stands now has taken."""
        found = self.opt._replays._replay
        return 0 if found is None else found.taken

    def outcome(self) -> list[Any]:
        states = [sorted(self.opt.state[p].items()) for p in self.params if p in self.opt.state]
        tensors = [*self.params, *(v for s in states for _, v in s if isinstance(v, torch.Tensor))]
        return [x.detach().clone() for x in tensors] + [torch.tensor(p._version) for p in self.params]


def same(a: Run, b: Run) -> bool:
    pairs = [*zip(a.outcome(), b.outcome(), strict=True)]
    return all(x.dtype == y.dtype and torch.equal(x.nan_to_num(7e7), y.nan_to_num(7e7)) for x, y in pairs)


def both(make: Callable[[list[torch.Tensor]], Any], **given: Any) -> Run:
    """The run with replays, which ends as the one without."""
    found, wanted = Run(SOON, make, **given), Run(NEVER, make, **given)
    assert wanted.after == 0
    assert same(found, wanted)
    return found
