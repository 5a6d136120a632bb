"""Averaged SGD steps with a falling rate and keeps the average of the points it passes.

p wanders about the minimum with the noise of the gradients; the average ax, taken from step t0 on, comes to
rest in the middle, as fast as the best method could. ax is what a model should use in the end.

Paper: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control
Optim. 30; rate and decay as in Bottou's averaged SGD and Xu 2011, arXiv:1107.2490, section 4.
Deviations: torch's: the first step uses lr, the later ones lr / (1 + lambd * lr * t)**alpha with the t of the
step before, and p decays by lambd * eta each step.
torch: `ASGD`, the same; it rounds eta and mu to float32.
optax: has none.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, where


@dialect(torch={})
@rule(title="Averaged SGD", source="Polyak and Juditsky 1992; Xu 2011, arXiv:1107.2490")
def asgd(
    p,
    g,
    t,
    eta=State("eta", init="lr", scalar=True, doc="rate of the next step"),
    mu=State("mu", init=1.0, scalar=True, doc="weight of the next point in the average"),
    ax=State("ax", doc="average of the points since t0; p itself before"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate of the first step"),
    lambd=Hyper(1e-4, "(-inf, inf)", "decay of p, and how fast the rate falls", sensible="[0, inf)"),
    alpha=Hyper(0.75, "(-inf, inf)", "power by which the rate falls", sensible="[0, inf)"),
    t0=Hyper(1e6, "(-inf, inf)", "step at which averaging starts", sensible="[0, inf)"),
):
    p = p - eta * (g + lambd * p)
    ax = where(mu == 1, p, ax + mu * (p - ax))
    eta = lr / (1 + lambd * lr * t) ** alpha
    mu = 1 / maximum(1, t - t0)
    return p, eta, mu, ax
