"""Momentum keeps a running sum of gradients and steps along it.

A heavy ball: what it gained on earlier slopes carries it on. Along a constant gradient the steps grow to
1/(1 - momentum) times the plain step; across a ravine the signs cancel. On a quadratic of curvature h it
converges exactly when lr < 2 * (1 + momentum) / h.

The exponentially weighted form `ema_momentum` is this rule with its lr multiplied by 1 - momentum: with
dampening 0, lr here and lr / (1 - momentum) there give the same path.

Paper: Polyak 1964, "Some methods of speeding up the convergence of iteration methods", in the form of
Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", eq. 1 and 2.
Deviations: lr stands outside the sum, so a change of lr acts at once on the whole buffer; with a constant lr
both forms give the same path. Dampening is torch's own; with 0 it is absent.
torch: `SGD(momentum=...)`, the same; the first buffer is g itself, whatever the dampening. Its default
momentum is 0.
optax: `sgd(momentum=...)`, the same without dampening.
Keras: `SGD(momentum=...)` keeps lr inside the sum: b = momentum * b - lr * g, p = p + b. It differs once lr
changes.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import where


@dialect(torch={}, optax={})
@rule(title="Momentum", source="Polyak 1964; Sutskever et al. 2013, eq. 1-2")
def momentum(
    p,
    g,
    t,
    b=State("momentum_buffer", doc="running sum of the gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    momentum=Hyper(0.9, "[0, inf)", "how much of the sum is kept each step", sensible="[0, 1)"),
    dampening=Hyper(0.0, "(-inf, inf)", "how much of the new gradient is left out", sensible="[0, 1]"),
):
    b = where(t == 1, g, momentum * b + (1 - dampening) * g)
    p = p - lr * b
    return p, b


@dialect(momentum, keras={"lr": 0.01}, paper={})
def lr_inside(
    p,
    g,
    lr,
    momentum,
    b=State("momentum_buffer", doc="running sum of the gradients, each times its lr"),
):
    """lr stands inside the sum, so that a change of lr acts on new gradients only."""
    b = momentum * b + lr * g
    p = p - b
    return p, b
