"""Rprop steps by the sign of the gradient, with a step size of its own for every element.

The size grows while the sign stays and shrinks when it turns; the gradient's length plays no part. It is
made for full batches: noise in the sign spoils it.

Paper: Riedmiller and Braun 1993, "A direct adaptive method for faster backpropagation learning: the RPROP
algorithm"; without going back after a turn: iRprop- of Igel and Hüsken 2000, "Improving the Rprop Learning
Algorithm".
Deviations: none from iRprop-: after a turn of sign the element rests for one step. In the paper of 1993 it
goes back there, by the move before; lr 0.1.
torch: `Rprop`, the same, but a NaN gradient leaves p as it is; here p becomes NaN.
optax: `rprop` (0.2.8) makes every move one step late, and does not hold the size of an element at rest in its
bounds; lr has no default.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, minimum, sign, where


@dialect(torch={})
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


@dialect(rprop, optax={})
def a_step_late(
    p,
    g,
    size,
    lr,
    etaminus,
    etaplus,
    step_size_min,
    step_size_max,
    prev=State("prev", doc="the move that is made at the next step; zero after a turn"),
):
    """Every move is made a step late, and a size is held in its bounds only where the sign stays or turns."""
    turn = g * prev
    fitted = minimum(maximum(size * where(turn > 0, etaplus, etaminus), step_size_min), step_size_max)
    size = where(turn == 0, size, fitted)
    p = p - where(turn < 0, 0, prev)
    prev = where(turn < 0, 0, size * sign(g))
    return p, prev, size


@dialect(rprop, paper={"lr": 0.1})
def going_back(
    p,
    g,
    prev,
    size,
    lr,
    etaminus,
    etaplus,
    step_size_min,
    step_size_max,
    move=State("prev_move", doc="the move of the step before"),
):
    """Where the sign turns, the move before is taken back."""
    turn = g * prev
    factor = where(turn > 0, etaplus, where(turn < 0, etaminus, 1))
    size = minimum(maximum(size * factor, step_size_min), step_size_max)
    move = where(turn < 0, -move, sign(g) * size)
    p = p - move
    prev = where(turn < 0, 0, g)
    return p, prev, size, move
