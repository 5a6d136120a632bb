"""Adafactor of a vector keeps the whole average of the squared gradients; the rest is as for a matrix.

Steps are relative to the root mean square of the tensor, clipped by the update's own, and the average
remembers more as t grows. It takes tensors of any shape.

Paper: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
arXiv:1804.04235, Algorithm 5.
Deviations: torch's, as in `adafactor`.
torch: `Adafactor`, the same, for tensors of one dimension or none.
optax: `adafactor`, for whatever is too small to factor, adds eps = 1e-30 to g**2.
Keras: `Adafactor` adds epsilon_1 = 1e-30 to g**2.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, mean, minimum, sqrt


@dialect(torch={})
@rule(title="Adafactor of a vector", source="Shazeer and Stern 2018, Algorithm 5, arXiv:1804.04235")
def adafactor_vector(
    p,
    g,
    t,
    v=State("variance", doc="average of the squared gradients"),
    lr=Hyper(1e-2, "[0, inf)", "largest relative step"),
    beta2_decay=Hyper(-0.8, "(-inf, 0]", "power of t by which the average comes to rest"),
    eps1=Hyper(2.0**-23, "[0, inf)", "smallest root of v"),
    eps2=Hyper(1e-3, "[0, inf)", "smallest root mean square that the tensor is taken to have"),
    d=Hyper(1.0, "[1, inf)", "root mean square above which an update is clipped"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr"),
):
    rho = t**beta2_decay
    alpha = maximum(eps2, sqrt(mean(p**2))) * minimum(lr, 1 / sqrt(t))
    v = (1 - rho) * v + rho * g**2
    x = g / sqrt(maximum(v, eps1**2))
    p = p - (alpha / maximum(1, sqrt(mean(x**2)) / d) * x + lr * weight_decay * p)
    return p, v


@dialect(adafactor_vector, keras={"lr": 1e-3}, paper={})
def eps_added(
    p,
    g,
    t,
    v,
    lr,
    beta2_decay,
    eps2,
    d,
    eps1=Hyper(1e-30, "(0, inf)", "added to every squared gradient"),
):
    """eps1 is added to the squared gradients, and there is no decay."""
    rho = t**beta2_decay
    alpha = maximum(eps2, sqrt(mean(p**2))) * minimum(lr, 1 / sqrt(t))
    v = (1 - rho) * v + rho * (g**2 + eps1)
    x = g / sqrt(v)
    p = p - alpha / maximum(1, sqrt(mean(x**2)) / d) * x
    return p, v


@dialect(adafactor_vector, optax={})
def constant_rate(
    p,
    g,
    t,
    v,
    lr,
    beta2_decay,
    eps2,
    d,
    eps1=Hyper(1e-30, "(0, inf)", "added to every squared gradient"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, whatever lr is"),
):
    """eps1 is added to the squared gradients, the relative step does not fall, and decay goes without lr."""
    rho = t**beta2_decay
    alpha = maximum(eps2, sqrt(mean(p**2))) * lr
    v = (1 - rho) * v + rho * (g**2 + eps1)
    x = g / sqrt(v)
    p = p - (alpha / maximum(1, sqrt(mean(x**2)) / d) * x + weight_decay * p)
    return p, v
