"""Gradient descent steps against the gradient, by the learning rate.

The oldest rule of all: p moves down the steepest slope, and the steeper the slope the longer the step. On a
quadratic of curvature h it converges exactly when lr < 2/h, and lr = 1/h arrives in one step.

Paper: Cauchy 1847, "Méthode générale pour la résolution des systèmes d'équations simultanées".
Deviations: none; Cauchy chooses lr anew at every step, here it is given.
torch: `SGD` with momentum=0, the same; its default lr is 1e-3.
optax: `sgd`, the same; lr has no default.
Keras: `SGD`, the same; its default lr is 0.01.
"""

from descend.formula import Hyper, dialect, rule


@dialect(torch={}, keras={"lr": 0.01}, optax={}, paper={})
@rule(title="Gradient descent", source="Cauchy 1847")
def gradient_descent(
    p,
    g,
    lr=Hyper(1e-3, "[0, inf)", "learning rate: how far p moves per unit of gradient"),
):
    p = p - lr * g
    return p
