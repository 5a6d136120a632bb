"""Adafactor of a stack of matrices, such as a convolution's weight, factors each matrix by itself.

The last two dimensions are a matrix's rows and columns; the steps are relative to the root mean square of the
whole tensor. For one matrix it is `adafactor`.

Paper: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
arXiv:1804.04235, Algorithm 4.
Deviations: torch's, as in `adafactor`. The paper speaks of matrices only: its dialect takes a stack matrix by
matrix, as Keras.
torch: `Adafactor`, the same, for tensors of three dimensions or more.
optax: `adafactor` factors the two largest dimensions; its dialect here is for tensors in which they are the
last two.
Keras: `Adafactor` adds epsilon_1 = 1e-30 to g**2.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, mean, minimum, sqrt


@dialect(torch={})
@rule(title="Adafactor of a stack", source="Shazeer and Stern 2018, Algorithm 4, arXiv:1804.04235")
def adafactor_stack(
    p,
    g,
    t,
    r=State("row_var", shape="rows", doc="average of the squared gradients of every row"),
    c=State("col_var", shape="columns", doc="average of the squared gradients of every column"),
    lr=Hyper(1e-2, "[0, inf)", "largest relative step"),
    beta2_decay=Hyper(-0.8, "(-inf, 0]", "power of t by which the averages come to rest"),
    eps1=Hyper(2.0**-23, "[0, inf)", "smallest root of v"),
    eps2=Hyper(1e-3, "[0, inf)", "smallest root mean square that the tensor is taken to have"),
    d=Hyper(1.0, "[1, inf)", "root mean square above which an update is clipped"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr"),
):
    rho = t**beta2_decay
    alpha = maximum(eps2, sqrt(mean(p**2))) * minimum(lr, 1 / sqrt(t))
    r = (1 - rho) * r + rho * mean(g**2, "rows")
    c = (1 - rho) * c + rho * mean(g**2, "columns")
    v = r * c / maximum(mean(r, "columns"), eps1)
    x = g / sqrt(maximum(v, eps1**2))
    p = p - (alpha / maximum(1, sqrt(mean(x**2)) / d) * x + lr * weight_decay * p)
    return p, r, c


@dialect(adafactor_stack, keras={"lr": 1e-3}, paper={})
def eps_added(
    p,
    g,
    t,
    r,
    c,
    lr,
    beta2_decay,
    eps2,
    d,
    eps1=Hyper(1e-30, "(0, inf)", "added to every squared gradient"),
):
    """eps1 is added to the squared gradients, and there is no decay."""
    rho = t**beta2_decay
    alpha = maximum(eps2, sqrt(mean(p**2))) * minimum(lr, 1 / sqrt(t))
    r = (1 - rho) * r + rho * mean(g**2 + eps1, "rows")
    c = (1 - rho) * c + rho * mean(g**2 + eps1, "columns")
    x = g / (sqrt(r / mean(r, "columns")) * sqrt(c))
    p = p - alpha / maximum(1, sqrt(mean(x**2)) / d) * x
    return p, r, c


@dialect(adafactor_stack, optax={})
def constant_rate(
    p,
    g,
    t,
    r,
    c,
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
    r = (1 - rho) * r + rho * mean(g**2 + eps1, "rows")
    c = (1 - rho) * c + rho * mean(g**2 + eps1, "columns")
    x = g / (sqrt(r / mean(r, "columns")) * sqrt(c))
    p = p - (alpha / maximum(1, sqrt(mean(x**2)) / d) * x + weight_decay * p)
    return p, r, c
