"""Lion steps by the sign of an average, so every element moves by the same lr.

The sign looks at beta1*m + (1-beta1)*g, which listens to the present gradient more than the average m that is
kept with beta2. One state instead of Adam's two. As all elements move by lr, lr is chosen 3 to 10 times
smaller than Adam's, and weight_decay larger by as much.

Paper: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675, Algorithm 2.
Deviations: none.
torch: has none.
optax: `lion` has weight_decay 1e-3 for its default; otherwise the same.
Keras: `Lion`, the same; its decay is multiplied by lr too; default lr 1e-3.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import sign


@dialect(paper={}, keras={"lr": 1e-3}, optax={"weight_decay": 1e-3})
@rule(title="Lion", source="Chen et al. 2023, Algorithm 2, arXiv:2302.06675")
def lion(
    p,
    g,
    m=State("exp_avg", doc="average of the gradients"),
    lr=Hyper(1e-4, "[0, inf)", "learning rate: how far every element moves"),
    beta1=Hyper(0.9, "[0, 1)", "share of m in what the sign is taken of"),
    beta2=Hyper(0.99, "[0, 1)", "how much of m is kept each step"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr"),
):
    c = beta1 * m + (1 - beta1) * g
    p = p - lr * (sign(c) + weight_decay * p)
    m = beta2 * m + (1 - beta2) * g
    return p, m
