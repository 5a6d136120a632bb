"""What wrappers do in one program with a rule, as formulas: SAM's two halves, Schedule-Free's way to y."""

from ..formula import Hyper, State, rule
from ..formula.vocabulary import abs, global_norm, maximum, where

SAVED = State("saved", init="p", doc="the weights between the two steps")
RHO = Hyper(0.05, "[0, inf)", "radius of the neighbourhood")


@rule("SAM, the first half", "Foret et al. 2021, Algorithm 1, arXiv:2010.01412")
def climb(p, g, saved=SAVED, rho=RHO):
    """To the worst point nearby."""
    saved = p
    p = p + rho / (global_norm(g) + 1e-12) * g
    return p, saved


@rule("ASAM, the first half", "Kwon et al. 2021, Algorithm 1, arXiv:2102.11600")
def climb_scaled(
    p,
    g,
    saved=SAVED,
    scaled=State("scaled", doc="1 for a weight, 0 for a bias", scalar=True),
    rho=RHO,
    eta=Hyper(0.01, "[0, inf)", "added to |p|"),
):
    """To the worst point nearby, in units of the weights."""
    T = where(scaled > 0, abs(p) + eta, 1)
    saved = p
    p = p + rho / (global_norm(T * g) + 1e-16) * (T * T * g)
    return p, saved, scaled


@rule("SAM, the second half", "Foret et al. 2021, Algorithm 1, arXiv:2010.01412")
def from_saved(p, sam_saved=State("sam_saved")):
    """The base's rule starts from the weights as they were."""
    p = sam_saved
    return p, sam_saved


SCHEDULE_FREE = "Defazio et al. 2024, section 1 and Algorithm 1, arXiv:2405.15682"
Z = State("schedule_free_z", init="p", doc="what the base steps")
X = State("schedule_free_x", init="p", doc="average of z, to be evaluated")
LR = Hyper(1e-3, "[0, inf)", "learning rate of this step")
BETA = Hyper(0.9, "[0, 1]", "how near to the average the gradient is taken")
DECAY = Hyper(0.0, "[0, inf)", "decoupled decay at y")
COUNT = Hyper(0.0, "[0, inf)", "what the wrapper counts")


@rule("from z", SCHEDULE_FREE)
def from_z(p, schedule_free_z=Z):
    """The base's rule starts from z."""
    p = schedule_free_z
    return p, schedule_free_z


@rule("from z, decayed at y", SCHEDULE_FREE)
def from_z_decayed(p, schedule_free_z=Z, lr=LR, schedule_free_weight_decay=DECAY):
    """The base's rule starts from z, from which a share of y was taken; p holds y."""
    p = schedule_free_z - lr * schedule_free_weight_decay * p
    return p, schedule_free_z


@rule("to y", SCHEDULE_FREE)
def to_y(
    p,
    schedule_free_z=Z,
    schedule_free_x=X,
    lr=LR,
    schedule_free_beta=BETA,
    schedule_free_r=COUNT,
    schedule_free_weight_lr_power=COUNT,
    schedule_free_steps=COUNT,
    schedule_free_lr_max=COUNT,
    schedule_free_weight_sum=COUNT,
):
    """What the base's rule made is z; x takes its share of it, and y lies between the two."""
    largest = maximum(lr, schedule_free_lr_max)
    a = (schedule_free_steps + 1) ** schedule_free_r * largest**schedule_free_weight_lr_power
    total = schedule_free_weight_sum + a
    c = where(total > 0, a / total, 0)
    schedule_free_z = p
    schedule_free_x = (1 - c) * schedule_free_x + c * schedule_free_z
    p = (1 - schedule_free_beta) * schedule_free_z + schedule_free_beta * schedule_free_x
    return p, schedule_free_z, schedule_free_x


@rule("y", SCHEDULE_FREE)
def only_y(p, schedule_free_z=Z, schedule_free_x=X, schedule_free_beta=BETA):
    """y by itself: the last line of `to_y`."""
    p = (1 - schedule_free_beta) * schedule_free_z + schedule_free_beta * schedule_free_x
    return p, schedule_free_z, schedule_free_x
