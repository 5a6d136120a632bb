"""Centred RMSProp divides the gradient by its recent standard deviation.

v - m**2 is the variance of the recent gradients, so a steady gradient takes long steps and a noisy one short
ones.

Paper: Graves 2013, "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850, eq. 38 to 41.
Deviations: eps outside the root, as torch; in the paper it is inside (1e-4). No momentum: that is
`rmsprop_centered_momentum`. v - m**2 is held at zero from below: rounding can make it negative under a
steady gradient, whose root would be NaN.
torch: `RMSprop(centered=True)`, the same but without the hold; it makes NaN after about 1230 steps of a
near-constant gradient.
optax: `rmsprop(centered=True)` has eps inside the root unless told otherwise.
Keras: `RMSprop(centered=True)` has eps 1e-7 inside the root.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, sqrt


@dialect(torch={})
@rule(title="Centred RMSProp", source="Graves 2013, eq. 38-41, arXiv:1308.0850")
def rmsprop_centered(
    p,
    g,
    v=State("square_avg", doc="average of the squared gradients"),
    m=State("grad_avg", doc="average of the gradients"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate"),
    alpha=Hyper(0.99, "[0, inf)", "how much of both averages is kept each step", sensible="[0, 1)"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where the variance is zero"),
):
    v = alpha * v + (1 - alpha) * g**2
    m = alpha * m + (1 - alpha) * g
    variance = maximum(v - m**2, 0)
    p = p - lr * g / (sqrt(variance) + eps)
    return p, v, m


@dialect(
    rmsprop_centered,
    keras={"lr": 1e-3, "alpha": 0.9, "eps": 1e-7},
    optax={"alpha": 0.9},
    paper={"lr": 1e-4, "alpha": 0.95, "eps": 1e-4},
)
def eps_inside(
    p,
    g,
    m,
    lr,
    alpha,
    eps,
    v=State("square_avg", init="initial_scale", doc="average of the squared gradients"),
    initial_scale=Hyper(0.0, "[0, inf)", "what the average of the squares starts at; in optax"),
):
    """eps stands inside the root."""
    v = alpha * v + (1 - alpha) * g**2
    m = alpha * m + (1 - alpha) * g
    variance = maximum(v - m**2, 0)
    p = p - lr * g / sqrt(variance + eps)
    return p, v, m
