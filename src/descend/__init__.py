"""Gradient descent as one system: formulas, fused kernels, optimizers, the descent, its record and report."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import DataError, FormulaError, StorageError, UsageError

from .optim import Adam
from .optimizer import Optimizer, optimizer

if TYPE_CHECKING:
    from .descent import fit, minimize

__version__ = "0.1.0"

# Imported on first use, so that `import descend` stays quick.
_LAZY = {
    "fit": "descent",
    "minimize": "descent",
    "rules": "rules",
    "formula": "formula",
    "kernels": "kernels",
    "data": "data",
    "models": "models",
    "initialisers": "initialisers",
    "schedules": "schedules",
    "report": "report",
}

__all__ = [
    "Adam",
    "DataError",
    "FormulaError",
    "Optimizer",
    "StorageError",
    "UsageError",
    "fit",
    "minimize",
    "optimizer",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'descend' has no attribute {name!r}")
    module = importlib.import_module(f".{_LAZY[name]}", __name__)
    return module if _LAZY[name] == name else getattr(module, name)
