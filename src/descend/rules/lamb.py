"""LAMB is AdamW whose step is scaled, tensor by tensor, to the length of the tensor.

Every tensor moves by lr times its own norm in the direction that AdamW (with the decay inside) would take, so
batches may be large without some layer being thrown far.

Paper: You et al. 2019, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
arXiv:1904.00962, Algorithm 2, with phi the identity.
Deviations: where p or its step is all zero the trust ratio is 1.
torch: has none.
optax: `lamb`, the same; its weight_decay is 0 by default.
Keras: `Lamb`; its decay is p*(1 - lr*weight_decay), outside the trust ratio; eps 1e-7.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import norm, sqrt, where


@dialect(paper={}, optax={"weight_decay": 0.0})
@rule(title="LAMB", source="You et al. 2019, Algorithm 2, arXiv:1904.00962")
def lamb(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate: a step's share of the tensor's norm"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-6, "[0, inf)", "keeps the division finite where v is zero"),
    weight_decay=Hyper(0.01, "[0, inf)", "weight of p in the direction of the step"),
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    r = m_hat / (sqrt(v_hat) + eps) + weight_decay * p
    trust = where(norm(p) * norm(r) == 0, 1, norm(p) / norm(r))
    p = p - lr * trust * r
    return p, m, v


@dialect(lamb, keras={"eps": 1e-7, "weight_decay": 0.0})
def decay_outside(p, g, t, m, v, lr, beta1, beta2, eps, weight_decay):
    """p decays by itself first; the trust ratio knows of the smaller p, and not of the decay."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    p = p - lr * weight_decay * p
    r = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps)
    trust = where(norm(p) * norm(r) == 0, 1, norm(p) / norm(r))
    p = p - lr * trust * r
    return p, m, v
