"""Nesterov's momentum corrects the running sum with the gradient it has just seen.

The step is what the sum will be one step later if the gradient stays as it is: it looks ahead, so it brakes
earlier than plain momentum. On a quadratic with condition number k the error shrinks by about 1 - 1/sqrt(k)
a step, where gradient descent manages 1 - 2/k.

Paper: Nesterov 1983, "A method of solving a convex programming problem with convergence rate O(1/k^2)", in
the form of Sutskever et al. 2013, eq. 3 and 4.
Deviations: the paper takes the gradient at the point ahead, p + momentum * b. Here p stands for that point
(the substitution of Bengio et al. 2013, arXiv:1212.0901, eq. 7), so the gradient is taken at p. lr stands
outside the sum and the momentum is constant.
torch: `SGD(momentum=..., nesterov=True)`, the same; it demands momentum > 0 and dampening 0.
optax: `sgd(momentum=..., nesterov=True)`, the same.
Keras: `SGD(momentum=..., nesterov=True)` keeps lr inside the sum; it differs once lr changes.
"""

from descend.formula import Hyper, State, dialect, rule


@dialect(torch={}, optax={})
@rule(title="Nesterov momentum", source="Nesterov 1983; Sutskever et al. 2013, eq. 3-4")
def nesterov(
    p,
    g,
    b=State("momentum_buffer", doc="running sum of the gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    momentum=Hyper(0.9, "[0, inf)", "how much of the sum is kept each step", sensible="[0, 1)"),
):
    b = momentum * b + g
    p = p - lr * (g + momentum * b)
    return p, b


@dialect(nesterov, keras={"lr": 0.01}, paper={})
def lr_inside(
    p,
    g,
    lr,
    momentum,
    b=State("momentum_buffer", doc="running sum of the gradients, each times its lr"),
):
    """lr stands inside the sum, so that a change of lr acts on new gradients only."""
    b = momentum * b + lr * g
    p = p - (lr * g + momentum * b)
    return p, b
