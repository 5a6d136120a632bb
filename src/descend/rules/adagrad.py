"""Adagrad divides the gradient by the root of the sum of all its squares so far.

Directions that have seen much slope take short steps, rare ones take long steps; it was made for sparse
features. The sum only grows, so the rate falls by itself: under a constant gradient the steps are
lr / sqrt(t).

Paper: Duchi, Hazan and Singer 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic
Optimization", JMLR 12, Figure 1, with the diagonal matrix and no proximal term.
Deviations: eps stands outside the root (delta in the paper, added to the diagonal of the root: the same).
lr_decay and the initial value of the sum are torch's; with 0 they are absent.
torch: `Adagrad`, the same; default lr 1e-2, eps 1e-10, sum from 0.
optax: `adagrad` starts the sum at 0.1 and has eps 1e-7 inside the root.
Keras: `Adagrad` starts the sum at 0.1, has eps 1e-7 inside the root and lr 1e-3.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sqrt


@dialect(torch={}, paper={})
@rule(title="Adagrad", source="Duchi, Hazan and Singer 2011, JMLR 12, Figure 1 (diagonal)")
def adagrad(
    p,
    g,
    t,
    s=State("sum", init="initial_accumulator_value", doc="sum of the squared gradients"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate: the size of the first step"),
    lr_decay=Hyper(0.0, "[0, inf)", "how fast lr falls with t, on top of the sum's growth"),
    initial_accumulator_value=Hyper(0.0, "[0, inf)", "what the sum starts at"),
    eps=Hyper(1e-10, "[0, inf)", "keeps the division finite where the sum is zero"),
):
    rate = lr / (1 + (t - 1) * lr_decay)
    s = s + g**2
    p = p - rate * g / (sqrt(s) + eps)
    return p, s


@dialect(
    adagrad,
    keras={"lr": 1e-3, "initial_accumulator_value": 0.1, "eps": 1e-7},
    optax={"initial_accumulator_value": 0.1, "eps": 1e-7},
)
def eps_inside(p, g, s, lr, initial_accumulator_value, eps):
    """eps stands inside the root, and the sum starts at 0.1."""
    s = s + g**2
    p = p - lr * g / sqrt(s + eps)
    return p, s
