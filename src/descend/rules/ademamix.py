"""AdEMAMix is Adam with a second, far slower average of the gradients added to its first.

Gradients stay useful for tens of thousands of steps, more than one average can hold without being slow to
turn: so m1 is quick, m2 is slow (beta3 = 0.9999), and alpha weighs it. Without a warm-up the slow average
makes early steps large; over the first `warmup` steps alpha grows linearly from 0, and beta3 from beta1, so
that the half-life of m2 grows linearly.

Paper: Pagliardini, Ablin and Grangier 2024, "The AdEMAMix Optimizer: Better, Faster, Older",
arXiv:2409.03137, Algorithm 1.
Deviations: one warm-up length for alpha and beta3, which the paper recommends; 0 for none.
torch: has none.
optax: `contrib.ademamix`, the same, with schedules given as functions.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import exp, log, minimum, sqrt, where


@dialect(paper={}, optax={})
@rule(title="AdEMAMix", source="Pagliardini et al. 2024, Algorithm 1, arXiv:2409.03137")
def ademamix(
    p,
    g,
    t,
    m1=State("exp_avg", doc="quick average of the gradients"),
    m2=State("exp_avg_slow", doc="slow average of the gradients, not bias-corrected"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m1 is kept each step"),
    beta2=Hyper(0.999, "[0, 1)", "how much of v is kept each step"),
    beta3=Hyper(0.9999, "[0, 1)", "how much of m2 is kept each step, in the end"),
    alpha=Hyper(5.0, "[0, inf)", "weight of the slow average, in the end"),
    warmup=Hyper(0.0, "[0, inf)", "steps over which alpha and beta3 grow"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr"),
):
    part = where(t < warmup, t / warmup, 1)
    slow = exp(log(beta1) * log(beta3) / ((1 - part) * log(beta3) + part * log(beta1)))
    keep = where(t < warmup, minimum(slow, beta3), beta3)
    m1 = beta1 * m1 + (1 - beta1) * g
    m2 = keep * m2 + (1 - keep) * g
    v = beta2 * v + (1 - beta2) * g**2
    mixed = m1 / (1 - beta1**t) + alpha * part * m2
    p = p - lr * (mixed / (sqrt(v / (1 - beta2**t)) + eps) + weight_decay * p)
    return p, m1, m2, v
