"""An expression as a function of tensors: `x**2 + 10*y**2`, read by the formula's reader, never by eval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..errors import UsageError
from .nodes import COMPARISON, Node, walk
from .reader import read_expression

_TORCH: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}


class Expression:
    """A differentiable function of its named variables.

    >>> f = expression("x**2 + 10*y**2")
    >>> f.names
    ['x', 'y']
    >>> float(f(x=torch.tensor(3.0), y=torch.tensor(1.0)))
    19.0
    """

    def __init__(self, written: str) -> None:
        self.text = written.strip()
        self.root, self.names = read_expression(written)
        if not self.names:
            raise UsageError(f"{written!r} has no variable; write for example x**2 + 10*y**2")
        self._order = list(walk([self.root]))

    def __call__(self, **values: torch.Tensor) -> torch.Tensor:
        """The value at a point, one tensor for every name (any shapes that broadcast).

        Raises UsageError when a name is missing or unknown.
        """
        if set(values) != set(self.names):
            raise UsageError(
                f"{self.text!r} is a function of {', '.join(self.names)}; given: {', '.join(values)}"
            )
        example = next(iter(values.values()))
        done: dict[Node, Any] = {}
        for n in self._order:
            if n.op == "const":
                done[n] = torch.as_tensor(n.number, dtype=example.dtype, device=example.device)
            elif n.op == "name":
                done[n] = values[n.word]
            else:
                done[n] = (_TORCH.get(n.op) or getattr(torch, n.op))(*(done[a] for a in n.args))
        result = done[self.root]
        assert isinstance(result, torch.Tensor)
        return result

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def expression(written: str) -> Expression:
    """Read an expression. Raises FormulaError for anything but arithmetic, words and names."""
    return Expression(written)


assert set(COMPARISON) < set(_TORCH)
