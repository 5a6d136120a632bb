"""optax 0.2.8's optimizers in NumPy, written from optax/_src and optax/contrib, one tensor and one step each.

Each takes the parameter, its gradient, the step from 1 and a dict of its own for what it keeps, under optax's
names and with optax's defaults (a learning_rate that has none there has none here), and returns the new
parameter. A test holds the dialect "optax" to them; `benchmarks/oracles.py --dialects` runs the same dialect
beside optax itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Kept = dict[str, Any]


def moment(g: Any, kept: Kept, word: str, decay: float, order: int = 1) -> Any:
    """optax.tree.update_moment."""
    kept[word] = (1 - decay) * g**order + decay * kept.get(word, 0.0)
    return kept[word]


def trace(u: Any, kept: Kept, decay: float | None, nesterov: bool = False) -> Any:
    """optax.trace, left out for None."""
    if decay is None:
        return u
    kept["trace"] = u + decay * kept.get("trace", 0.0)
    return u + decay * kept["trace"] if nesterov else kept["trace"]


def sgd(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    momentum: float | None = None,
    nesterov: bool = False,
) -> Any:
    return p - learning_rate * trace(g, kept, momentum, nesterov)


def adagrad(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
) -> Any:
    s = kept["s"] = g**2 + kept.get("s", initial_accumulator_value)
    return p - learning_rate * np.where(s > 0, 1 / np.sqrt(s + eps), 0.0) * g


def adadelta(
    p: Any, g: Any, t: int, kept: Kept, *, learning_rate: float, rho: float = 0.9, eps: float = 1e-6
) -> Any:
    e_g = moment(g, kept, "e_g", rho, 2)
    u = np.sqrt(kept.get("e_x", 0.0) + eps) / np.sqrt(e_g + eps) * g
    moment(u, kept, "e_x", rho, 2)
    return p - learning_rate * u


def rmsprop(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    centered: bool = False,
    momentum: float | None = None,
) -> Any:
    kept.setdefault("nu", np.full_like(p, initial_scale))
    mean = moment(g, kept, "mu", decay) if centered else 0.0
    nu = moment(g, kept, "nu", decay, 2)
    return p - trace(learning_rate * g / np.sqrt(nu - mean**2 + eps), kept, momentum)


def adam(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Any:
    mu, nu = moment(g, kept, "mu", b1), moment(g, kept, "nu", b2, 2)
    hat = mu / (1 - b1**t)
    if nesterov:
        hat = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    u = hat / (np.sqrt(nu / (1 - b2**t) + eps_root) + eps)
    return p - learning_rate * (u + weight_decay * p)


def adamw(p: Any, g: Any, t: int, kept: Kept, weight_decay: float = 1e-4, **given: Any) -> Any:
    return adam(p, g, t, kept, weight_decay=weight_decay, **given)


def amsgrad(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Any:
    mu, nu = moment(g, kept, "mu", b1), moment(g, kept, "nu", b2, 2)
    top = kept["nu_max"] = np.maximum(kept.get("nu_max", 0.0), nu / (1 - b2**t))
    return p - learning_rate * (mu / (1 - b1**t)) / (np.sqrt(top + eps_root) + eps)


def adamax(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Any:
    mu = moment(g, kept, "mu", b1)
    nu = kept["nu"] = np.maximum(np.abs(g) + eps, b2 * kept.get("nu", 0.0))
    return p - learning_rate * (mu / (1 - b1**t)) / nu


def radam(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
) -> Any:
    mu, nu = moment(g, kept, "mu", b1), moment(g, kept, "nu", b2, 2)
    hat, last = mu / (1 - b1**t), 2.0 / (1.0 - b2) - 1.0
    ro = last - 2 * t * b2**t / (1 - b2**t)
    if ro < threshold:
        return p - learning_rate * hat
    r = np.sqrt((ro - 4) * (ro - 2) * last / ((last - 4) * (last - 2) * ro))
    return p - learning_rate * r * hat / (np.sqrt(nu / (1 - b2**t) + eps_root) + eps)


def rprop(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> Any:
    step = kept.get("step", np.full_like(p, learning_rate))
    before = kept.get("update", np.zeros_like(p))
    sign = g * before
    scaled = np.clip(step * np.where(sign > 0, eta_plus, eta_minus), min_step_size, max_step_size)
    step = kept["step"] = np.where(sign == 0, step, scaled)
    kept["update"] = np.where(sign < 0, 0.0, step * np.sign(g))
    return p - np.where(sign < 0, 0.0, before)


def lion(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 1e-3,
) -> Any:
    u = np.sign((1.0 - b1) * g + b1 * kept.get("mu", 0.0))
    moment(g, kept, "mu", b2)
    return p - learning_rate * (u + weight_decay * p)


def yogi(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    initial_accumulator_value: float = 1e-6,
) -> Any:
    kept.setdefault("mu", initial_accumulator_value)
    nu = kept.get("nu", initial_accumulator_value)
    mu = moment(g, kept, "mu", b1)
    nu = kept["nu"] = nu - (1 - b2) * np.sign(nu - g**2) * g**2
    return p - learning_rate * (mu / (1 - b1**t)) / (np.sqrt(nu / (1 - b2**t)) + eps)


def adan(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 1e-8,
    weight_decay: float = 0.0,
) -> Any:
    diff = g - kept["g"] if t > 1 else np.zeros_like(g)
    kept["g"] = g
    m, v = moment(g, kept, "m", b1), moment(diff, kept, "v", b2)
    n = moment(g + (1 - b2) * diff, kept, "n", b3, 2)
    u = m / (1 - b1**t) + (1 - b2) * v / (1 - b2**t)
    return p - learning_rate * (u / (np.sqrt(n / (1 - b3**t) + eps_root) + eps) + weight_decay * p)


def trust(p: Any, u: Any, coefficient: float = 1.0) -> Any:
    """optax.scale_by_trust_ratio."""
    a, b = np.linalg.norm(p), np.linalg.norm(u)
    return u * (1.0 if a == 0 or b == 0 else coefficient * a / b)


def lamb(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    eps: float = 1e-6,
    **given: Any,
) -> Any:
    u = p - adam(p, g, t, kept, learning_rate=1.0, eps=eps, weight_decay=weight_decay, **given)
    return p - learning_rate * trust(p, u)


def lars(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    trust_coefficient: float = 0.001,
    momentum: float = 0.9,
) -> Any:
    return p - trace(learning_rate * trust(p, g + weight_decay * p, trust_coefficient), kept, momentum)


def ademamix(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    alpha: float = 5.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Any:
    m1, m2, nu = moment(g, kept, "m1", b1), moment(g, kept, "m2", b3), moment(g, kept, "nu", b2, 2)
    u = (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(nu / (1 - b2**t)) + eps)
    return p - learning_rate * (u + weight_decay * p)


def adopt(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
) -> Any:
    top = (t - 1) ** 0.25
    scaled = np.clip(g / np.maximum(np.sqrt(kept.get("nu", 0.0)), eps), -top, top)
    moment(g, kept, "nu", b2 if t > 1 else 0.0, 2)
    return p - learning_rate * moment(scaled, kept, "mu", b1 if t > 1 else 1.0)


def prodigy(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: float = 1.0,
    weight_decay: float = 0.0,
) -> Any:
    beta3, d = beta2**0.5, kept.get("d", estim_lr0)
    first = kept.setdefault("p0", p)
    rate = d * learning_rate * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
    m, v = moment(d * g, kept, "m", beta1), moment(d * g, kept, "v", beta2, 2)
    s = kept["s"] = beta3 * kept.get("s", 0.0) + rate * d * g / estim_lr0
    r = kept["r"] = beta3 * kept.get("r", 0.0) + d / estim_lr0 * rate * np.vdot(g, first - p)
    kept["d"] = max(d, estim_lr_coef * r / np.abs(s).sum())
    return p - weight_decay * rate * p - rate * m / (np.sqrt(v) + kept["d"] * eps)


def sophia(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    b1: float = 0.965,
    eps: float = 1e-8,
    gamma: float = 0.01,
    weight_decay: float = 1e-4,
) -> Any:
    """With the estimate of the curvature in kept["h"]."""
    hat = moment(g, kept, "mu", b1) / (1 - b1**t)
    u = np.clip(hat / np.maximum(gamma * kept["h"], eps), -1.0, 1.0)
    return p - learning_rate * (u + weight_decay * p)


def adafactor(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    learning_rate: float,
    decay_rate: float = 0.8,
    eps: float = 1e-30,
    clipping_threshold: float = 1.0,
    weight_decay_rate: float = 0.0,
) -> Any:
    """With min_dim_size_to_factor 1, on tensors whose two largest dimensions are the last."""
    beta, square = 1.0 - t**-decay_rate, g**2 + eps
    if p.ndim >= 2:
        row = kept["row"] = beta * kept.get("row", 0.0) + (1 - beta) * square.mean(axis=-1)
        col = kept["col"] = beta * kept.get("col", 0.0) + (1 - beta) * square.mean(axis=-2)
        u = g * ((row / row.mean(axis=-1, keepdims=True)) ** -0.5)[..., None] * (col**-0.5)[..., None, :]
    else:
        v = kept["v"] = beta * kept.get("v", 0.0) + (1 - beta) * square
        u = g * v**-0.5
    u = u / max(1.0, np.sqrt(np.mean(u**2)) / clipping_threshold)
    return p - (u * learning_rate * max(np.sqrt(np.mean(p**2)), 1e-3) + weight_decay_rate * p)
