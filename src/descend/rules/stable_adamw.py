"""StableAdamW is AdamW that slows down, tensor by tensor, when v is too small for the gradients that come.

Adam's v lags behind: when gradients grow suddenly, steps are far too long and losses spike. The root mean
square of g / sqrt(v) says by how much, and lr is divided by it where it is above 1 (Adafactor's clipping).

Paper: Wortsman et al. 2023, "Stable and low-precision training for large-scale vision-language models",
arXiv:2304.13013.
Deviations: none. The averages m and v are kept bias-corrected, as there.
torch: has none.
optax: has none.
Keras: has none.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import maximum, mean, sqrt


@rule(title="StableAdamW", source="Wortsman et al. 2023, arXiv:2304.13013")
def stable_adamw(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients, bias-corrected"),
    v=State("exp_avg_sq", doc="average of the squared gradients, bias-corrected"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step, in the end"),
    beta2=Hyper(0.99, "[0, 1)", "how much of v is kept each step, in the end"),
    eps=Hyper(1e-6, "(0, inf)", "keeps the divisions finite where v is zero"),
    weight_decay=Hyper(0.01, "[0, inf)", "share of p removed each step, times the clipped rate"),
):
    b1 = beta1 * (1 - beta1 ** (t - 1)) / (1 - beta1**t)
    b2 = beta2 * (1 - beta2 ** (t - 1)) / (1 - beta2**t)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    rms = sqrt(mean(g**2 / maximum(v, eps**2)))
    p = p - lr / maximum(1, rms) * (m / (sqrt(v) + eps) + weight_decay * p)
    return p, m, v
