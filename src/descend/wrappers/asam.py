"""Adaptive SAM: a neighbourhood that is measured in units of the weights themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UsageError
from ..formula import Hyper
from .sam import SAM


class ASAM(SAM):
    """ASAM: SAM in a neighbourhood that scales with the weights, element by element.

        T = |w| + eta       for a parameter whose name holds "weight", 1 for the others (biases)
        e = rho * T**2 * g(w) / ||T * g(w)||
        w = base(w, g(w + e))

    Source: Kwon, Kim, Park and Choi 2021, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant
    Learning of Deep Neural Networks", Algorithm 1, arXiv:2102.11600; what counts as a weight, eta, the 1e-16
    that is added to the norm, and the defaults are those of the authors' code (SamsungLabs/ASAM).

    Deviation: the weights come back as the bits they were. pytorch_optimizer's `SAM(adaptive=True)` is this
    with eta = 0 and every parameter a weight.

    Args:
        base: the optimizer that takes the step. Give it `model.named_parameters()`, for the names.
        rho: radius of the neighbourhood, from 0 (the base alone); `group["asam_rho"]`.
        eta: keeps elements near zero movable, from 0; `group["asam_eta"]`.
        model: where the names come from when the base does not know them.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> opt = ASAM(torch.optim.SGD(model.named_parameters(), lr=0.1), rho=0.5)
    >>> x, y = torch.ones(4, 2), torch.zeros(4, 1)
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = torch.nn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     return loss
    >>> first = opt.step(closure)
    >>> bool(opt.step(closure) < first)
    True

    Raises:
        UsageError: a value out of range, parameters without names, or steps in the wrong order.
    """

    tag = "asam"
    hypers: ClassVar = {
        "rho": Hyper(0.5, "[0, inf)", "radius of the neighbourhood, in units of the weights"),
        "eta": Hyper(0.01, "[0, inf)", "added to |w|"),
    }
    floor = 1e-16

    def __init__(
        self, base: Optimizer, rho: float = 0.5, eta: float = 0.01, *, model: nn.Module | None = None
    ) -> None:
        self._model_names = {} if model is None else {p: name for name, p in model.named_parameters()}
        self._scaled: dict[Tensor, bool] = {}
        for group in getattr(base, "param_groups", []):  # a base that is refused stays as it was
            self._name(group)
        super(SAM, self).__init__(base, rho=rho, eta=eta)

    def _name(self, group: dict[str, Any]) -> None:
        names = group.get("param_names") or [self._model_names.get(p) for p in group["params"]]
        for p, name in zip(group["params"], names, strict=True):
            if name is None:
                raise UsageError(
                    "ASAM treats weights and biases differently and knows them by name: make the base with "
                    "model.named_parameters(), or give ASAM model=model"
                )
            self._scaled[p] = "weight" in name

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of named parameters, or of the model's."""
        super().add_param_group(param_group)
        try:
            self._name(self.param_groups[-1])
        except UsageError:
            self.param_groups.pop()
            raise

    @property
    def _scales(self) -> Callable[[Tensor], bool] | None:
        return self._scaled.__getitem__

    def _directions(
        self, group: dict[str, Any], params: Sequence[Tensor], grads: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        eta = self._get("eta", group)
        scales = [p.abs().add_(eta) if self._scaled[p] else None for p in params]
        measured = [g if t is None else t * g for t, g in zip(scales, grads, strict=True)]
        return measured, [g if t is None else t * g for t, g in zip(scales, measured, strict=True)]
