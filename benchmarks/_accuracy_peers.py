"""optax and Keras as contenders of the accuracy table, where they have the rule and can be imported.

Each runs with the hyper-parameters at which its formula is ours: eps = 0 where it stands elsewhere, the same
start of an accumulator, NAdam's decay as the library has it. A peer's error is measured against our formula
with those same hyper-parameters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

try:
    import jax
    import optax
    from ml_dtypes import bfloat16

    jax.config.update("jax_enable_x64", True)
except ImportError:
    optax = None
try:
    import keras
except ImportError:
    keras = None

Made = Callable[[Mapping[str, float]], Any]


def _adam(h: Mapping[str, float]) -> dict[str, float]:
    return {"b1": h["beta1"], "b2": h["beta2"], "eps": h["eps"]}


def _rms(h: Mapping[str, float], **more: Any) -> Any:
    return optax.rmsprop(h["lr"], h["alpha"], h["eps"], eps_in_sqrt=False, **more)


OPTAX: dict[str, tuple[dict[str, float], Made]] = {
    "gradient_descent": ({}, lambda h: optax.sgd(h["lr"])),
    "momentum": ({"dampening": 0.0}, lambda h: optax.sgd(h["lr"], h["momentum"])),
    "nesterov": ({}, lambda h: optax.sgd(h["lr"], h["momentum"], nesterov=True)),
    "adagrad": (
        {"lr_decay": 0.0, "eps": 0.0},
        lambda h: optax.adagrad(h["lr"], h["initial_accumulator_value"], 0.0),
    ),
    "adadelta": ({}, lambda h: optax.adadelta(h["lr"], h["rho"], h["eps"])),
    "rmsprop": ({}, _rms),
    "rmsprop_centered": ({}, lambda h: _rms(h, centered=True)),
    "rmsprop_momentum": ({}, lambda h: _rms(h, momentum=h["momentum"])),
    "rmsprop_centered_momentum": ({}, lambda h: _rms(h, centered=True, momentum=h["momentum"])),
    "adam": ({}, lambda h: optax.adam(h["lr"], **_adam(h))),
    "adamw": ({}, lambda h: optax.adamw(h["lr"], weight_decay=h["weight_decay"], **_adam(h))),
    "adamax": ({}, lambda h: optax.adamax(h["lr"], **_adam(h))),
    "radam": ({"eps": 0.0}, lambda h: optax.radam(h["lr"], threshold=5.0, **_adam(h))),
}
"""What our hyper-parameters must be for optax's formula to be ours, and optax's rule."""


def _k(kind: str, h: Mapping[str, float], **more: Any) -> Any:
    betas = {"beta_1": h["beta1"], "beta_2": h["beta2"]} if "beta1" in h else {}
    return getattr(keras.optimizers, kind)(h["lr"], **betas, **more)


def _krms(h: Mapping[str, float], **more: Any) -> Any:
    return _k("RMSprop", h, rho=h["alpha"], epsilon=0.0, **more)


KERAS: dict[str, tuple[dict[str, float], Made]] = {
    "gradient_descent": ({}, lambda h: _k("SGD", h)),
    "momentum": ({"dampening": 0.0}, lambda h: _k("SGD", h, momentum=h["momentum"])),
    "nesterov": ({}, lambda h: _k("SGD", h, momentum=h["momentum"], nesterov=True)),
    "adagrad": (
        {"lr_decay": 0.0, "eps": 0.0},
        lambda h: _k("Adagrad", h, initial_accumulator_value=h["initial_accumulator_value"], epsilon=0.0),
    ),
    "adadelta": ({}, lambda h: _k("Adadelta", h, rho=h["rho"], epsilon=h["eps"])),
    "rmsprop": ({"eps": 0.0}, _krms),
    "rmsprop_centered": ({"eps": 0.0}, lambda h: _krms(h, centered=True)),
    "rmsprop_momentum": ({"eps": 0.0}, lambda h: _krms(h, momentum=h["momentum"])),
    "rmsprop_centered_momentum": ({"eps": 0.0}, lambda h: _krms(h, centered=True, momentum=h["momentum"])),
    "adam": ({"eps": 0.0}, lambda h: _k("Adam", h, epsilon=0.0)),
    "adamw": ({"eps": 0.0}, lambda h: _k("AdamW", h, epsilon=0.0, weight_decay=h["weight_decay"])),
    "adamax": ({"eps": 0.0}, lambda h: _k("Adamax", h, epsilon=0.0)),
    "nadam": ({"momentum_decay": 1.0}, lambda h: _k("Nadam", h, epsilon=h["eps"])),
    "amsgrad": ({"eps": 0.0}, lambda h: _k("Adam", h, epsilon=0.0, amsgrad=True)),
}
"""The same for Keras."""


class Optax:
    """optax's rule on one array, compiled by XLA."""

    def __init__(self, made: Any, p: torch.Tensor) -> None:
        self.array = _to_jax(p)
        self.state = made.init(self.array)

        def step(g: Any, state: Any, p: Any) -> Any:
            change, state = made.update(g, state, p)
            return optax.apply_updates(p, change), state

        self.run = jax.jit(step)

    @property
    def p(self) -> torch.Tensor:
        """The parameter, in float64."""
        return torch.from_numpy(np.asarray(self.array).astype(np.float64))

    def step(self, g: torch.Tensor) -> None:
        """Take a step."""
        self.array, self.state = self.run(_to_jax(g), self.state, self.array)


def _to_jax(x: torch.Tensor) -> Any:
    if x.dtype == torch.bfloat16:
        return jax.numpy.asarray(x.view(torch.int16).numpy().view(bfloat16))
    return jax.numpy.asarray(x.numpy().copy())


class Keras:
    """Keras's rule on one variable, on its torch back end."""

    def __init__(self, made: Any, p: torch.Tensor) -> None:
        self.made = made
        self.variable = keras.Variable(p.detach().clone(), dtype=str(p.dtype).removeprefix("torch."))

    @property
    def p(self) -> torch.Tensor:
        """The parameter."""
        return self.variable.value.detach()

    def step(self, g: torch.Tensor) -> None:
        """Take a step in place."""
        self.made.apply([g], [self.variable])


def peers(name: str) -> dict[str, tuple[dict[str, float], Callable[[Any, torch.Tensor], Any]]]:
    """The libraries that can be imported and have the rule: {library: (our hyper-parameters, maker)}."""
    found: dict[str, tuple[dict[str, float], Callable[[Any, torch.Tensor], Any]]] = {}
    if optax is not None and name in OPTAX:
        changed, made = OPTAX[name]
        found["optax"] = changed, lambda line, p, made=made: Optax(made(line.values), p)
    if keras is not None and name in KERAS:
        changed, made = KERAS[name]
        found["Keras"] = changed, lambda line, p, made=made: Keras(made(line.values), p)
    return found
