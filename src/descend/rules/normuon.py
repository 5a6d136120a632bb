"""NorMuon is Muon in which every row of the step is divided by its own recent size.

Newton-Schulz brings the singular values of a step near 1, yet its rows, the steps of single neurons, stay of
very different length. One number by row, an average of the squares as in Adam, evens them out.

Paper: Li et al. 2025, "NorMuon: Making Muon more efficient and scalable", arXiv:2510.05491, Algorithm 1.
Deviations: eps is added to the length of the step, too, so that a gradient of zero is no step.
A convolution's weight is one matrix, of its outputs by everything else.
torch: has none.
optax: has none.
Keras: has none.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import mean, newton_schulz, norm, sqrt

from .muon import VECTORS


@rule(
    title="NorMuon",
    source="Li et al. 2025, Algorithm 1, arXiv:2510.05491",
    otherwise=VECTORS,
)
def normuon(
    p,
    g,
    rows,
    columns,
    m=State("momentum_buffer", doc="average of the gradients"),
    v=State("second_momentum_buffer", shape="rows", doc="average of the mean squares of a row"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate: a fifth of it is the root mean square of a step"),
    beta1=Hyper(0.95, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.95, "[0, 1)", "how much of v is kept each step"),
    eps=Hyper(1e-8, "(0, inf)", "keeps the divisions by v and by the length finite"),
    weight_decay=Hyper(0.1, "[0, inf)", "share of p removed each step, times lr"),
    ns_steps=Hyper(5, "[0, 100)", "Newton-Schulz iterations"),
    ns_eps=Hyper(1e-7, "(0, inf)", "smallest length that the momentum is divided by"),
    ns_bits=Hyper(16, "[16, 64]", "precision of the iterations: 16 is bfloat16, or 32, or 64"),
):
    m = beta1 * m + (1 - beta1) * g
    o = newton_schulz(m, ns_steps, 3.4445, -4.7750, 2.0315, ns_eps, ns_bits)
    v = beta2 * v + (1 - beta2) * mean(o**2, "rows")
    u = o / (sqrt(v) + eps)
    p = p - lr * (0.2 * sqrt(rows * columns) / (norm(u) + eps) * u + weight_decay * p)
    return p, m, v
