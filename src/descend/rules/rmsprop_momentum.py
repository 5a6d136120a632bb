"""RMSProp with momentum keeps a running sum of the scaled gradients and steps along it.

Each gradient is divided by the root of an average of its recent squares, then summed as in `momentum`.

Paper: Tieleman and Hinton 2012, lecture 6.5, slide 29; the sum as in Graves 2013, arXiv:1308.0850, eq. 40.
Deviations: lr stands outside the sum, as in torch; in Graves it is inside. No paper has just this: the slides
only name the combination, and Graves has the centred one.
torch: `RMSprop(momentum=...)`, the same.
optax: `rmsprop(momentum=...)` keeps lr inside the sum, and eps inside the root unless told otherwise.
Keras: `RMSprop(momentum=...)` keeps lr inside the sum and eps 1e-7 inside the root.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt


@dialect(torch={})
@rule(title="RMSProp with momentum", source="Tieleman and Hinton 2012, lecture 6.5; Graves 2013, eq. 40")
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


@dialect(rmsprop_momentum, keras={"lr": 1e-3, "alpha": 0.9, "eps": 1e-7}, optax={"alpha": 0.9})
def lr_inside(
    p,
    g,
    lr,
    alpha,
    eps,
    momentum,
    v=State("square_avg", init="initial_scale", doc="average of the squared gradients"),
    b=State("momentum_buffer", doc="running sum of the steps"),
    initial_scale=Hyper(0.0, "[0, inf)", "what the average starts at; in optax"),
):
    """eps stands inside the root, and lr inside the sum."""
    v = alpha * v + (1 - alpha) * g**2
    b = momentum * b + lr * g / sqrt(v + eps)
    p = p - b
    return p, v, b
