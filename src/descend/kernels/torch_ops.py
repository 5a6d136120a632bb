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
    """The step as Python over torch, one function a pass.

    `pass_k(_s, operands…) -> (new values…), (sums…)`, with `_s` the row of scalars.
    """
    return "\n\n".join(_pass_source(program, k) for k in range(len(program.passes)))


def _pass_source(program: Program, number: int) -> str:
    one = program.passes[number]
    names: dict[Node, str] = {n: f"_s[{i}]" for n, i in one.row_index.items()}
    lines = [f"def pass_{number}({', '.join(['_s', *one.reads])}):"]
    for n in one.body:
        lines.append(f"    {program.labels[n]} = {_expression(n, names, one.reads[0])}")
        names[n] = program.labels[n]
    written = "".join(f"{text(n, names)}, " for n in one.written.values())
    sums = "".join(f"{n.op.split('_')[0]}({text(x, names)}), " for n, x in one.reductions.items())
    return "\n".join([*lines, f"    return ({written}), ({sums})"])


@cache
def functions(program: Program) -> list[Any]:
    """The compiled form of `source`."""
    space: dict[str, Any] = {"torch": torch, **_WORDS}
    exec(compile(source(program), f"<{program.rule.name} in torch>", "exec"), space)
    return [space[f"pass_{k}"] for k in range(len(program.passes))]


def step(
    program: Program, row: tuple[Any, ...], operands: Mapping[str, torch.Tensor], number: int = 0
) -> dict[str, torch.Tensor]:
    """One pass: new values as new tensors of the operands' dtypes; half types compute in float32."""
    return run_pass(program, number, row, operands)[0]


def run_pass(
    program: Program, number: int, row: tuple[Any, ...], operands: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """One pass: the new values, and what it sums up over this tensor, in float64."""
    one = program.passes[number]
    wide = (operands[word] for word in one.reads)
    half = (torch.float16, torch.bfloat16)
    result, sums = functions(program)[number](row, *(x.float() if x.dtype in half else x for x in wide))
    new = {word: value.to(operands[word].dtype) for word, value in zip(one.written, result, strict=True)}
    return new, [float(x) for x in sums]


def _expression(n: Node, names: dict[Node, str], like: str) -> str:
    if n in names or not n.args:
        return text(n, names)
    parts = [text(a, names) for a in n.args]
    if n.op == "where":
        parts.append(like)
    if n.op in ("fma", "where", "minimum", "maximum", "sign"):
        return f"{n.op}({', '.join(parts)})"
    if n.op in ARITHMETIC or n.op in COMPARISON or n.op == "neg":
        return text(n, names)
    return f"torch.{n.op}({', '.join(parts)})"


def _fma(a: Any, b: Any, c: Any) -> Any:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and isinstance(c, torch.Tensor):
        return torch.addcmul(c, a, b)
    return a * b + c


def _where(condition: Any, x: Any, y: Any, like: torch.Tensor) -> Any:
    if not isinstance(condition, torch.Tensor):
        return x if condition else y
    if not isinstance(x, torch.Tensor) and not isinstance(y, torch.Tensor):
        x = torch.as_tensor(x, dtype=like.dtype, device=like.device)  # torch would choose float32
    return torch.where(condition, x, y)


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


def _sum(x: torch.Tensor) -> torch.Tensor:
    return x.sum(dtype=torch.float64)


def _max(x: torch.Tensor) -> torch.Tensor:
    return x.max() if x.numel() else torch.tensor(float("-inf"))


_WORDS = {
    "minimum": _minimum,
    "maximum": _maximum,
    "sign": _sign,
    "fma": _fma,
    "where": _where,
    "sum": _sum,
    "mean": _sum,
    "max": _max,
}
