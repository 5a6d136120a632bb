"""Muon whose steps have the root mean square of AdamW's, so that lr and weight_decay of AdamW can be kept.

An orthogonal matrix has elements of about 1/sqrt(max(rows, columns)): larger matrices would move less. Here
the step is scaled to 0.2 in every element, which is what AdamW's usually come to.

Paper: Liu et al. 2025, "Muon is Scalable for LLM Training", arXiv:2502.16982, section 2.2.
Deviations: as `muon`.
torch: `Muon(adjust_lr_fn="match_rms_adamw")`, the same.
optax: `contrib.muon(consistent_rms=0.2)`, which differs as in `muon`.
Keras: `Muon`, which differs as in `muon`.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import maximum, newton_schulz, sqrt

from .muon import VECTORS


@rule(
    title="Muon with AdamW's root mean square",
    source="Liu et al. 2025, section 2.2, arXiv:2502.16982",
    otherwise=VECTORS,
)
def muon_rms(
    p,
    g,
    rows,
    columns,
    m=State("momentum_buffer", doc="average of the gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate: a fifth of it is the root mean square of a step"),
    momentum=Hyper(0.95, "[0, 1)", "how much of m is kept each step"),
    nesterov=Hyper(1.0, "[0, 1]", "1 looks ahead along m, 0 takes m as it is"),
    weight_decay=Hyper(0.1, "[0, inf)", "share of p removed each step, times lr"),
    ns_steps=Hyper(5, "[0, 100)", "Newton-Schulz iterations"),
    a=Hyper(3.4445, "(-inf, inf)", "weight of x in an iteration: how fast small singular values grow"),
    b=Hyper(-4.7750, "(-inf, inf)", "weight of x x' x"),
    c=Hyper(2.0315, "(-inf, inf)", "weight of (x x')**2 x"),
    eps=Hyper(1e-7, "(0, inf)", "smallest length that a matrix is divided by"),
    ns_bits=Hyper(16, "[16, 64]", "precision of the iterations: 16 is bfloat16, or 32, or 64"),
):
    m = momentum * m + (1 - momentum) * g
    u = m + nesterov * (1 - momentum) * (g - m)
    o = newton_schulz(u, ns_steps, a, b, c, eps, ns_bits)
    p = p - lr * (0.2 * sqrt(maximum(rows, columns)) * o + weight_decay * p)
    return p, m
