"""Momentum keeps a running sum of gradients and steps along it.

A heavy ball: what it gained on earlier slopes carries it on. Along a constant gradient the steps grow to
1/(1 - momentum) times the plain step; across a ravine the signs cancel.

Paper: Polyak 1964, "Some methods of speeding up the convergence of iteration methods", in the form of
Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", eq. 1 and 2.
Deviations: lr stands outside the sum, as in torch, so a change of lr acts at once on the whole buffer; with
a constant lr both forms give the same path. Dampening is torch's own and 0 in the paper.
torch: the first buffer is g itself, without dampening. optax: no dampening. Keras: lr inside the sum.
The exponentially weighted form b = momentum*b + (1 - momentum)*g is this rule with lr/(1 - momentum).
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import where


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
