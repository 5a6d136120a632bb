"""Adan averages the gradients and their changes, and looks ahead by the change as Nesterov does.

y is by how much the gradient changed since the step before. m averages the gradients, n the changes, and v
the squares of the gradient looked ahead to, g + beta2*y. The decay is that of the proximal form: p is divided
by 1 + lr*weight_decay, here written as a part of the change.

Paper: Xie et al. 2022, "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models",
arXiv:2208.06677, Algorithm 1.
Deviations: beta is what is kept (the paper's 1 - beta), and the averages are bias-corrected: both as in the
authors' code. No restarts, and no clipping by the global norm: put it before the rule in a chain.
torch: has none.
optax: `adan` looks ahead by 1 - beta2 = 0.08 of the change, where paper and authors have 0.92, has a second
eps of 1e-8 inside the root, and decays p by lr*weight_decay.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt, where


@dialect(paper={})
@rule(title="Adan", source="Xie et al. 2022, Algorithm 1, arXiv:2208.06677")
def adan(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    n=State("exp_avg_diff", doc="average of the changes of the gradient"),
    v=State("exp_avg_sq", doc="average of the squares of the gradient looked ahead to"),
    before=State("previous_grad", doc="gradient of the step before"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    beta1=Hyper(0.98, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.92, "[0, 1)", "how much of n is kept each step, and how far to look ahead"),
    beta3=Hyper(0.99, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
    weight_decay=Hyper(0.0, "[0, inf)", "strength of the decay, in the proximal form"),
):
    y = where(t == 1, 0, g - before)
    m = beta1 * m + (1 - beta1) * g
    n = beta2 * n + (1 - beta2) * y
    v = beta3 * v + (1 - beta3) * (g + beta2 * y) ** 2
    ahead = m / (1 - beta1**t) + beta2 * n / (1 - beta2**t)
    u = ahead / (sqrt(v / (1 - beta3**t)) + eps)
    p = p - lr / (1 + lr * weight_decay) * (u + weight_decay * p)
    before = g
    return p, m, n, v, before


@dialect(adan, optax={})
def less_ahead(
    p,
    g,
    t,
    m,
    n,
    v,
    before,
    lr,
    beta1,
    beta2,
    beta3,
    eps,
    weight_decay,
    eps_root=Hyper(1e-8, "[0, inf)", "a second eps, inside the root"),
):
    """It looks ahead by 1 - beta2 of the change, and p decays by lr*weight_decay."""
    y = where(t == 1, 0, g - before)
    m = beta1 * m + (1 - beta1) * g
    n = beta2 * n + (1 - beta2) * y
    v = beta3 * v + (1 - beta3) * (g + (1 - beta2) * y) ** 2
    ahead = m / (1 - beta1**t) + (1 - beta2) * n / (1 - beta2**t)
    u = ahead / (sqrt(v / (1 - beta3**t) + eps_root) + eps)
    p = p - lr * (u + weight_decay * p)
    before = g
    return p, m, n, v, before
