"""Small formulas that change a rule's gradient or parameter before the rule sees them."""

from .formula import Hyper, rule


@rule(title="ascent", source="the sign that turns descent into ascent")
def ascent(g):
    """Climb instead of descend: the rule sees the negated gradient."""
    g = -g
    return g


@rule(title="coupled weight decay", source="Hoerl and Kennard 1970, ridge regression")
def coupled_decay(p, g, weight_decay=Hyper(0.0, "[0, inf)", "strength of the L2 penalty")):
    """L2: the gradient of the penalty weight_decay/2 * p**2 joins the loss's, and is averaged with it."""
    g = g + weight_decay * p
    return g


@rule(title="decoupled weight decay", source="Loshchilov and Hutter 2019, Algorithm 2, arXiv:1711.05101")
def decoupled_decay(
    p,
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr"),
):
    """The parameter shrinks by itself, outside the rule's averages; scaled by the learning rate."""
    p = p - lr * weight_decay * p
    return p


@rule(title="independent weight decay", source="Loshchilov and Hutter 2019, section 3, arXiv:1711.05101")
def independent_decay(p, weight_decay=Hyper(0.0, "[0, 1)", "share of p removed each step, whatever lr is")):
    """The parameter shrinks by the same share at every learning rate: p <- p - lr*u - weight_decay*p."""
    p = p - weight_decay * p
    return p
