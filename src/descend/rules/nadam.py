"""NAdam is Adam with Nesterov's look-ahead: the step uses the momentum of the next step.

mu warms the momentum up from beta1/2 towards beta1, and mu_product, the product of all mu so far, takes the
place of beta1**t in the bias correction.

Paper: Dozat 2016, "Incorporating Nesterov Momentum into Adam", ICLR workshop, Algorithm 2, with the schedule
of mu from its section 3 (0.96 to the power t/250: momentum_decay = 0.004).
Deviations: m is averaged with beta1, not with mu, and v is corrected without the paper's extra factor
beta2; both as in torch.
torch: `NAdam`, the same; it rounds mu_product to float32.
optax: `nadam` has a constant mu = beta1.
Keras: `Nadam` has 0.96**t, a momentum_decay of 1; eps 1e-7, lr 1e-3.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt


@dialect(torch={}, keras={"lr": 1e-3, "eps": 1e-7, "momentum_decay": 1.0})
@rule(title="NAdam", source="Dozat 2016, Algorithm 2")
def nadam(
    p,
    g,
    t,
    mu_product=State("mu_product", init=1.0, scalar=True, doc="product of all mu so far"),
    m=State("exp_avg", doc="average of the gradients"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    lr=Hyper(2e-3, "[0, inf)", "learning rate: the size of a step"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step, and what mu approaches"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
    momentum_decay=Hyper(4e-3, "[0, inf)", "how fast mu approaches beta1"),
):
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    mu_product = mu_product * mu
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = mu_next * m / (1 - mu_product * mu_next) + (1 - mu) * g / (1 - mu_product)
    v_hat = v / (1 - beta2**t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p, m, v, mu_product


@dialect(nadam, optax={})
def constant_mu(
    p, g, t, m, v, lr, beta1, beta2, eps, eps_root=Hyper(0.0, "[0, inf)", "a second eps, inside the root")
):
    """mu is beta1 from the first step on."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p = p - lr * m_hat / (sqrt(v_hat + eps_root) + eps)
    return p, m, v


@dialect(nadam, paper={})
def averaged_by_mu(p, g, t, mu_product, m, v, lr, beta1, beta2, eps, momentum_decay):
    """m is averaged with mu, and v_hat has a factor beta2 more."""
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    mu_product = mu_product * mu
    m = mu * m + (1 - mu) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = mu_next * m / (1 - mu_product * mu_next) + (1 - mu) * g / (1 - mu_product)
    v_hat = beta2 * v / (1 - beta2**t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p, m, v, mu_product
