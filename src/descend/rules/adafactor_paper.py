"""Adafactor as its paper has it: eps1 is added to the squared gradients, and there is no weight decay.

Steps are relative to the root mean square of the matrix, and at most 0.01 of it; the roots of r and c are
taken one by one, so that eps1 = 1e-30 is no trouble to float32.

Paper: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
arXiv:1804.04235, Algorithm 4.
Deviations: none.
torch: has the form of `adafactor`.
optax: `adafactor`, the same at learning_rate 0.01 and min_dim_size_to_factor 1, for the first 10,000 steps.
Keras: `Adafactor`, the same at learning_rate 0.01, factoring the last two dimensions.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import maximum, mean, minimum, sqrt


@rule(title="Adafactor of the paper", source="Shazeer and Stern 2018, Algorithm 4, arXiv:1804.04235")
def adafactor_paper(
    p,
    g,
    t,
    r=State("row_var", shape="rows", doc="average of the squared gradients of every row"),
    c=State("col_var", shape="columns", doc="average of the squared gradients of every column"),
    lr=Hyper(1e-2, "[0, inf)", "largest relative step"),
    beta2_decay=Hyper(-0.8, "(-inf, 0]", "power of t by which the averages come to rest"),
    eps1=Hyper(1e-30, "(0, inf)", "added to every squared gradient"),
    eps2=Hyper(1e-3, "[0, inf)", "smallest root mean square that the tensor is taken to have"),
    d=Hyper(1.0, "[1, inf)", "root mean square above which an update is clipped"),
):
    rho = t**beta2_decay
    alpha = maximum(eps2, sqrt(mean(p**2))) * minimum(lr, 1 / sqrt(t))
    r = (1 - rho) * r + rho * mean(g**2 + eps1, "rows")
    c = (1 - rho) * c + rho * mean(g**2 + eps1, "columns")
    x = g / (sqrt(r / mean(r)) * sqrt(c))
    p = p - alpha / maximum(1, sqrt(mean(x**2)) / d) * x
    return p, r, c
