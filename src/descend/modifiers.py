"""Small formulas for `chain`: before a rule they change its gradient or parameter, after it its update."""

from .formula import Hyper, State, except_for, rule
from .formula.vocabulary import global_norm, maximum, mean, minimum, norm, normal, sqrt, where

# before a rule


@rule(title="ascent", source="the sign that turns descent into ascent")
def ascent(g):
    """Climb instead of descend: the rule sees the negated gradient."""
    g = -g
    return g


@rule(title="clipping by value", source="torch.nn.utils.clip_grad_value_")
def clip_value(g, clip=Hyper(1.0, "(0, inf)", "largest size of an element of the gradient")):
    """Every element of the gradient is kept within -clip and clip."""
    g = minimum(maximum(g, -clip), clip)
    return g


@rule(title="clipping by norm", source="Pascanu, Mikolov and Bengio 2013, Algorithm 1, arXiv:1211.5063")
def clip_norm(g, max_norm=Hyper(1.0, "(0, inf)", "largest Euclidean length of a tensor's gradient")):
    """Each tensor's gradient is shortened to max_norm where it is longer."""
    g = g * minimum(1, max_norm / norm(g))
    return g


@rule(
    title="clipping by global norm",
    source="Pascanu, Mikolov and Bengio 2013, Algorithm 1, arXiv:1211.5063; torch.nn.utils.clip_grad_norm_",
)
def clip_global_norm(
    g, max_norm=Hyper(1.0, "(0, inf)", "largest Euclidean length of all gradients together")
):
    """All gradients, taken as one vector, are shortened to max_norm where it is longer; 1e-6 is torch's."""
    g = g * minimum(1, max_norm / (global_norm(g) + 1e-6))
    return g


@rule(title="adaptive gradient clipping", source="Brock et al. 2021, arXiv:2102.06171")
def agc(
    p,
    g,
    clipping=Hyper(0.01, "(0, inf)", "largest length of a row's gradient, as a share of the row's"),
    floor=Hyper(1e-3, "(0, inf)", "smallest length that a row of p is taken to have"),
):
    """Each row of a gradient (a filter of a convolution, a whole vector) is kept to a share of p's row."""
    most = clipping * maximum(norm(p, "rows"), floor)
    g = g * where(norm(g, "rows") < most, 1, most / norm(g, "rows"))
    return g


@rule(title="gradient centralisation", source="Yong et al. 2020, equation 1, arXiv:2004.01461")
def centralise(g):
    """The mean of each row (filter of a convolution) is taken from the gradient; vectors are left alone."""
    g = g - mean(g, "rows")
    return g


centralise = except_for(centralise, ndim=(0, 1))


@rule(title="gradient noise", source="Neelakantan et al. 2015, section 2, arXiv:1511.06807; optax.add_noise")
def gradient_noise(
    g,
    t,
    k=State("gradient_place", init="place", doc="which of the parameters this is", scalar=True),
    eta=Hyper(0.3, "[0, inf)", "variance of the noise at the first step"),
    gamma=Hyper(0.55, "[0, inf)", "power of t by which the variance falls"),
    seed=Hyper(0.0, "(-inf, inf)", "decides the noise, together with step, parameter and element"),
):
    """Normal noise of variance eta / t**gamma joins the gradient; the paper has 1 + t, and t from 0."""
    g = g + sqrt(eta / t**gamma) * normal(seed, t, k)
    return g, k


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


# after a rule


@rule(title="caution", source="Liang et al. 2024, arXiv:2411.16085, and the authors' code")
def cautious(g, u):
    """Only elements whose update goes down the gradient move, and further the fewer they are."""
    kept = where(u * g <= 0, 0, 1)
    u = u * kept / maximum(mean(kept), 1e-3)
    return u


@rule(title="rate of a layer", source="Howard and Ruder 2018, section 3.2, arXiv:1801.06146")
def layer_rate(u, rate=Hyper(1.0, "[0, inf)", "factor of the update, each group's own")):
    """The update times a factor that a group sets, beside an lr that all groups share."""
    u = rate * u
    return u


@rule(title="Langevin noise", source="Welling and Teh 2011, equation 4, ICML")
def langevin(
    u,
    t,
    j=State("langevin_place", init="place", doc="which of the parameters this is", scalar=True),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    temperature=Hyper(
        1.0, "[0, inf)", "how far from the minimum; 1 samples the posterior of a sum of losses"
    ),
    seed=Hyper(0.0, "(-inf, inf)", "decides the noise, together with step, parameter and element"),
):
    """Normal noise of variance 2*lr*temperature joins the update: around gradient descent, SGLD."""
    u = u + sqrt(2 * lr * temperature) * normal(seed + 0.5, t, j)  # another than the gradient's
    return u, j


@rule(title="caution without its scale", source="Liang et al. 2024, arXiv:2411.16085, without the mean")
def cautious_unscaled(g, u):
    """Only elements whose update goes down the gradient move; one pass, where the scaled form takes two."""
    u = where(u * g <= 0, 0, u)
    return u


@rule(
    title="average of weights",
    source="Polyak and Juditsky 1992; Tarvainen and Valpola 2017, arXiv:1703.01780",
)
def ema_weights(
    p,
    a=State("average", init="p", doc="average of the parameter after each step"),
    decay=Hyper(0.999, "[0, 1]", "how much of the average is kept each step"),
):
    """An average of the weights rides along; `opt.state[p]["average"]` holds it, and p is as it would be."""
    a = decay * a + (1 - decay) * p
    return a
