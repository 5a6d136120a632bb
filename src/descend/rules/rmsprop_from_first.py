"""RMSProp whose average starts at the first squared gradient instead of zero.

Started at zero the average is too small for about 1/(1 - alpha) steps, and plain RMSProp's first step is
lr / sqrt(1 - alpha) long. Started at the first squared gradient the first step is lr in every direction, as
Adam's is, without a bias correction; the first gradient's weight then fades as alpha**t.

Paper: Tieleman and Hinton 2012, lecture 6.5, slide 29, which leaves the start of the average open.
Deviations: as `rmsprop`; the start.
torch: none; its `RMSprop` starts at 0.
optax: `rmsprop(initial_scale=...)` starts at a given number.
Keras: none; its `RMSprop` starts at 0.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import sqrt, where


@rule(
    title="RMSProp from the first gradient",
    source="Tieleman and Hinton 2012, lecture 6.5, slide 29, started at the first squared gradient",
)
def rmsprop_from_first(
    p,
    g,
    t,
    v=State("square_avg", doc="average of the squared gradients"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate: the size of the first step"),
    alpha=Hyper(0.99, "[0, inf)", "how much of v is kept each step", sensible="[0, 1)"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
):
    v = where(t == 1, g**2, alpha * v + (1 - alpha) * g**2)
    p = p - lr * g / (sqrt(v) + eps)
    return p, v
