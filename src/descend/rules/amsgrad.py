"""AMSGrad is Adam that never forgets the largest v, so the rate of an element never rises.

Where a rare large gradient matters, Adam forgets it before the next one comes and can drift to the worst
point of a convex problem; the running maximum cures that.

Paper: Reddi, Kale and Kumar 2018, "On the Convergence of Adam and Beyond", arXiv:1904.09237, Algorithm 2.
Deviations: with the bias correction of Adam and eps, as in torch; the paper has neither. The maximum is
taken of the uncorrected v and corrected afterwards.
torch: `Adam(amsgrad=True)`, the same.
optax: `amsgrad` corrects v first and takes the maximum of that.
Keras: `Adam(amsgrad=True)` takes the maximum of the uncorrected v; eps as in its `Adam`.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, sqrt


@dialect(torch={})
@rule(title="AMSGrad", source="Reddi, Kale and Kumar 2018, Algorithm 2, arXiv:1904.09237")
def amsgrad(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    v_max=State("max_exp_avg_sq", doc="the largest v so far"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate: the size of a step"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v_max is zero"),
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    v_max = maximum(v_max, v)
    m_hat = m / (1 - beta1**t)
    v_hat = v_max / (1 - beta2**t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p, m, v, v_max


@dialect(amsgrad, keras={"eps": 1e-7})
def eps_hat(p, g, t, m, v, v_max, lr, beta1, beta2, eps):
    """eps is added to the root of the uncorrected maximum."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    v_max = maximum(v_max, v)
    alpha = lr * sqrt(1 - beta2**t) / (1 - beta1**t)
    p = p - alpha * m / (sqrt(v_max) + eps)
    return p, m, v, v_max


@dialect(amsgrad, optax={})
def corrected_first(
    p,
    g,
    t,
    m,
    v,
    lr,
    beta1,
    beta2,
    eps,
    v_max=State("max_exp_avg_sq", doc="the largest corrected v so far"),
    eps_root=Hyper(0.0, "[0, inf)", "a second eps, inside the root"),
):
    """v is corrected before the maximum is taken, so an early, large v_hat stays for good."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    v_max = maximum(v_max, v / (1 - beta2**t))
    m_hat = m / (1 - beta1**t)
    p = p - lr * m_hat / (sqrt(v_max + eps_root) + eps)
    return p, m, v, v_max


@dialect(amsgrad, paper={"eps": 0.0})
def uncorrected(p, g, m, v, v_max, lr, beta1, beta2, eps):
    """Neither average is corrected, and there is no eps."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    v_max = maximum(v_max, v)
    p = p - lr * m / (sqrt(v_max) + eps)
    return p, m, v, v_max
