"""RMSProp divides the gradient by the root of an average of its recent squares.

Adagrad with a memory that fades, so the rate does not fall to nothing. The average starts at zero, so the
first step is lr / sqrt(1 - alpha) long whatever the gradient: ten times lr at the default alpha.

Paper: Tieleman and Hinton 2012, "Neural Networks for Machine Learning", lecture 6.5, slide 29 (no paper).
Deviations: the slide has alpha = 0.9 and no eps.
torch: `RMSprop`, the same: eps outside the root; default lr 1e-2, alpha 0.99, eps 1e-8.
optax: `rmsprop` has eps inside the root unless told otherwise, decay 0.9, and a first average that can be
chosen (initial_scale).
Keras: `RMSprop` has eps 1e-7 inside the root, rho 0.9 and lr 1e-3.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt


@dialect(torch={}, paper={"alpha": 0.9, "eps": 0.0})
@rule(title="RMSProp", source="Tieleman and Hinton 2012, lecture 6.5, slide 29")
def rmsprop(
    p,
    g,
    v=State("square_avg", doc="average of the squared gradients"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate"),
    alpha=Hyper(0.99, "[0, inf)", "how much of v is kept each step", sensible="[0, 1)"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
):
    v = alpha * v + (1 - alpha) * g**2
    p = p - lr * g / (sqrt(v) + eps)
    return p, v


@dialect(rmsprop, keras={"lr": 1e-3, "alpha": 0.9, "eps": 1e-7}, optax={"alpha": 0.9})
def eps_inside(
    p,
    g,
    lr,
    alpha,
    eps,
    v=State("square_avg", init="initial_scale", doc="average of the squared gradients"),
    initial_scale=Hyper(0.0, "[0, inf)", "what the average starts at; in optax"),
):
    """eps stands inside the root."""
    v = alpha * v + (1 - alpha) * g**2
    p = p - lr * g / sqrt(v + eps)
    return p, v
