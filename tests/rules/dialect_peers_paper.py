"""The papers' algorithms in NumPy, in their own notation, one tensor and one step each.

Each takes the parameter, its gradient, the step from 1 and a dict of its own for what it keeps; the
hyper-parameters bear our names and the papers' values. Where a paper leaves a value open it has none here.
For Adan and Prodigy the authors' code is the paper. A test holds the dialect "paper" to them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Kept = dict[str, Any]


def gradient_descent(p: Any, g: Any, t: int, kept: Kept, *, lr: float) -> Any:
    return p - lr * g


def momentum(p: Any, g: Any, t: int, kept: Kept, *, lr: float, momentum: float) -> Any:
    """Polyak 1964: x[k+1] = x[k] - alpha g + beta (x[k] - x[k-1])."""
    before = kept.get("x", p)
    kept["x"] = p
    return p - lr * g + momentum * (p - before)


def nesterov(p: Any, g: Any, t: int, kept: Kept, *, lr: float, momentum: float) -> Any:
    """Sutskever et al. 2013, eq. 3 and 4: g is the gradient at theta + mu v, and that point is p."""
    theta, v = kept.get("theta", p), kept.get("v", np.zeros_like(p))
    v = kept["v"] = momentum * v - lr * g
    kept["theta"] = theta + v
    return kept["theta"] + momentum * v


def adagrad(p: Any, g: Any, t: int, kept: Kept, *, lr: float, eps: float) -> Any:
    """Duchi et al. 2011, Figure 1: H = delta I + diag(|g[1:t]|)."""
    kept.setdefault("all", []).append(g)
    return p - lr * g / (eps + np.linalg.norm(kept["all"], axis=0))


def adadelta(
    p: Any, g: Any, t: int, kept: Kept, rho: float = 0.95, eps: float = 1e-6, lr: float = 1.0
) -> Any:
    """Zeiler 2012, Algorithm 1, its step times lr."""
    kept["g2"] = rho * kept.get("g2", 0.0) + (1 - rho) * g**2
    delta = -np.sqrt(kept.get("x2", 0.0) + eps) / np.sqrt(kept["g2"] + eps) * g
    kept["x2"] = rho * kept.get("x2", 0.0) + (1 - rho) * delta**2
    return p + lr * delta


def rmsprop(p: Any, g: Any, t: int, kept: Kept, *, lr: float) -> Any:
    """Tieleman and Hinton 2012, slide 29."""
    kept["mean"] = 0.9 * kept.get("mean", 0.0) + 0.1 * g**2
    return p - lr * g / np.sqrt(kept["mean"])


def rmsprop_graves(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    alpha: float = 0.95,
    momentum: float = 0.9,
    lr: float = 0.0001,
    eps: float = 0.0001,
) -> Any:
    """Graves 2013, eq. 38 to 45."""
    n = kept["n"] = alpha * kept.get("n", 0.0) + (1 - alpha) * g**2
    a = kept["g"] = alpha * kept.get("g", 0.0) + (1 - alpha) * g
    delta = kept["delta"] = momentum * kept.get("delta", 0.0) - lr * g / np.sqrt(n - a**2 + eps)
    return p + delta


def averaged(g: Any, kept: Kept, beta1: float, beta2: float) -> tuple[Any, Any]:
    """m and v of Adam and its kin."""
    kept["m"] = beta1 * kept.get("m", 0.0) + (1 - beta1) * g
    kept["v"] = beta2 * kept.get("v", 0.0) + (1 - beta2) * g**2
    return kept["m"], kept["v"]


def adam(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    lr: float = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Any:
    """Kingma and Ba 2015, Algorithm 1."""
    m, v = averaged(g, kept, beta1, beta2)
    return p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)


def adamw(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    weight_decay: float,
    lr: float = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    eta: float = 1.0,
) -> Any:
    """Loshchilov and Hutter 2019, Algorithm 2, line 12."""
    m, v = averaged(g, kept, beta1, beta2)
    hats = m / (1 - beta1**t), v / (1 - beta2**t)
    return p - eta * (lr * hats[0] / (np.sqrt(hats[1]) + eps) + weight_decay * p)


def adamax(
    p: Any, g: Any, t: int, kept: Kept, lr: float = 0.002, beta1: float = 0.9, beta2: float = 0.999
) -> Any:
    """Kingma and Ba 2015, Algorithm 2."""
    m, _ = averaged(g, kept, beta1, beta2)
    u = kept["u"] = np.maximum(beta2 * kept.get("u", 0.0), np.abs(g))
    return p - (lr / (1 - beta1**t)) * m / u


def amsgrad(
    p: Any, g: Any, t: int, kept: Kept, *, lr: float, beta1: float = 0.9, beta2: float = 0.999
) -> Any:
    """Reddi et al. 2018, Algorithm 2, without the projection."""
    m, v = averaged(g, kept, beta1, beta2)
    top = kept["v_hat"] = np.maximum(kept.get("v_hat", 0.0), v)
    return p - lr * m / np.sqrt(top)


def nadam(
    p: Any, g: Any, t: int, kept: Kept, *, lr: float, beta1: float, beta2: float = 0.999, eps: float = 1e-8
) -> Any:
    """Dozat 2016, Algorithm 2."""
    mu = [beta1 * (1 - 0.5 * 0.96 ** (k / 250)) for k in range(1, t + 2)]
    m = kept["m"] = mu[-2] * kept.get("m", 0.0) + (1 - mu[-2]) * g
    n = kept["n"] = beta2 * kept.get("n", 0.0) + (1 - beta2) * g**2
    m_hat = mu[-1] * m / (1 - np.prod(mu)) + (1 - mu[-2]) * g / (1 - np.prod(mu[:-1]))
    n_hat = beta2 * n / (1 - beta2**t)
    return p - lr * m_hat / (np.sqrt(n_hat) + eps)


def radam(p: Any, g: Any, t: int, kept: Kept, *, lr: float, beta1: float, beta2: float) -> Any:
    """Liu et al. 2020, Algorithm 2."""
    m, v = averaged(g, kept, beta1, beta2)
    m_hat, last = m / (1 - beta1**t), 2 / (1 - beta2) - 1
    rho = last - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 4:
        return p - lr * m_hat
    r = np.sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
    return p - lr * r * m_hat * np.sqrt((1 - beta2**t) / v)


def rprop(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    lr: float = 0.1,
    etaplus: float = 1.2,
    etaminus: float = 0.5,
    step_size_max: float = 50.0,
    step_size_min: float = 1e-6,
) -> Any:
    """Riedmiller and Braun 1993, element by element."""
    size = kept.setdefault("size", np.full_like(p, lr))
    before, move = kept.setdefault("g", np.zeros_like(p)), kept.setdefault("move", np.zeros_like(p))
    new = p.copy()
    for k in np.ndindex(p.shape):
        if before[k] * g[k] > 0:
            size[k] = min(size[k] * etaplus, step_size_max)
            move[k] = -np.sign(g[k]) * size[k]
            before[k] = g[k]
        elif before[k] * g[k] < 0:
            size[k] = max(size[k] * etaminus, step_size_min)
            move[k] = -move[k]
            before[k] = 0.0
        else:
            move[k] = -np.sign(g[k]) * size[k]
            before[k] = g[k]
        new[k] += move[k]
    return new


def rms(x: Any) -> float:
    """Adafactor's root mean square."""
    return float(np.sqrt(np.mean(x**2)))


