"""SGD-SaI is SGD with momentum at a rate that the first gradient sets for every tensor, once.

Adam's v differs most between tensors, and changes little in training. So one number by tensor is kept in its
place: the length of the first gradient over the standard deviation of its elements, its ratio of signal to
noise. It takes half the memory of AdamW and, after the first step, no root and no division.

Paper: Xu et al. 2024, "No More Adam: Learning Rate Scaling at Initialization is All You Need",
arXiv:2412.11768.
Deviations: where all elements of the first gradient are the same, as in a tensor of one, the ratio is its
length, as in pytorch_optimizer; that package takes the deviation of a sample (over d - 1), and takes the
length for every vector.
torch: has none.
optax: has none.
Keras: has none.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import mean, norm, sqrt, where


@rule(title="SGD-SaI", source="Xu et al. 2024, arXiv:2412.11768")
def sgd_sai(
    p,
    g,
    t,
    m=State("momentum_buffer", doc="average of the gradients"),
    snr=State("gsnr", scalar=True, doc="signal over noise in the first gradient of the tensor"),
    lr=Hyper(1e-2, "[0, inf)", "learning rate, times the signal over noise"),
    momentum=Hyper(0.9, "[0, 1)", "how much of m is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the ratio finite where all elements are nearly the same"),
    weight_decay=Hyper(1e-2, "[0, inf)", "share of p removed each step, times lr"),
):
    deviation = sqrt(mean((g - mean(g)) ** 2))
    ratio = where(deviation == 0, norm(g), norm(g) / (deviation + eps))
    snr = where(t == 1, ratio, snr)
    m = momentum * m + (1 - momentum) * g
    p = p - lr * (snr * m + weight_decay * p)
    return p, m, snr
