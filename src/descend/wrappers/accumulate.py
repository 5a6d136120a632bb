"""Gradient accumulation: one step for the gradients of several batches."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import UsageError
from ..formula import Hyper
from .base import Closure, Wrapper
from .tensors import alike, averaging_dtype, sets


class Accumulate(Wrapper):
    """Accumulation: `every` batches make one step, with the gradient of the mean over all their samples.

        g = (n_1 * g_1 + ... + n_k * g_k) / (n_1 + ... + n_k)
        w = base(w, g)

    g_i is the gradient of the mean loss of batch i, of n_i samples. So the step is that of one large batch,
    whatever the sizes of the parts: a short last batch, or a short last window, which `flush()` steps with
    what there is. No source: this is the linearity of the gradient. (Batch normalisation still sees the small
    batches.)

    `step()` after every backward() takes the gradients over and leaves none behind, so zero_grad() in the
    loop is allowed and not needed; `opt.stepped` says whether the base took a step (and a schedule should
    too). A parameter without a gradient in some batch counts there as zero. In a window give `samples`
    always, or never (equal sizes). Clip the whole window's gradient in a pre-hook of the base:
    `opt.base.register_step_pre_hook(...)`.

    Args:
        base: the optimizer that takes a step at the end of each window.
        every: batches in a window, a whole number from 1 (the base alone); `group["accumulate_every"]`.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([0.0]))
    >>> opt = Accumulate(torch.optim.SGD([w], lr=1.0), every=2)
    >>> for batch in torch.arange(1.0, 6.0).split(3):  # 1 2 3, and 4 5
    ...     (w * batch).mean().backward()
    ...     opt.step(samples=len(batch))
    >>> w.item(), opt.stepped  # the mean of 1 2 3 4 5
    (-3.0, True)
    >>> opt.flush()  # nothing is left over

    Raises:
        UsageError: a value out of range; samples given for some batches of a window only.
    """

    tag = "accumulate"
    hypers: ClassVar = {"every": Hyper(2, "[1, inf)", "batches in a window")}
    counts: ClassVar = {"batches": 0, "samples": 0.0, "first": 1.0, "counted": 0}
    tensors = ("sum",)

    def __init__(self, base: Optimizer, every: int) -> None:
        self.stepped = False
        super().__init__(base, every=every)

    @torch.no_grad()
    def step(self, closure: Closure | None = None, *, samples: float | None = None) -> Any:
        """Take over the gradients of a batch; at the end of a window, step the base.

        `samples` is the number over which the batch's loss is the mean.
        """
        batches = self._get("batches")
        if samples is not None and not (samples > 0 and math.isfinite(samples)):
            raise UsageError(f"samples must be a finite number above 0, got {samples!r}")
        if batches and (samples is not None) != bool(self._get("counted")):
            raise UsageError(
                "samples were given for some batches of this window and not for others: give them always, or "
                "never where all batches have the same size"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        number = 1.0 if samples is None else float(samples)
        if not batches:
            self._set("first", number)
            self._set("counted", int(samples is not None))
        self._gather(number / self._get("first"))
        self._set("samples", self._get("samples") + number)
        self._set("batches", batches + 1)
        self.stepped = batches + 1 >= self._get("every")
        if self.stepped:
            self._step()
        return loss

    def flush(self) -> None:
        """Step with the batches of a window that is not full, for instance at the end of an epoch."""
        self.stepped = self._get("batches") > 0
        if self.stepped:
            self._step()

    def _gather(self, weight: float) -> None:
        sums: list[Tensor] = []
        grads: list[Tensor] = []
        for p in self._params():
            g, p.grad = p.grad, None
            if g is None:
                continue
            if "sum" in self.kept[p]:
                sums.append(self.kept[p]["sum"])
                grads.append(g)
            else:
                g = g.detach().to(averaging_dtype(g))
                self.kept[p]["sum"] = g if weight == 1 else g * weight
        for into, more in sets(sums, grads):
            torch._foreach_add_(into, alike(more, into[0].dtype), alpha=weight)

    @torch.no_grad()
    def _step(self) -> None:
        """The gradient of the window becomes the parameters', for one step of the base."""
        params = [p for p in self._params() if "sum" in self.kept[p]]
        sums = [self.kept[p].pop("sum") for p in params]
        total = self._get("samples") / self._get("first")
        if total != 1:
            for (some,) in sets(sums):
                torch._foreach_div_(some, total)
        for p, g in zip(params, sums, strict=True):
            p.grad = g.to(p.dtype)
        for name, start in self.counts.items():
            self._set(name, start)
        self.base.step()
        for p in params:
            p.grad = None
