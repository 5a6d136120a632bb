"""Grams steps as far as Adam does, in the direction of the gradient of now.

Adam's momentum goes on for a while where the gradient has turned already, so some of its steps climb. Here
momentum decides only how far an element moves, and the sign of its gradient where to.

Paper: Cao et al. 2024, "Grams: Gradient Descent with Adaptive Momentum Scaling", arXiv:2412.17107,
Algorithm 1.
Deviations: none.
torch: has none.
optax: has none.
Keras: has none.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import abs, sign, sqrt


@rule(title="Grams", source="Cao et al. 2024, Algorithm 1, arXiv:2412.17107")
def grams(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-6, "[0, inf)", "keeps the division finite where v is zero"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr"),
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    u = m_hat / (sqrt(v_hat) + eps)
    p = p - lr * (sign(g) * abs(u) + weight_decay * p)
    return p, m, v
