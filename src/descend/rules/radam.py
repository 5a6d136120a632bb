"""RAdam is Adam that waits to divide by v until v can be trusted.

rho is the length of the average that v stands for. While it is short, v varies too much to divide by, and
the step is plain averaged momentum; from rho > 5 on it is Adam's, shortened by a factor r that grows to 1.
With beta2 = 0.999 Adam's step begins at t = 6.

Paper: Liu et al. 2020, "On the Variance of the Adaptive Learning Rate and Beyond", arXiv:1908.03265,
Algorithm 2.
Deviations: the threshold is 5 where the algorithm has 4, as in the authors' code and in torch; eps is added
to the root of the uncorrected v, as in torch, and the paper has none.
torch: `RAdam`, the same.
optax: `radam` divides from rho >= 5 on, with eps added to the root of the corrected v.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt, where


@dialect(torch={})
@rule(title="RAdam", source="Liu et al. 2020, Algorithm 2, arXiv:1908.03265")
def radam(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    l = sqrt(1 - beta2**t) / (sqrt(v) + eps)
    p = p - where(rho > 5, lr * r * l * m_hat, lr * m_hat)
    return p, m, v


@dialect(radam, optax={}, paper={"threshold": 4.0, "eps": 0.0})
def corrected(
    p,
    g,
    t,
    m,
    v,
    lr,
    beta1,
    beta2,
    eps,
    eps_root=Hyper(0.0, "[0, inf)", "a second eps, inside the root; in optax"),
    threshold=Hyper(5.0, "[4, inf)", "the rho from which on the step is divided"),
):
    """eps is added to the root of the corrected v; the threshold is 5 in optax, 4 in the paper."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    p = p - where(rho >= threshold, lr * r * m_hat / (sqrt(v_hat + eps_root) + eps), lr * m_hat)
    return p, m, v
