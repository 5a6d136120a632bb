"""The descent: `fit` and `minimize`, the loop that both run on, and `resume`."""

from . import surfaces
from .events import REASONS, Event, Listener, Minimum, Result
from .fitting import fit, prepare, run
from .loop import Descent
from .minimising import minimize, minimum, prepare_minimum
from .objectives import DataObjective, FunctionObjective, Objective
from .recording import Place
from .resuming import resume
from .scheduling import Schedules
from .stopping import Stop, Target

__all__ = [
    "REASONS",
    "DataObjective",
    "Descent",
    "Event",
    "FunctionObjective",
    "Listener",
    "Minimum",
    "Objective",
    "Place",
    "Result",
    "Schedules",
    "Stop",
    "Target",
    "fit",
    "minimize",
    "minimum",
    "prepare",
    "prepare_minimum",
    "resume",
    "run",
    "surfaces",
]
