"""ADOPT divides the gradient by the root of a v that has not seen it, and averages only then.

That removes the correlation between the two, because of which Adam needs the right beta2 to converge: ADOPT
converges at the best rate with any. The first step only starts v. The divided gradient is clipped at
(t-1)**(1/4), which keeps early steps small where v began near zero.

Paper: Taniguchi et al. 2024, "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate",
arXiv:2411.02853, Algorithm 2.
Deviations: none; the paper counts steps from the second gradient. For weight decay put one before it.
torch: has none.
optax: `contrib.adopt`, the same.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, minimum, sqrt, where


@dialect(paper={}, optax={})
@rule(title="ADOPT", source="Taniguchi et al. 2024, Algorithm 2, arXiv:2411.02853")
def adopt(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the divided gradients"),
    v=State("exp_avg_sq", doc="average of the squared gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate"),
    beta1=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.9999, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-6, "(0, inf)", "smallest number that the gradient is divided by"),
):
    top = (t - 1) ** 0.25
    scaled = minimum(maximum(g / maximum(sqrt(v), eps), -top), top)
    m = beta1 * m + (1 - beta1) * scaled
    v = where(t == 1, g**2, beta2 * v + (1 - beta2) * g**2)
    p = p - lr * m
    return p, m, v
