"""Wrappers: methods that need Python around another rule, each a torch.optim.Optimizer around any other.

    SAM, ASAM      two gradients a step: descend where the neighbourhood is worst
    Lookahead      slow weights follow the fast ones every k steps
    ScheduleFree   the average of the weights instead of a decaying learning rate
    EMA, SWA       averages of the weights, to evaluate and to publish
    Accumulate     one step for the gradients of several batches

`with optimizer.applied(): ...` puts the weights to evaluate and to publish in place, whatever the wrapper.
"""

from .accumulate import Accumulate
from .asam import ASAM
from .base import Wrapper
from .ema import EMA
from .lookahead import Lookahead
from .sam import SAM
from .schedule_free import ScheduleFree
from .swa import SWA

__all__ = ["ASAM", "EMA", "SAM", "SWA", "Accumulate", "Lookahead", "ScheduleFree", "Wrapper"]
