"""Schedule-Free: the average of the weights does what a decaying learning rate does."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UsageError
from ..formula import Hyper
from ..optim.base import FormulaOptimizer
from .base import Closure, Wrapper
from .between import FromZToY, start_at, write_y
from .tensors import copy_, lerp_


class ScheduleFree(Wrapper):
    """Schedule-Free learning around any optimizer: train at y, step z, evaluate the average x.

        lr_t = lr * min(1, t / warmup_steps)
        z = base(z - lr_t * weight_decay * y, g(y)) with learning rate lr_t
        c = a_t / (a_1 + ... + a_t),  a_t = t**r * max(lr_1, ..., lr_t)**weight_lr_power
        x = (1 - c) * x + c * z
        y = (1 - beta) * z + beta * x

    Source: Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky 2024, "The Road Less Scheduled", its
    section 1 for SGD and Algorithm 1 for AdamW, arXiv:2405.15682; weight decay at y, the warm-up and the
    weights of the average are those of the authors' package, schedulefree 1.3 and later. Around
    SGD(momentum=0) this is its SGDScheduleFree; around Adam(betas=(0, beta2)) its AdamWScheduleFree. `beta`
    takes the place of the base's momentum; weight decay of the base acts at z.

    Deviations: x is kept beside z, not recovered from y (one more tensor for each parameter; in exchange beta
    may be 0, which is Polyak-Ruppert averaging, and switching to and fro changes no bit); x of half-precision
    weights is float32; Adam's count is each parameter's own; training is the mode at the start.

    The parameters hold y while training and x in between: `with opt.applied():` or opt.eval() and
    opt.train(). The mode is hard to forget: step() in eval mode raises; with `model` given, so does a forward
    pass in model.eval() without gradients while y is in place; changing the parameters between steps raises
    at the next (z and x would undo it). Batch normalisation needs statistics of x: inside applied(),
    `torch.optim.swa_utils.update_bn(loader, model)`.

    A state dict may be taken in either mode: it holds x, z and the mode, and loading it sets the parameters
    to match. To publish, save the model's state dict inside applied().

    Args:
        base: the optimizer that steps z; its lr is the rate after the warm-up.
        beta: how near to x the gradient is taken, in [0, 1].
        weight_decay: decoupled decay, at y, times the learning rate, from 0.
        warmup_steps: steps of linear warm-up, a whole number from 0.
        r: power of t in the average's weights, from 0.
        weight_lr_power: power of the learning rate in the average's weights, from 0.
        model: the model to watch for evaluation at y.
        All but the last by group, as `group["schedule_free_beta"]`.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> opt = ScheduleFree(torch.optim.SGD([w], lr=0.5))
    >>> for _ in range(2):
    ...     opt.zero_grad()
    ...     w.sum().backward()
    ...     opt.step()
    >>> with opt.applied():
    ...     w.item()  # z was 0.5 and 0
    0.25
    >>> opt.eval()
    >>> opt.step()
    Traceback (most recent call last):
    descend.errors.UsageError: step() in eval mode: the parameters hold the average; call train() first

    Raises:
        UsageError: a value out of range; step() in eval mode; parameters changed from outside.
    """

    tag = "schedule_free"
    hypers: ClassVar = {
        "beta": Hyper(0.9, "[0, 1]", "how near to the average the gradient is taken"),
        "weight_decay": Hyper(0.0, "[0, inf)", "decoupled decay at y"),
        "warmup_steps": Hyper(0, "[0, inf)", "steps of linear warm-up"),
        "r": Hyper(0.0, "[0, inf)", "power of t in the average's weights"),
        "weight_lr_power": Hyper(2.0, "[0, inf)", "power of the learning rate in the average's weights"),
    }
    counts: ClassVar = {"steps": 0, "weight_sum": 0.0, "lr_max": 0.0, "evaluating": 0}
    tensors = ("x", "z")
    _detour: FromZToY | None = None
    _versions: Sequence[int] = ()

    def __init__(
        self,
        base: Optimizer,
        beta: float = 0.9,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        model: nn.Module | None = None,
    ) -> None:
        super().__init__(
            base,
            beta=beta,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            r=r,
            weight_lr_power=weight_lr_power,
        )
        if model is not None:
            model.register_forward_pre_hook(_Watch(self))

    @property
    def training(self) -> bool:
        """Whether the parameters hold y, where gradients are taken; else x, to be evaluated."""
        return not self._get("evaluating")

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Take one step with the gradient at y."""
        if not self.training:
            raise UsageError("step() in eval mode: the parameters hold the average; call train() first")
        self._refuse_changes()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rates = [group["lr"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                steps, warmup = self._get("steps", group) + 1, self._get("warmup_steps", group)
                if steps < warmup:
                    group["lr"] = group["lr"] * (steps / warmup)
            if not self._step_by_detour():
                self._step_by_hand()
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate
        return loss

    def _step_by_detour(self) -> bool:
        """As one program, where there can be one."""
        if self._detour is None or self._detour.kept is not self.kept:
            self._detour = FromZToY(self.kept)
        if not self._step_by(self._detour):
            return False
        for group in self.param_groups:
            self._share(group)
        self._note_versions()
        return True

    def _step_by_hand(self) -> None:
        """z is put in place for the base's step, and y after it."""
        active = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        try:
            for group, params in zip(self.param_groups, active, strict=True):
                self._to_z(group, params)
            self.base.step()
        except BaseException:
            for group, params in zip(self.param_groups, active, strict=True):
                self._to_y(group, params)
            self._note_versions()
            raise
        for group, params in zip(self.param_groups, active, strict=True):
            zs = [self.kept[p]["z"] for p in params]
            copy_(zs, params)
            lerp_([self.kept[p]["x"] for p in params], zs, self._share(group))
            self._extrapolate(group, params, params)
        self._note_versions()

    def _to_z(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Puts z, decayed, in place."""
        for p in params:
            start_at(p, self.kept[p])
        zs = [self.kept[p]["z"] for p in params]
        decay = float(group["lr"]) * self._get("weight_decay", group)
        if decay and params:
            torch._foreach_mul_(params, -decay)
            torch._foreach_add_(params, zs)
        else:
            copy_(params, zs)

    def _share(self, group: dict[str, Any]) -> float:
        """Counts the step; the share of the newest z in the average."""
        steps = self._get("steps", group) + 1
        largest = max(float(group["lr"]), self._get("lr_max", group))
        weight = steps ** self._get("r", group) * largest ** self._get("weight_lr_power", group)
        total = self._get("weight_sum", group) + weight
        for name, value in (("steps", steps), ("lr_max", largest), ("weight_sum", total)):
            self._set(name, value, group)
        return float(weight / total) if total else 0.0

    def _to_y(self, group: dict[str, Any], params: list[Tensor], into: list[Tensor] | None = None) -> None:
        """Puts y in place, or elsewhere."""
        into = params if into is None else into
        copy_(into, [self.kept[p]["z"] for p in params])
        self._extrapolate(group, params, into)

    def _extrapolate(self, group: dict[str, Any], params: list[Tensor], zs: list[Tensor]) -> None:
        """From z, in whatever tensors, to y."""
        xs, beta = [self.kept[p]["x"] for p in params], float(self._get("beta", group))
        if isinstance(self.base, FormulaOptimizer):
            write_y(zs, xs, beta)
        else:
            lerp_(zs, xs, beta)

    def _note_versions(self) -> None:
        self._versions = [p._version for group in self.param_groups for p in group["params"]]

    def _refuse_changes(self) -> None:
        versions = [p._version for group in self.param_groups for p in group["params"]]
        if versions == self._versions:
            return
        known = dict(zip(self._params(), self._versions, strict=False))
        for group in self.param_groups:
            changed = [p for p in group["params"] if "z" in self.kept[p] and known.get(p) != p._version]
            ys = [torch.empty_like(p, requires_grad=False) for p in changed]
            self._to_y(group, changed, ys)
            for p, y in zip(changed, ys, strict=True):
                if not torch.equal(p, y):
                    raise UsageError(
                        f"a parameter of shape {tuple(p.shape)} was changed since the last step, by "
                        "something else than this optimizer, which keeps z and x and would undo the change. "
                        "Load weights before the first step, or the optimizer's state dict after the model's"
                    )
        self._versions = versions

    @torch.no_grad()
    def train(self) -> None:
        """Put y in place, where gradients are taken. Nothing where it is."""
        self._switch(evaluating=False)

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x in place. Nothing where it is."""
        if self.training:
            self._refuse_changes()
        self._switch(evaluating=True)

    def _switch(self, evaluating: bool) -> None:
        if self.training == evaluating:
            self._set("evaluating", int(evaluating))
            self._loaded()

    def _loaded(self) -> None:
        """Sets the parameters to what the mode says they are."""
        for group in self.param_groups:
            params = [p for p in group["params"] if "z" in self.kept[p]]
            if self.training:
                self._to_y(group, params)
            else:
                copy_(params, [self.kept[p]["x"] for p in params])
        self._note_versions()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average is in place inside the `with` block; afterwards what was there before, to the bit."""
        if not self.training:
            yield
            return
        self.eval()
        try:
            yield
        finally:
            self.train()


class _Watch:
    """A hook of the model that notices when y is evaluated; copies of the model are not watched."""

    def __init__(self, optimizer: ScheduleFree | None) -> None:
        self.optimizer = None if optimizer is None else weakref.ref(optimizer)

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        optimizer = None if self.optimizer is None else self.optimizer()
        if optimizer is None or module.training or torch.is_grad_enabled():
            return
        if optimizer.kept and optimizer.training:
            raise UsageError(
                "the model is evaluated while the optimizer is in train mode: its parameters are where "
                "gradients are taken, not the average; evaluate inside `with optimizer.applied():`"
            )

    def __reduce__(self) -> Any:
        return _Watch, (None,)
