"""AdaMax divides an average of the gradients by their largest recent size.

Adam with the infinity norm in place of the root mean square: u_inf is the largest |g| so far, fading by
beta2 a step. With the default betas no step is longer than 1.0091 * lr.

Paper: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, Algorithm 2.
Deviations: eps, which the paper does not have, is added to |g|, as in torch. The paper's u is u_inf here.
Where it is zero (eps = 0 and every gradient zero) the step is zero, where the paper's formula is 0/0.
torch: `Adamax`, the same, but NaN where u_inf is zero.
optax: `adamax`, the same as torch; lr has no default.
Keras: `Adamax` takes max(beta2 * u, |g|) and divides by u + eps, eps 1e-7, lr 1e-3.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import abs, maximum, where


@dialect(torch={}, optax={}, paper={"eps": 0.0})
@rule(title="AdaMax", source="Kingma and Ba 2015, Algorithm 2, arXiv:1412.6980")
def adamax(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the gradients"),
    u_inf=State("exp_inf", doc="largest recent size of the gradient"),
    lr=Hyper(2e-3, "[0, inf)", "learning rate: the size of a step"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.999, "[0, 1)", "how much of u_inf is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps u_inf from zero"),
):
    m = beta1 * m + (1 - beta1) * g
    u_inf = maximum(beta2 * u_inf, abs(g) + eps)
    direction = where(u_inf == 0, 0, m / u_inf)
    p = p - lr / (1 - beta1**t) * direction
    return p, m, u_inf


@dialect(adamax, keras={"lr": 1e-3, "eps": 1e-7})
def eps_apart(p, g, t, m, u_inf, lr, beta1, beta2, eps):
    """eps is added where u_inf divides, and is no part of it."""
    m = beta1 * m + (1 - beta1) * g
    u_inf = maximum(beta2 * u_inf, abs(g))
    p = p - lr / (1 - beta1**t) * m / (u_inf + eps)
    return p, m, u_inf
