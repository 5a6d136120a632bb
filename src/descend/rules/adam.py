"""Adam divides an average of the gradients by the root of an average of their squares.

m estimates the mean of the gradient and v its uncentred variance. Both start at zero and would be too
small at first; dividing by 1 - beta**t corrects that exactly when the gradients have a constant mean.
The first step is lr in every direction, whatever the size of the gradient.

Paper: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, Algorithm 1.
Deviations: none; written as Algorithm 1.
torch: `Adam`, the same: eps outside the root of the corrected v.
optax: `adam`, the same; it has a second eps_root inside the root, 0 by default.
Keras: `Adam` adds eps to the root of the uncorrected v (the "epsilon hat" of section 2 of the paper); its
default is 1e-7.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt


@dialect(torch={}, paper={})
@rule(title="Adam", source="Kingma and Ba 2015, Algorithm 1, arXiv:1412.6980")
def adam(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate: the size of a step"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step; remembers about 1/(1 - beta1) steps"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p, m, v


@dialect(adam, keras={"eps": 1e-7})
def eps_hat(p, g, t, m, v, lr, beta1, beta2, eps):
    """eps is added to the root of the uncorrected v: the order of section 2 of the paper, its epsilon hat."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    alpha = lr * sqrt(1 - beta2**t) / (1 - beta1**t)
    p = p - alpha * m / (sqrt(v) + eps)
    return p, m, v


@dialect(adam, optax={})
def two_eps(
    p, g, t, m, v, lr, beta1, beta2, eps, eps_root=Hyper(0.0, "[0, inf)", "a second eps, inside the root")
):
    """There is a second eps inside the root, zero unless it is given."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - lr * m_hat / (sqrt(v_hat + eps_root) + eps)
    return p, m, v
