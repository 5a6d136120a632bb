"""Centred RMSProp with momentum sums gradients divided by their recent standard deviation.

The rule of Graves: v - m**2 is the variance of the recent gradients; each gradient is divided by its root
and summed as in `momentum`.

Paper: Graves 2013, "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850, eq. 38 to 45.
Deviations: eps outside the root and lr outside the sum, as torch; in the paper both are inside. v - m**2 is
held at zero from below, as in `rmsprop_centered`.
torch: `RMSprop(centered=True, momentum=...)`, the same but without the hold.
optax: `rmsprop(centered=True, momentum=...)` keeps lr inside the sum, and eps inside the root unless told
otherwise.
Keras: `RMSprop(centered=True, momentum=...)` keeps lr inside the sum and eps 1e-7 inside the root.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, sqrt


@dialect(torch={})
@rule(title="Centred RMSProp with momentum", source="Graves 2013, eq. 38-45, arXiv:1308.0850")
def rmsprop_centered_momentum(
    p,
    g,
    v=State("square_avg", doc="average of the squared gradients"),
    b=State("momentum_buffer", doc="running sum of the scaled gradients"),
    m=State("grad_avg", doc="average of the gradients"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate"),
    alpha=Hyper(0.99, "[0, inf)", "how much of both averages is kept each step", sensible="[0, 1)"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where the variance is zero"),
    momentum=Hyper(0.9, "[0, inf)", "how much of the sum is kept each step", sensible="[0, 1)"),
):
    v = alpha * v + (1 - alpha) * g**2
    m = alpha * m + (1 - alpha) * g
    variance = maximum(v - m**2, 0)
    b = momentum * b + g / (sqrt(variance) + eps)
    p = p - lr * b
    return p, v, b, m


@dialect(
    rmsprop_centered_momentum,
    keras={"lr": 1e-3, "alpha": 0.9, "eps": 1e-7},
    optax={"alpha": 0.9},
    paper={"lr": 1e-4, "alpha": 0.95, "eps": 1e-4},
)
def lr_inside(
    p,
    g,
    m,
    lr,
    alpha,
    eps,
    momentum,
    v=State("square_avg", init="initial_scale", doc="average of the squared gradients"),
    b=State("momentum_buffer", doc="running sum of the steps"),
    initial_scale=Hyper(0.0, "[0, inf)", "what the average of the squares starts at; in optax"),
):
    """eps stands inside the root, and lr inside the sum."""
    v = alpha * v + (1 - alpha) * g**2
    m = alpha * m + (1 - alpha) * g
    variance = maximum(v - m**2, 0)
    b = momentum * b + lr * g / sqrt(variance + eps)
    p = p - b
    return p, v, b, m