def adafactor(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    lr: float = 1e-2,
    beta2_decay: float = -0.8,
    eps1: float = 1e-30,
    eps2: float = 1e-3,
    d: float = 1.0,
) -> Any:
    """Shazeer and Stern 2018, Algorithm 4 for each matrix of the last two dimensions, 5 for a vector."""
    alpha = max(eps2, rms(p)) * min(lr, 1 / np.sqrt(t))
    beta, u = 1 - t**beta2_decay, np.empty_like(p)
    for k in np.ndindex(p.shape[:-2]):
        square = g[k] ** 2 + eps1
        if p.ndim < 2:
            v = kept["v"] = beta * kept.get("v", 0.0) + (1 - beta) * square
        else:
            r = kept["r", k] = beta * kept.get(("r", k), 0.0) + (1 - beta) * square.sum(axis=1)
            c = kept["c", k] = beta * kept.get(("c", k), 0.0) + (1 - beta) * square.sum(axis=0)
            v = np.outer(r, c) / r.sum()
        u[k] = g[k] / np.sqrt(v)
    return p - alpha * u / max(1.0, rms(u) / d)


def lamb(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    lr: float,
    weight_decay: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-6,
) -> Any:
    """You et al. 2019, Algorithm 2."""
    r = (p - adam(p, g, t, kept, 1.0, beta1, beta2, eps)) + weight_decay * p
    return p - lr * np.linalg.norm(p) / np.linalg.norm(r) * r


