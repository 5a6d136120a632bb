"""Muon moves every matrix along its momentum made orthogonal: all its directions by the same amount.

The momentum of a weight matrix is mostly of a few directions, with large singular values. Newton-Schulz
iterations bring all singular values near 1 (about 0.7 to 1.2 after five) by matrix products alone, so
that rare directions are learnt as fast as common ones. It is for the weights of hidden layers: embeddings,
the last layer, and all that is no matrix are better left to AdamW, which vectors and numbers get anyway.

Paper: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
kellerjordan.github.io/posts/muon.
Deviations: m is the average of the gradients, as in torch, not their sum; the direction is the same. A
convolution's weight is one matrix, of its outputs by everything else.
torch: `Muon`, the same; it refuses what is no matrix.
optax: `contrib.muon` corrects the bias inside Nesterov's look-ahead; its matrices are transposed (inputs by
outputs); weight_decay 0; eps 1e-8 is added to the length; in the precision of the parameters.
Keras: `Muon` sums the gradients, adds eps to the length, and scales by 0.2 * sqrt(max(rows, columns)).
"""

from descend.formula import Hyper, State, chain, dialect, renamed, rule
from descend.formula.vocabulary import maximum, newton_schulz, sqrt
from descend.modifiers import layer_rate

from .adamw import adamw

VECTORS = chain(
    renamed(adamw, beta1="adamw_beta1", beta2="adamw_beta2", eps="adamw_eps"),
    renamed(layer_rate, rate="adamw_lr_ratio"),
)


@dialect(torch={}, paper={"lr": 0.02, "weight_decay": 0.0})
@rule(
    title="Muon",
    source="Jordan et al. 2024, kellerjordan.github.io/posts/muon",
    otherwise=VECTORS,
)
def muon(
    p,
    g,
    rows,
    columns,
    m=State("momentum_buffer", doc="average of the gradients"),
    lr=Hyper(1e-3, "[0, inf)", "learning rate: how far every direction of a matrix moves"),
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
    p = p - lr * (sqrt(maximum(1, rows / columns)) * o + weight_decay * p)
    return p, m


@dialect(muon, optax={"lr": 1e-3, "weight_decay": 0.0, "eps": 1e-8, "ns_bits": 32})
def bias_corrected(
    p, g, t, rows, columns, m, lr, momentum, nesterov, weight_decay, ns_steps, a, b, c, eps, ns_bits
):
    """The look-ahead is of bias-corrected averages, m by the step that is to come."""
    m = momentum * m + (1 - momentum) * g
    ahead = momentum * m / (1 - momentum ** (t + 1)) + (1 - momentum) * g / (1 - momentum**t)
    u = nesterov * ahead + (1 - nesterov) * m / (1 - momentum**t)
    o = newton_schulz(u, ns_steps, a, b, c, eps, ns_bits)
    p = p - lr * (sqrt(maximum(1, rows / columns)) * o + weight_decay * p)
    return p, m


@dialect(muon, keras={"weight_decay": 4e-3, "ns_bits": 32})
def summed(
    p,
    g,
    rows,
    columns,
    m,
    lr,
    momentum,
    nesterov,
    weight_decay,
    ns_steps,
    a,
    b,
    c,
    eps,
    ns_bits,
    rms_rate=Hyper(0.2, "[0, inf)", "root mean square of a step, in lr"),
):
    """m is the sum of the gradients, and the step is scaled to the root mean square that AdamW's has."""
    p = p - lr * weight_decay * p
    m = momentum * m + g
    u = nesterov * (g + momentum * m) + (1 - nesterov) * m
    o = newton_schulz(u, ns_steps, a, b, c, eps, ns_bits)
    p = p - lr * rms_rate * sqrt(maximum(rows, columns)) * o
    return p, m
