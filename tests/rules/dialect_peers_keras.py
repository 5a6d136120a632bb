"""Keras 3.15's optimizers in NumPy, written from keras/src/optimizers, one tensor and one step each.

Each takes the parameter, its gradient, the step from 1 and a dict of its own for what it keeps, under Keras'
names and with Keras' defaults, and returns the new parameter. A test holds the dialect "keras" to them;
`benchmarks/oracles.py --dialects` runs the same dialect beside Keras itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Kept = dict[str, Any]


def decayed(p: Any, learning_rate: float, weight_decay: float) -> Any:
    """What every optimizer of Keras does before its step (base_optimizer.py, _apply_weight_decay)."""
    return p - p * weight_decay * learning_rate


def sgd(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Any:
    if momentum == 0:
        return p - g * learning_rate
    m = kept["m"] = kept.get("m", 0.0) * momentum - g * learning_rate
    return p + (m * momentum - g * learning_rate if nesterov else m)


def adagrad(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1e-3,
    initial_accumulator_value: float = 0.1,
    epsilon: float = 1e-7,
) -> Any:
    a = kept["a"] = kept.get("a", initial_accumulator_value) + np.square(g)
    return p - learning_rate * g / np.sqrt(a + epsilon)


def adadelta(
    p: Any, g: Any, t: int, kept: Kept, learning_rate: float = 1e-3, rho: float = 0.95, epsilon: float = 1e-7
) -> Any:
    a = kept["a"] = rho * kept.get("a", 0.0) + (1 - rho) * np.square(g)
    before = kept.get("d", 0.0)
    delta = -(np.sqrt(before + epsilon) * g / np.sqrt(a + epsilon))
    kept["d"] = rho * before + (1 - rho) * np.square(delta)
    return p + learning_rate * delta


def rmsprop(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1e-3,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    centered: bool = False,
) -> Any:
    v = kept["v"] = rho * kept.get("v", 0.0) + (1 - rho) * np.square(g)
    denominator = v + epsilon
    if centered:
        a = kept["a"] = rho * kept.get("a", 0.0) + (1 - rho) * g
        denominator = v - np.square(a) + epsilon
    increment = learning_rate * g / np.sqrt(denominator)
    if momentum > 0:
        increment = kept["m"] = momentum * kept.get("m", 0.0) + increment
    return p - increment


def moments(g: Any, kept: Kept, beta_1: float, beta_2: float) -> tuple[Any, Any]:
    """The two averages that Keras' Adam and its kin keep."""
    m, v = kept.get("m", 0.0), kept.get("v", 0.0)
    kept["m"], kept["v"] = m + (g - m) * (1 - beta_1), v + (np.square(g) - v) * (1 - beta_2)
    return kept["m"], kept["v"]


def adam(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    amsgrad: bool = False,
) -> Any:
    m, v = moments(g, kept, beta_1, beta_2)
    alpha = learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    if amsgrad:
        v = kept["v_hat"] = np.maximum(kept.get("v_hat", 0.0), v)
    return p - m * alpha / (np.sqrt(v) + epsilon)


def adamw(
    p: Any, g: Any, t: int, kept: Kept, learning_rate: float = 1e-3, weight_decay: float = 0.004, **given: Any
) -> Any:
    return adam(decayed(p, learning_rate, weight_decay), g, t, kept, learning_rate, **given)


def adamax(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> Any:
    m = kept["m"] = kept.get("m", 0.0) + (g - kept.get("m", 0.0)) * (1 - beta_1)
    u = kept["u"] = np.maximum(beta_2 * kept.get("u", 0.0), np.abs(g))
    return p - learning_rate * m / ((1 - beta_1**t) * (u + epsilon))


def nadam(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> Any:
    now, after = (beta_1 * (1.0 - 0.5 * 0.96**k) for k in (t, t + 1))
    product = kept["product"] = kept.get("product", 1.0) * beta_1 * (1.0 - 0.5 * 0.96**t)
    m, v = moments(g, kept, beta_1, beta_2)
    m_hat = after * m / (1 - product * after) + (1 - now) * g / (1 - product)
    return p - m_hat * learning_rate / (np.sqrt(v / (1 - beta_2**t)) + epsilon)


def lamb(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    weight_decay: float = 0.0,
) -> Any:
    p = decayed(p, learning_rate, weight_decay)
    m, v = moments(g, kept, beta_1, beta_2)
    update = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
    w_norm, g_norm = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(update**2))
    ratio = w_norm / g_norm if w_norm > 0 and g_norm > 0 else 1.0
    return p - ratio * learning_rate * update


def lion(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    weight_decay: float = 0.0,
) -> Any:
    p = decayed(p, learning_rate, weight_decay)
    m = kept.get("m", 0.0)
    kept["m"] = m * beta_2 + g * (1.0 - beta_2)
    return p - learning_rate * np.sign(m * beta_1 + g * (1.0 - beta_1))


def adafactor(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    learning_rate: float = 1e-3,
    beta_2_decay: float = -0.8,
    epsilon_1: float = 1e-30,
    epsilon_2: float = 1e-3,
    clip_threshold: float = 1.0,
) -> Any:
    rho = min(learning_rate, 1 / np.sqrt(t))
    alpha = max(epsilon_2, np.sqrt(np.mean(p**2))) * rho
    square = np.square(g) + epsilon_1
    beta = 1 - t**beta_2_decay
    if p.ndim >= 2:
        r = kept["r"] = beta * kept.get("r", 0.0) + (1 - beta) * square.mean(axis=-1)
        c = kept["c"] = beta * kept.get("c", 0.0) + (1 - beta) * square.mean(axis=-2)
        v = (r / r.mean(axis=-1, keepdims=True))[..., None] * c[..., None, :]
    else:
        v = kept["v"] = beta * kept.get("v", 0.0) + (1 - beta) * square
    u = g / np.sqrt(v)
    return p - alpha * u / max(1.0, np.sqrt(np.mean(u**2)) / clip_threshold)
