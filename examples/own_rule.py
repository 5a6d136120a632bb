"""A rule of one's own: the formula is all there is to write. Here: steps by the sign of an average."""

from __future__ import annotations

import descend
from descend.formula.vocabulary import sign


def signed_momentum(p, g, m, lr=0.001, beta=0.9):
    """Steps of one size, in the direction of the averaged gradient."""
    m = beta * m + (1 - beta) * g
    p = p - lr * sign(m)
    return p, m


for name, chosen in (("signed momentum", descend.optimizer(signed_momentum)), ("adam", "adam")):
    result = descend.fit("softmax", "wine", rule=chosen, lr=0.01, epochs=30)
    print(f"{name:16} held-out loss {result.validation_loss:.4f}, accuracy {result.metrics['accuracy']:.3f}")
