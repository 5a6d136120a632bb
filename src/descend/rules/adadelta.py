"""Adadelta scales the gradient by the ratio of recent steps to recent gradients.

The ratio gives a step in the units of p, whatever the scale of the loss, so lr = 1 is meant to fit
everywhere. Steps build up from almost nothing: the first one is about lr * sqrt(eps / (1 - rho)), whatever
the size of the gradient.

Paper: Zeiler 2012, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701, Algorithm 1.
Deviations: the paper has no lr (it is 1 here) and keeps rho = 0.95.
torch: `Adadelta`, the same; default rho 0.9, eps 1e-6.
optax: `adadelta`, the same formula; default rho 0.9, eps 1e-6. Without a learning_rate it leaves out the
sign too, and climbs (0.2.8).
Keras: `Adadelta`, the same formula; default lr 0.001, rho 0.95, eps 1e-7.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt


@dialect(torch={}, keras={"lr": 1e-3, "rho": 0.95, "eps": 1e-7}, optax={}, paper={"rho": 0.95})
@rule(title="Adadelta", source="Zeiler 2012, Algorithm 1, arXiv:1212.5701")
def adadelta(
    p,
    g,
    v=State("square_avg", doc="average of the squared gradients"),
    d=State("acc_delta", doc="average of the squared steps"),
    lr=Hyper(1.0, "[0, inf)", "multiplies the step; 1 in the paper"),
    rho=Hyper(0.9, "[0, 1]", "how much of both averages is kept each step", sensible="[0, 1)"),
    eps=Hyper(1e-6, "[0, inf)", "starts the steps off; keeps both roots from zero"),
):
    v = rho * v + (1 - rho) * g**2
    step = sqrt(d + eps) / sqrt(v + eps) * g
    d = rho * d + (1 - rho) * step**2
    p = p - lr * step
    return p, v, d