def lars(
    p: Any, g: Any, t: int, kept: Kept, *, lr: float, momentum: float, eta: float, weight_decay: float
) -> Any:
    """You, Gitman and Ginsburg 2017, Algorithm 1."""
    local = (
        eta * np.linalg.norm(p) / (np.linalg.norm(g) + weight_decay * np.linalg.norm(p)) if g.any() else 1.0
    )
    kept["v"] = momentum * kept.get("v", 0.0) + lr * local * (g + weight_decay * p)
    return p - kept["v"]


def lion(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    lr: float,
    weight_decay: float,
    beta1: float = 0.9,
    beta2: float = 0.99,
) -> Any:
    """Chen et al. 2023, Algorithm 2."""
    m = kept.get("m", 0.0)
    kept["m"] = beta2 * m + (1 - beta2) * g
    return p - lr * (np.sign(beta1 * m + (1 - beta1) * g) + weight_decay * p)


def yogi(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    lr: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-3,
) -> Any:
    """Zaheer et al. 2018."""
    m = kept["m"] = beta1 * kept.get("m", 0.0) + (1 - beta1) * g
    v = kept.get("v", np.zeros_like(p))
    v = kept["v"] = v - (1 - beta2) * np.sign(v - g**2) * g**2
    return p - lr * m / (np.sqrt(v) + eps)


def adan(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    lr: float = 1e-3,
    beta1: float = 0.98,
    beta2: float = 0.92,
    beta3: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Any:
    """Xie et al. 2022, the authors' code."""
    diff = g - kept.get("g", g)
    kept["g"] = g
    m = kept["m"] = beta1 * kept.get("m", 0.0) + (1 - beta1) * g
    v = kept["v"] = beta2 * kept.get("v", 0.0) + (1 - beta2) * diff
    n = kept["n"] = beta3 * kept.get("n", 0.0) + (1 - beta3) * (g + beta2 * diff) ** 2
    below = np.sqrt(n) / np.sqrt(1 - beta3**t) + eps
    p = p - lr / (1 - beta1**t) * m / below - lr * beta2 / (1 - beta2**t) * v / below
    return p / (1 + lr * weight_decay)


def ademamix(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    lr: float,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    beta3: float = 0.9999,
    alpha: float,
    eps: float = 1e-8,
) -> Any:
    """Pagliardini et al. 2024, Algorithm 1, without schedulers."""
    m, v = averaged(g, kept, beta1, beta2)
    slow = kept["m2"] = beta3 * kept.get("m2", 0.0) + (1 - beta3) * g
    top = m / (1 - beta1**t) + alpha * slow
    return p - lr * (top / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * p)


def adopt(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.9999,
    eps: float = 1e-6,
) -> Any:
    """Taniguchi et al. 2024, Algorithm 2; the paper counts from the second gradient."""
    if t == 1:
        kept["v"] = g * g
        return p
    c = (t - 1) ** 0.25
    scaled = np.clip(g / np.maximum(np.sqrt(kept["v"]), eps), -c, c)
    m = kept["m"] = beta1 * kept.get("m", 0.0) + (1 - beta1) * scaled
    kept["v"] = beta2 * kept["v"] + (1 - beta2) * g * g
    return p - lr * m


def sophia(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    *,
    lr: float,
    beta1: float,
    gamma: float,
    eps: float,
    weight_decay: float,
) -> Any:
    """Liu et al. 2023, Algorithm 3, with the estimate of the curvature in kept["h"]."""
    kept["m"] = beta1 * kept.get("m", 0.0) + (1 - beta1) * g
    p = p - lr * weight_decay * p
    return p - lr * np.clip(kept["m"] / np.maximum(gamma * kept["h"], eps), -1, 1)


def prodigy(
    p: Any,
    g: Any,
    t: int,
    kept: Kept,
    lr: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    d0: float = 1e-6,
    d_coef: float = 1.0,
) -> Any:
    """Mishchenko and Defazio 2023, Algorithm 4, as prodigyopt 1.1.2 runs it."""
    d, beta3, first = kept.get("d", d0), np.sqrt(beta2), kept.setdefault("p0", p)
    r = kept["r"] = beta3 * kept.get("r", 0.0) + (d / d0) * d * lr * np.vdot(g, first - p)
    kept["m"] = beta1 * kept.get("m", 0.0) + d * (1 - beta1) * g
    kept["v"] = beta2 * kept.get("v", 0.0) + d * d * (1 - beta2) * g * g
    s = kept["s"] = beta3 * kept.get("s", 0.0) + (d / d0) * d * lr * g
    kept["d"] = max(d, d_coef * r / np.abs(s).sum())
    below = np.sqrt(kept["v"]) + kept["d"] * eps
    return p - weight_decay * d * lr * p - d * lr * kept["m"] / below
