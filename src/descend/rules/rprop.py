"""Rprop steps by the sign of the gradient, with a step size of its own for every element.

The size grows while the sign stays and shrinks when it turns; the gradient's length plays no part. It is
made for full batches: noise in the sign spoils it.

Paper: Riedmiller and Braun 1993, "A direct adaptive method for faster backpropagation learning: the RPROP
algorithm"; without going back after a turn: iRprop- of Igel and Hüsken 2000, "Improving the Rprop Learning
Algorithm".
Deviations: none from iRprop-: after a turn of sign the element rests for one step.
torch: `Rprop`, the same, but a NaN gradient leaves p as it is; here p becomes NaN.
optax: `rprop` (0.2.8) makes every move one step late; lr has no default.
Keras: has none.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import maximum, minimum, sign, where


@rule(title="Rprop", source="Riedmiller and Braun 1993; Igel and Hüsken 2000, iRprop-")
def rprop(
    p,
    g,
    prev=State("prev", doc="the gradient of the step before; zero after a turn"),
    size=State("step_size", init="lr", doc="size of the next step"),
    lr=Hyper(1e-2, "[0, inf)", "size of the first step"),
    etaminus=Hyper(0.5, "(0, 1)", "the size is multiplied by this when the sign turns"),
    etaplus=Hyper(1.2, "(1, inf)", "the size is multiplied by this while the sign stays"),
    step_size_min=Hyper(1e-6, "(-inf, inf)", "smallest size", sensible="[0, inf)"),
    step_size_max=Hyper(50.0, "(-inf, inf)", "largest size", sensible="(0, inf)"),
):
    turn = g * prev
    factor = where(turn > 0, etaplus, where(turn < 0, etaminus, 1))
    size = minimum(maximum(size * factor, step_size_min), step_size_max)
    g = where(turn < 0, 0, g)
    p = p - sign(g) * size
    prev = g
    return p, prev, size
