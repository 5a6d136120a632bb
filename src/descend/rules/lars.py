"""LARS is momentum with a rate of its own for every tensor, in proportion to the size of its weights.

The trust ratio makes a step a fixed share eta of the tensor's norm, whatever the gradient's size, so that
with large batches and rates no layer is thrown far while others hardly move. Tensors of one dimension
(biases, scales) are usually given a group with plain momentum.

Paper: You, Gitman and Ginsburg 2017, "Large Batch Training of Convolutional Networks", arXiv:1708.03888,
Algorithm 1.
Deviations: where p or g is all zero the trust ratio is 1; the paper's would never leave p = 0.
torch: has none.
optax: `lars` takes the norm of g + weight_decay*p in the ratio; default weight_decay 0, lr has none.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import norm, where


@dialect(paper={})
@rule(title="LARS", source="You, Gitman and Ginsburg 2017, Algorithm 1, arXiv:1708.03888")
def lars(
    p,
    g,
    b=State("momentum_buffer", doc="running sum of the scaled gradients, times lr"),
    lr=Hyper(1.0, "[0, inf)", "learning rate, the same for all tensors"),
    momentum=Hyper(0.9, "[0, 1)", "how much of b is kept each step"),
    eta=Hyper(0.001, "[0, inf)", "trust: the share of a tensor's norm that a step is long"),
    weight_decay=Hyper(5e-4, "[0, inf)", "strength of the L2 penalty"),
):
    ratio = eta * norm(p) / (norm(g) + weight_decay * norm(p))
    trust = where(norm(p) * norm(g) == 0, 1, ratio)
    b = momentum * b + lr * trust * (g + weight_decay * p)
    p = p - b
    return p, b


@dialect(lars, optax={"weight_decay": 0.0})
def norm_of_the_sum(p, g, b, lr, momentum, eta, weight_decay):
    """The ratio has the norm of g + weight_decay*p, not the sum of the two norms."""
    d = g + weight_decay * p
    trust = where(norm(p) * norm(d) == 0, 1, eta * norm(p) / norm(d))
    b = momentum * b + lr * trust * d
    p = p - b
    return p, b
