"""Sharpness-aware minimisation: the gradient of the worst point nearby, at the weights as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import UsageError
from ..formula import Hyper
from .base import Closure, Wrapper
from .climbing import Climber, FromSaved
from .tensors import add_scaled_, copy_, norm


class SAM(Wrapper):
    """SAM: two gradients a step, the second at the point nearby where the loss is about worst.

        e = rho * g(w) / ||g(w)||        the norm over all parameters of all groups
        w = base(w, g(w + e))

    Source: Foret, Kleiner, Mobahi and Neyshabur 2021, "Sharpness-Aware Minimization for Efficiently Improving
    Generalization", Algorithm 1 with p = 2, arXiv:2010.01412.

    Deviations: 1e-12 is added to the norm, as in the best-known implementation (davda54/sam), so that a zero
    gradient stays put. The weights come back as the bits they were, not by subtracting `e`. A parameter that
    has no gradient is not moved; one whose second gradient is missing comes back all the same.

    Args:
        base: the optimizer that takes the step with the second gradient.
        rho: radius of the neighbourhood, from 0 (which is the base alone); by group and schedule in
            `group["sam_rho"]`.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> opt = SAM(torch.optim.SGD([w], lr=0.1), rho=0.5)
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = w.square().sum() / 2
    ...     loss.backward()
    ...     return loss
    >>> opt.step(closure).item()  # the closure runs twice; the loss is that of the first time
    12.5
    >>> w.tolist()  # w - 0.1 * (w + 0.5 * w / 5)
    [2.6700000762939453, 3.559999942779541]

    For those who hold the loop:

    >>> opt.zero_grad()
    >>> (w.square().sum() / 2).backward()
    >>> opt.first_step()  # the weights are at w + e, the gradients are cleared
    >>> (w.square().sum() / 2).backward()
    >>> opt.second_step()  # back at w, and the base's step from there

    Raises:
        UsageError: rho out of range, or steps in the wrong order.
    """

    tag = "sam"
    hypers: ClassVar = {"rho": Hyper(0.05, "[0, inf)", "radius of the neighbourhood")}
    counts: ClassVar = {"perturbed": 0}
    tensors = ("saved",)
    floor: ClassVar[float] = 1e-12
    _climber: Climber | None = None
    _climbable = True
    _detour: FromSaved | None = None

    def __init__(self, base: Optimizer, rho: float = 0.05) -> None:
        super().__init__(base, rho=rho)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Take one step with two gradients; returns the first loss.

        `closure` clears the gradients, computes the loss, calls backward and returns the loss; it runs twice.
        Without a closure, after first_step(), this is second_step() (which is how a GradScaler calls it).
        """
        if closure is None:
            if self._get("perturbed"):
                return self._second()
            raise UsageError(
                f"{type(self).__name__} needs two gradients a step: call step(closure), where the closure "
                "clears the gradients, computes the loss and calls backward(); or loss.backward(), "
                "first_step(), the loss and backward() once more, second_step()"
            )
        with torch.enable_grad():
            loss = closure()
        self.first_step()
        try:
            with torch.enable_grad():
                closure()
        except BaseException:
            self.restore()
            raise
        self._second()
        return loss

    @torch.no_grad()
    def first_step(self) -> None:
        """Climb to the worst point nearby, and clear the gradients: compute them anew there."""
        if self._get("perturbed"):
            raise UsageError(
                "first_step() came twice; second_step() or restore() takes the weights back first"
            )
        params = [p for p in self._params() if p.grad is not None]
        if any(p.grad is not None and p.grad.layout != torch.strided for p in params):
            raise UsageError(
                f"{type(self).__name__} takes no sparse gradients: use a layer with sparse=False"
            )
        if not params:
            raise UsageError("no parameter has a gradient: call loss.backward() before first_step()")
        if not self._climb_by_kernel():
            self._climb_by_hand()
        self._set("perturbed", 1)
        for p in params:
            p.grad = None

    def _climb_by_kernel(self) -> bool:
        if self._climbable and self._climber is None:
            self._climber, self._detour = Climber(self.tag, self._scales), None
        self._climbable = self._climber is not None and self._climber.climb(self.param_groups, self.kept)
        return self._climbable

    def _climb_by_hand(self) -> None:
        groups: list[tuple[float, list[Tensor], list[Tensor]]] = []
        lengths: list[Tensor] = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            measured, climb = self._directions(group, params, [p.grad for p in params])
            lengths += measured
            groups.append((self._get("rho", group), params, climb))
        length = norm(lengths) + self.floor
        for rho, params, climb in groups:
            for p in params:
                self.kept[p]["saved"] = p.clone(memory_format=torch.preserve_format)
            add_scaled_(params, climb, rho / length)

    def _directions(
        self, group: dict[str, Any], params: Sequence[Tensor], grads: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the norm is taken of, and the way up: the gradient and the gradient."""
        return grads, grads

    @property
    def _scales(self) -> Callable[[Tensor], bool] | None:
        """Which parameters are measured in units of themselves; None where none ever is."""
        return None

    def second_step(self) -> None:
        """Take the weights back and step the base with the gradients found at the worst point."""
        if not self._get("perturbed"):
            raise UsageError("second_step() follows first_step() and a second backward()")
        self.step()

    def _second(self) -> None:
        params = self._params()
        stepped = [p for p in params if p.grad is not None]
        if not stepped:
            self.restore()
            raise UsageError("second_step() found no gradient: call backward() between first_step() and it")
        if all("saved" in self.kept.get(p, {}) for p in stepped) and self._step_from_saved():
            for p in stepped:
                del self.kept[p]["saved"]
            self.restore()  # those without a second gradient
        else:
            self.restore()
            self.base.step()

    def _step_from_saved(self) -> bool:
        if self._detour is None or self._detour.kept is not self.kept:
            self._detour = FromSaved(self.kept)
        try:
            return self._step_by(self._detour)
        except BaseException:
            self.restore()
            raise

    @torch.no_grad()
    def restore(self) -> None:
        """Take the weights back without a step; nothing where they were not moved.

        After a GradScaler's step, which leaves second_step() out when a gradient is infinite.
        """
        moved = [p for p in self._params() if "saved" in self.kept.get(p, {})]
        copy_(moved, [self.kept[p].pop("saved") for p in moved])
        self._set("perturbed", 0)

    def _loaded(self) -> None:
        self._climber = self._detour = None  # they hold the weights that were saved here
