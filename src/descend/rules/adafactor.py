"""Adafactor keeps of a matrix's squared gradients only an average by row and one by column.

Their product, over the mean, stands for Adam's v: for a matrix of n by m it takes n + m numbers instead of
n*m, and there is no momentum. Steps are relative to the root mean square of the tensor; the update is divided
by its own root mean square where that is above d. Averages remember more as t grows, 1 - 1/t**0.8. Tensors of
one dimension take `adafactor_vector`, those of three or more `adafactor_stack`;
`descend.optim.adafactor.Adafactor` chooses for every parameter of a model.

Paper: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
arXiv:1804.04235, Algorithm 4.
Deviations: torch's: eps1 bounds v below instead of being added to g**2, and is the float32 epsilon; lr takes
the place of the paper's 0.01 in min(lr, 1/sqrt(t)); decoupled weight decay.
torch: `Adafactor`, the same; it takes the epsilon of the parameter's own type.
optax: `adafactor` adds eps = 1e-30 to g**2, factors only from 128 rows and columns on, and lr is a relative
step that does not fall with t; lr has no default.
Keras: `Adafactor` adds epsilon_1 = 1e-30 to g**2, as the paper; lr 1e-3.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, mean, minimum, sqrt


@dialect(torch={})
@rule(title="Adafactor", source="Shazeer and Stern 2018, Algorithm 4, arXiv:1804.04235")
def adafactor(
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
    by_row = 1 / sqrt(r / maximum(mean(r), eps1))
    by_column = 1 / sqrt(c)
    x = g * minimum(by_row * by_column, 1 / eps1)
    p = p - (alpha / maximum(1, sqrt(mean(x**2)) / d) * x + lr * weight_decay * p)
    return p, r, c


@dialect(adafactor, keras={"lr": 1e-3}, paper={})
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
    x = g / (sqrt(r / mean(r)) * sqrt(c))
    p = p - alpha / maximum(1, sqrt(mean(x**2)) / d) * x
    return p, r, c


@dialect(adafactor, optax={})
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
    x = g / (sqrt(r / mean(r)) * sqrt(c))
    p = p - (alpha / maximum(1, sqrt(mean(x**2)) / d) * x + weight_decay * p)
    return p, r, c
