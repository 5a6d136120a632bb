"""Averaged momentum steps along an exponentially weighted average of the gradients.

v is an average, not a sum: along a constant gradient the step grows to lr * g and no further, so lr keeps
its meaning when beta changes. The average remembers about 1/(1 - beta) steps. It starts at zero and is not
corrected for that, so the first steps are short: the first one is (1 - beta) * lr * g.

The sum of `momentum` is b = v / (1 - beta). So this rule with lr / (1 - beta) follows the path of `momentum`
with lr, and that rule's step lr * (1 - beta) is this one's step lr.

Paper: the momentum of Polyak 1964 as an average; in Kingma and Ba 2015, Algorithm 1, the line for m.
Deviations: none; without the bias correction of Adam.
torch: `SGD(momentum=beta, dampening=beta)` is the same average, started at the first gradient instead of 0.
optax: `trace` keeps the sum; the average is `ema(decay, debias=False)` followed by the scale -lr.
Keras: has the sum only.
"""

from descend.formula import Hyper, State, rule


@rule(title="Averaged momentum", source="Polyak 1964; Kingma and Ba 2015, Algorithm 1, the line for m")
def ema_momentum(
    p,
    g,
    v=State("exp_avg", doc="average of the gradients"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate"),
    beta=Hyper(0.9, "[0, 1)", "how much of v is kept each step; remembers about 1/(1 - beta) steps"),
):
    v = beta * v + (1 - beta) * g
    p = p - lr * v
    return p, v
