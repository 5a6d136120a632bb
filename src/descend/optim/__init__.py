"""The classes of torch.optim over our formulas: same names, arguments and state; and a class of any rule."""

from __future__ import annotations

from .adadelta import Adadelta
from .adafactor import Adafactor
from .adagrad import Adagrad
from .adam import Adam
from .adamax import Adamax
from .adamw import AdamW
from .asgd import ASGD
from .base import FormulaOptimizer
from .muon import Muon
from .nadam import NAdam
from .radam import RAdam
from .rmsprop import RMSprop
from .rprop import Rprop
from .rule_optimizer import RuleOptimizer, optimizer
from .sgd import SGD

CLASSES: dict[str, type[FormulaOptimizer]] = {
    kind.__name__.lower(): kind
    for kind in (ASGD, SGD, Adadelta, Adagrad, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, Rprop)
}
"""The classical classes that torch.optim has too, by the names of their rules ("sgd" stands for several)."""

BY_SHAPE: dict[str, type[FormulaOptimizer]] = {"adafactor": Adafactor, "muon": Muon}
"""Classes that choose a rule for every parameter by its shape."""

__all__ = [
    "ASGD",
    "BY_SHAPE",
    "CLASSES",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "FormulaOptimizer",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "RuleOptimizer",
    "optimizer",
]
