"""AdamW is Adam whose weight decay shrinks the parameter directly, outside the averages.

In Adam with an L2 penalty the penalty's gradient is divided by the root of v like any other, so weights with
large gradients decay less. Here every weight loses the same share, lr * weight_decay, each step.

Paper: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", arXiv:1711.05101, Algorithm 2.
Deviations: the decay is multiplied by lr, as in torch; in the paper only by the schedule's factor, so that
lr and weight_decay can be tuned apart (the modifier `independent_decay` with `adam` is that form).
torch: `AdamW`, the same; default weight_decay 1e-2.
optax: `adamw`, the same up to rounding; default weight_decay 1e-4.
Keras: `AdamW` decays by lr * weight_decay, default 4e-3; eps as in its `Adam`.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt


@dialect(torch={})
@rule(title="AdamW", source="Loshchilov and Hutter 2019, Algorithm 2, arXiv:1711.05101")
def adamw(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate: the size of a step"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step; remembers about 1/(1 - beta1) steps"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
    weight_decay=Hyper(1e-2, "[0, inf)", "share of p removed each step, times lr"),
):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * p)
    return p, m, v


@dialect(adamw, keras={"eps": 1e-7, "weight_decay": 4e-3})
def eps_hat(p, g, t, m, v, lr, beta1, beta2, eps, weight_decay):
    """eps is added to the root of the uncorrected v."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    alpha = lr * sqrt(1 - beta2**t) / (1 - beta1**t)
    p = p - (alpha * m / (sqrt(v) + eps) + lr * weight_decay * p)
    return p, m, v


@dialect(adamw, optax={"weight_decay": 1e-4})
def two_eps(
    p,
    g,
    t,
    m,
    v,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    eps_root=Hyper(0.0, "[0, inf)", "a second eps, inside the root"),
):
    """There is a second eps inside the root, zero unless it is given."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - lr * (m_hat / (sqrt(v_hat + eps_root) + eps) + weight_decay * p)
    return p, m, v


@dialect(adamw, paper={})
def decay_by_the_schedule(
    p,
    g,
    t,
    m,
    v,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay=Hyper(1e-5, "[0, inf)", "share of p removed each step, times eta"),
    eta=Hyper(1.0, "[0, inf)", "the schedule's factor, of the step and of the decay"),
):
    """The decay is multiplied by the schedule's factor eta, not by lr, so that lr can be tuned apart."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - eta * (lr * m_hat / (sqrt(v_hat) + eps) + weight_decay * p)
    return p, m, v
