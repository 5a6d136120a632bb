"""RMSProp with momentum keeps a running sum of the scaled gradients and steps along it.

Each gradient is divided by the root of an average of its recent squares, then summed as in `momentum`.

Paper: Tieleman and Hinton 2012, lecture 6.5, slides 29 and 30; the sum as in Graves 2013, eq. 42.
Deviations: lr stands outside the sum, as in torch; in Graves it is inside.
torch: `RMSprop(momentum=...)`, the same.
optax: `rmsprop(momentum=...)` keeps lr inside the sum, and eps inside the root unless told otherwise.
Keras: `RMSprop(momentum=...)` keeps lr inside the sum and eps 1e-7 inside the root.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import sqrt


@rule(title="RMSProp with momentum", source="Tieleman and Hinton 2012, lecture 6.5; Graves 2013, eq. 42")
def rmsprop_momentum(
    p,
    g,
    v=State("square_avg", doc="average of the squared gradients"),
    b=State("momentum_buffer", doc="running sum of the scaled gradients"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate"),
    alpha=Hyper(0.99, "[0, inf)", "how much of v is kept each step", sensible="[0, 1)"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
    momentum=Hyper(0.9, "[0, inf)", "how much of the sum is kept each step", sensible="[0, 1)"),
):
    v = alpha * v + (1 - alpha) * g**2
    b = momentum * b + g / (sqrt(v) + eps)
    p = p - lr * b
    return p, v, b
