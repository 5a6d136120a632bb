"""What EMA and SWA share: an average of the weights that goes on with every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UsageError
from .base import Closure
from .swapping import Swapping
from .tensors import averaging_dtype, copy_, lerp_


class Averaging(Swapping):
    """average = average + weight * (w - average) after a step; a subclass says with which weight."""

    counts: ClassVar = {"steps": 0, "averaged": 0}
    tensors = ("average",)
    average = "average"

    def __init__(self, base: Optimizer, model: nn.Module | None, **values: float) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise UsageError(
                f"model must be a torch.nn.Module, whose buffers are averaged too; got {model!r:.80}"
            )
        self._model = model
        self._buffers: dict[str, Tensor] = {}
        super().__init__(base, **values)

    def _weight(self, group: Mapping[str, Any], steps: int, averaged: int) -> float | None:
        """The weight of the newest parameters; None where this step is left out."""
        raise NotImplementedError

    def _start(self, params: list[Tensor]) -> None:
        for p in params:
            if "average" not in self.kept[p]:
                dtype = averaging_dtype(p)
                self.kept[p]["average"] = p.detach().to(dtype, copy=True, memory_format=torch.preserve_format)

    def _live_buffers(self) -> dict[str, Tensor]:
        return {} if self._model is None else dict(self._model.named_buffers())

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Step the base, then the average."""
        self._refuse_while_applied("step()")
        self._before()
        loss = self.base.step(closure)
        for number, group in enumerate(self.param_groups):
            steps, averaged = self._get("steps", group) + 1, self._get("averaged", group)
            self._set("steps", steps, group)
            weight = self._weight(group, steps, averaged)
            if weight is None:
                continue
            params = group["params"]
            self._start(params)
            lerp_([self.kept[p]["average"] for p in params], params, weight)
            self._set("averaged", averaged + 1, group)
            if number == 0:
                self._average_buffers(weight)
        return loss

    def _before(self) -> None:
        """Called before the base's step."""

    def _average_buffers(self, weight: float) -> None:
        live = self._live_buffers()
        for name, buffer in live.items():  # they start after the first forward pass
            if name not in self._buffers:
                self._buffers[name] = buffer.detach().to(averaging_dtype(buffer), copy=True)
        real = [name for name, b in live.items() if b.is_floating_point() or b.is_complex()]
        lerp_([self._buffers[n] for n in real], [live[n] for n in real], weight)
        whole = [name for name in live if name not in real]
        copy_([self._buffers[n] for n in whole], [live[n] for n in whole])

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        params, averages = super()._pairs()
        live = {name: b for name, b in self._live_buffers().items() if name in self._buffers}
        return [*params, *live.values()], [*averages, *(self._buffers[name] for name in live)]

    def state_dict(self) -> dict[str, Any]:
        """The state dict; with a model, the averaged buffers by name under `<tag>_buffers`."""
        packed = super().state_dict()
        return {**packed, f"{self.tag}_buffers": dict(self._buffers)} if self._model else packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a state dict was taken; outside applied() only."""
        key = f"{self.tag}_buffers"
        saved = state_dict.get(key)
        live = self._live_buffers()
        if (saved is None) != (self._model is None):
            raise UsageError(
                f"the state dict was taken {'without' if saved is None else 'with'} averaged buffers: make "
                f"{type(self).__name__} {'without' if saved is None else 'with'} model=model, as it was then"
            )
        for name, value in (saved or {}).items():
            if name not in live or live[name].shape != value.shape:
                raise UsageError(f"the saved average of the buffer {name!r} fits no buffer of the model")
        super().load_state_dict({k: v for k, v in state_dict.items() if k != key})
        self._buffers = {
            name: b.detach().to(live[name].device, copy=True) for name, b in (saved or {}).items()
        }
