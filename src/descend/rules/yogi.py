"""Yogi is Adam whose v moves towards the squared gradient by steps that do not depend on how far it is.

Adam's v falls quickly after a few small gradients, and its steps grow as quickly. In Yogi v changes by
(1-beta2)*g**2 in either direction, so that small gradients change it little. The large eps, 1e-3, is the
paper's, for steps that adapt less.

Paper: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization", NeurIPS 31.
Deviations: bias correction of m and v, and v starts at 1e-6: both as in optax. The paper corrects neither; in
its experiments v starts at the squared gradients of a large batch, in its dialect here at zero.
torch: has none.
optax: `yogi` starts m at 1e-6 too, and moves without any gradient; otherwise the same.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sign, sqrt


@rule(title="Yogi", source="Zaheer et al. 2018, NeurIPS 31")
def yogi(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    v=State("exp_avg_sq", init="initial_accumulator_value", doc="estimate of the squared gradients"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.999, "[0, 1)", "1 - beta2 is how much of g**2 moves v"),
    eps=Hyper(1e-3, "[0, inf)", "keeps the division finite, and steps alike where v is small"),
    initial_accumulator_value=Hyper(1e-6, "[0, inf)", "where v starts"),
):
    m = beta1 * m + (1 - beta1) * g
    v = v - (1 - beta2) * sign(v - g**2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p, m, v


@dialect(yogi, optax={})
def both_from_there(
    p,
    g,
    t,
    v,
    lr,
    beta1,
    beta2,
    eps,
    initial_accumulator_value,
    m=State("exp_avg", init="initial_accumulator_value", doc="average of the gradients"),
    eps_root=Hyper(0.0, "[0, inf)", "a second eps, inside the root"),
):
    """m starts where v does, so p moves a little without any gradient."""
    m = beta1 * m + (1 - beta1) * g
    v = v - (1 - beta2) * sign(v - g**2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - lr * m_hat / (sqrt(v_hat + eps_root) + eps)
    return p, m, v


@dialect(yogi, paper={"initial_accumulator_value": 0.0})
def uncorrected(p, g, m, v, lr, beta1, beta2, eps, initial_accumulator_value):
    """Neither average is corrected, and v starts at zero."""
    m = beta1 * m + (1 - beta1) * g
    v = v - (1 - beta2) * sign(v - g**2) * g**2
    p = p - lr * m / (sqrt(v) + eps)
    return p, m, v
