"""Gradient descent as one system: formulas, fused kernels, optimizers, the descent, its record and report.

`import descend as optim` stands in for `torch.optim`: the classes below have torch's names and arguments, and
what is not ours (`lr_scheduler`, `LBFGS`, …) is torch's own under the same name.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import torch.optim
from torch.optim import LBFGS, Optimizer, SparseAdam, lr_scheduler, swa_utils

from .errors import DataError, FormulaError, StorageError, UsageError
from .optim import (
    ASGD,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    FormulaOptimizer,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    optimizer,
)

if TYPE_CHECKING:
    from .descent import fit, minimize
    from .formula import chain, except_for, only, renamed
    from .functional import Stepper
    from .grouping import groups

__version__ = "0.1.0"

# `from descend.lr_scheduler import StepLR` finds torch's module too
for _name, _module in (("lr_scheduler", lr_scheduler), ("swa_utils", swa_utils)):
    sys.modules.setdefault(f"{__name__}.{_name}", _module)

# Imported on first use, so that `import descend` stays quick.
_LAZY = {
    "fit": "descent",
    "minimize": "descent",
    "rules": "rules",
    "formula": "formula",
    "functional": "functional",
    "Stepper": "functional",
    "kernels": "kernels",
    "data": "data",
    "models": "models",
    "initialisers": "initialisers",
    "schedules": "schedules",
    "report": "report",
    "wrappers": "wrappers",
    "modifiers": "modifiers",
    "chain": "formula",
    "only": "formula",
    "except_for": "formula",
    "renamed": "formula",
    "groups": "grouping",
}

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "DataError",
    "FormulaError",
    "FormulaOptimizer",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "Stepper",
    "StorageError",
    "UsageError",
    "chain",
    "except_for",
    "fit",
    "groups",
    "lr_scheduler",
    "minimize",
    "only",
    "optimizer",
    "renamed",
    "swa_utils",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module = importlib.import_module(f".{_LAZY[name]}", __name__)
        return module if _LAZY[name] == name else getattr(module, name)
    if not name.startswith("_") and hasattr(torch.optim, name):
        return getattr(torch.optim, name)
    raise AttributeError(f"module 'descend' has no attribute {name!r}")
