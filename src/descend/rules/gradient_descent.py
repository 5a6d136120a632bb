"""Gradient descent steps against the gradient, by the learning rate.

The oldest rule of all: p moves down the steepest slope, and the steeper the slope the longer the step. On a
quadratic of curvature h it converges exactly when lr < 2/h.

Source: Cauchy 1847, "Méthode générale pour la résolution des systèmes d'équations simultanées".
torch: `SGD` without momentum. optax: `sgd`. Keras: `SGD`. All the same.
"""

from descend.formula import Hyper, rule


@rule(title="Gradient descent", source="Cauchy 1847")
def gradient_descent(p, g, lr=Hyper(1e-3, "[0, inf)", "learning rate")):
    p = p - lr * g
    return p
