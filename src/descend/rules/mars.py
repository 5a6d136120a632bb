"""MARS is AdamW of a gradient corrected by how it has changed since the step before, cut to length 1.

A gradient of a batch is off by the noise of the batch. Momentum averages the noise away, but lags behind; the
difference of two gradients, scaled by gamma, says where they are going and makes up for it. The corrected
gradient of every tensor is cut to length 1, since a difference of noisy gradients is noisier still.

Paper: Yuan et al. 2024, "MARS: Unleashing the Power of Variance Reduction for Training Large Models",
arXiv:2411.10438, Algorithm 2.
Deviations: the gradient of the step before stands for that of the new batch at the old point, which would
take a second backward pass; the paper calls this the approximate form. gamma does not change with the step.
The first step has no correction; the authors' code takes the gradient before it as zero, and leaves vectors
and numbers to AdamW.
torch: has none.
optax: has none.
Keras: has none.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import maximum, norm, sqrt, where


@rule(title="MARS-AdamW", source="Yuan et al. 2024, Algorithm 2, arXiv:2411.10438")
def mars(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the corrected gradients"),
    v=State("exp_avg_sq", doc="average of the squared corrected gradients"),
    last=State("last_grad", doc="gradient of the step before"),
    lr=Hyper(3e-3, "[0, inf)", "learning rate"),
    beta1=Hyper(0.95, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.99, "[0, 1)", "how much of v is kept each step"),
    gamma=Hyper(0.025, "[0, inf)", "strength of the correction; 0 is AdamW of gradients cut to length 1"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr"),
):
    c = g + where(t == 1, 0, gamma * beta1 / (1 - beta1) * (g - last))
    c = c / maximum(1, norm(c))
    m = beta1 * m + (1 - beta1) * c
    v = beta2 * v + (1 - beta2) * c**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * p)
    last = g
    return p, m, v, last
