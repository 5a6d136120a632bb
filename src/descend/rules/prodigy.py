"""Prodigy is Adam that finds its learning rate by itself, from how far it has come along the gradients.

d is a lower bound on the distance from the start to the minimum, and grows from 1e-6: the sum of g*(p0 - p)
over all tensors says how far the descent got, s how large the gradients were. lr is a factor of d, 1 unless
there is reason; schedules still belong on it. d is one number for all tensors.

Paper: Mishchenko and Defazio 2023, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
arXiv:2306.06101, Algorithm 4.
Deviations: from the authors' code: d**2/d0 instead of d**2 in the weights of r and s, which cancels but
keeps them from being too small. All groups must have one lr. A tensor that first gets a gradient later
starts at d0.
torch: has none.
optax: `contrib.prodigy` adds bias correction, which the authors leave off by default.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import abs, global_sum, maximum, sqrt, where


@dialect(paper={})
@rule(title="Prodigy", source="Mishchenko and Defazio 2023, Algorithm 4, arXiv:2306.06101")
def prodigy(
    p,
    g,
    d=State("d", init="d0", scalar=True, doc="lower bound on the distance to the minimum"),
    r=State("d_numerator", scalar=True, doc="average of how far the descent got along the gradients"),
    m=State("exp_avg", doc="average of the gradients, times d"),
    v=State("exp_avg_sq", doc="average of the squared gradients, times d squared"),
    s=State("s", doc="average of the gradients, weighted as r is"),
    p0=State("p0", init="p", doc="p before the first step"),
    lr=Hyper(1.0, "[0, inf)", "factor of the rate that it finds"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step; of r and s its root"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero, times d"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr*d"),
    d0=Hyper(1e-6, "(0, inf)", "first d"),
    d_coef=Hyper(1.0, "(0, inf)", "factor of what d is estimated at"),
):
    weight = lr * d * d / d0
    r = sqrt(beta2) * r + weight * global_sum(g * (p0 - p))
    s = sqrt(beta2) * s + weight * g
    m = beta1 * m + d * (1 - beta1) * g
    v = beta2 * v + d * d * (1 - beta2) * g**2
    size = global_sum(abs(s))
    new = where(size == 0, d, maximum(d, d_coef * r / size))
    p = p - lr * d * (m / (sqrt(v) + new * eps) + weight_decay * p)
    d = new
    return p, d, r, m, v, s, p0


@dialect(prodigy, optax={})
def corrected(p, g, t, d, r, m, v, s, p0, lr, beta1, beta2, eps, weight_decay, d0, d_coef):
    """The rate has Adam's bias correction, in the step and in the weights of r and s."""
    rate = lr * d * sqrt(1 - beta2**t) / (1 - beta1**t)
    r = sqrt(beta2) * r + rate * d / d0 * global_sum(g * (p0 - p))
    s = sqrt(beta2) * s + rate * d / d0 * g
    m = beta1 * m + d * (1 - beta1) * g
    v = beta2 * v + d * d * (1 - beta2) * g**2
    size = global_sum(abs(s))
    new = where(size == 0, d, maximum(d, d_coef * r / size))
    p = p - rate * (m / (sqrt(v) + new * eps) + weight_decay * p)
    d = new
    return p, d, r, m, v, s, p0
