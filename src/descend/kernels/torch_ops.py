"""The torch back end: the staged formula as torch operations. Any device, any layout, differentiable."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from ..formula import Program
from ..formula.nodes import ARITHMETIC, COMPARISON, Node, text

NAME = "torch"


def source(program: Program) -> str:
    """The step as Python over torch: `step(_s, p, g, …) -> (p, states…)`, with `_s` the row of scalars."""
    names: dict[Node, str] = {n: f"_s[{i}]" for n, i in program.row_index.items()}
    lines = [f"def step(_s, {', '.join(program.operands)}):"]
    for n in program.body:
        lines.append(f"    {program.labels[n]} = {_expression(n, names)}")
        names[n] = program.labels[n]
    returned = ", ".join(names.get(n, text(n)) for n in program.written.values())
    return "\n".join([*lines, f"    return ({returned},)"])


@cache
def function(program: Program) -> Any:
    """The compiled form of `source`."""
    space: dict[str, Any] = {
        "torch": torch,
        "minimum": _minimum,
        "maximum": _maximum,
        "sign": _sign,
        "fma": _fma,
        "where": _where,
    }
    exec(compile(source(program), f"<{program.rule.name} in torch>", "exec"), space)
    return space["step"]


def step(
    program: Program, row: tuple[Any, ...], operands: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """New p and states as new tensors of the operands' dtypes; half types compute in float32."""
    wide = {
        word: x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for word, x in operands.items()
    }
    result = function(program)(row, **wide)
    return {word: value.to(operands[word].dtype) for word, value in zip(program.written, result, strict=True)}


def _expression(n: Node, names: dict[Node, str]) -> str:
    if n in names or not n.args:
        return text(n, names)
    parts = [text(a, names) for a in n.args]
    if n.op in ("fma", "where", "minimum", "maximum", "sign"):
        return f"{n.op}({', '.join(parts)})"
    if n.op in ARITHMETIC or n.op in COMPARISON or n.op == "neg":
        return text(n, names)
    return f"torch.{n.op}({', '.join(parts)})"


def _fma(a: Any, b: Any, c: Any) -> Any:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and isinstance(c, torch.Tensor):
        return torch.addcmul(c, a, b)
    return a * b + c


def _where(condition: Any, x: Any, y: Any) -> Any:
    if isinstance(condition, torch.Tensor):
        return torch.where(condition, x, y)
    return x if condition else y


def _like(x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(x, torch.Tensor):
        x = torch.as_tensor(x, dtype=y.dtype, device=y.device)
    if not isinstance(y, torch.Tensor):
        y = torch.as_tensor(y, dtype=x.dtype, device=x.device)
    return x, y


def _minimum(x: Any, y: Any) -> torch.Tensor:
    return torch.minimum(*_like(x, y))


def _maximum(x: Any, y: Any) -> torch.Tensor:
    return torch.maximum(*_like(x, y))


def _sign(x: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isnan(x), x, torch.sign(x))
