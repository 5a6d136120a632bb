"""The torch back end: the staged formula as torch operations. Any device, any layout, differentiable."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from ..formula import Program, chance
from ..formula.nodes import ARITHMETIC, COMPARISON, Node, is_random, scope, text

NAME = "torch"


def source(program: Program) -> str:
    """The step as Python over torch, one function a pass.

    `pass_k(_s, operands…) -> (new values…), (sums…)`, with `_s` the row of scalars.
    """
    return "\n\n".join(_pass_source(program, k) for k in range(len(program.passes)))


def _pass_source(program: Program, number: int) -> str:
    one = program.passes[number]
    names: dict[Node, str] = {n: f"_s[{i}]" for n, i in one.row_index.items()}
    names |= {n: f"_vector{program.vectors.index(n)}" for n in one.vectors}
    taken = ["_s", *one.reads, *(names[n] for n in one.vectors)]
    if one.is_random:
        taken.append("_like")
    lines = [f"def pass_{number}({', '.join(taken)}):"]
    for n in one.body:
        lines.append(f"    {program.labels[n]} = {_expression(n, names, taken[1])}")
        names[n] = program.labels[n]
    written = "".join(f"{text(n, names)}, " for n in one.written.values())
    whole = {"rows": "whole rows", "columns": "whole columns"} if program.rule.is_flat else {}
    sums = "".join(
        f'{n.op.split("_")[0]}({text(x, names)}, "{whole.get(scope(n), scope(n))}"), '
        for n, x in one.reductions.items()
    )
    return "\n".join([*lines, f"    return ({written}), ({sums})"])


@cache
def functions(program: Program) -> list[Any]:
    """The compiled form of `source`."""
    space: dict[str, Any] = {"torch": torch, **_WORDS}
    exec(compile(source(program), f"<{program.rule.name} in torch>", "exec"), space)
    return [space[f"pass_{k}"] for k in range(len(program.passes))]


def step(
    program: Program, row: tuple[Any, ...], operands: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A program of one pass: new values as new tensors of the operands' dtypes."""
    return run_pass(program, 0, row, operands, {})[0]


def run_pass(
    program: Program,
    number: int,
    row: tuple[Any, ...],
    operands: Mapping[str, torch.Tensor],
    vectors: Mapping[Node, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[Node, torch.Tensor]]:
    """One pass: the new values of what it writes, and its reductions, in float64.

    Half types compute in float32. `vectors` are the sums by row [..., rows, 1] and column [..., 1, columns]
    of the passes before; a mean over all tensors comes back as this tensor's sum.
    """
    one = program.passes[number]
    exact = operands["p"].dtype in (torch.float64, torch.complex128)
    wide = [_computed(operands[word]) for word in one.reads]
    wide += [vectors[n] if exact else vectors[n].float() for n in one.vectors]
    if one.is_random:
        wide.append(_computed(operands["p"]))
    result, sums = functions(program)[number](row, *wide)
    new = {word: value.to(operands[word].dtype) for word, value in zip(one.written, result, strict=True)}
    return new, dict(zip(one.reductions, sums, strict=True))


def _computed(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _expression(n: Node, names: dict[Node, str], like: str) -> str:
    if n in names or not n.args:
        return text(n, names)
    parts = [text(a, names) for a in n.args]
    if n.op == "where":
        parts.append(like)
    if is_random(n):
        parts.append("_like")
    if n.op in ("uniform", "normal", "fma", "where", "minimum", "maximum", "sign"):
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


def _uniform(key: Any, like: torch.Tensor, stream: int = 0) -> torch.Tensor:
    """`chance.fractions` for every element of a tensor, by its place in memory, or in one without gaps."""
    key, low32 = int(key), 0xFFFFFFFF
    apart = stream * chance.WEYL & low32
    order = torch.empty_like(like, device="meta").stride()
    places = torch.arange(like.numel(), device=like.device).as_strided(like.shape, order)
    x = (places ^ ((key & low32) ^ apart) ^ (places >> 32) * chance.WEYL) & low32
    for number, (shift, factor) in enumerate(chance.ROUNDS):
        x = x ^ x >> shift
        if number == 1:
            x = x + ((key >> 32) + apart)
        x = x * factor & low32  # what runs over the 64 bits is not among the lower 32
    found: torch.Tensor = (x ^ x >> chance.LAST) >> chance.UNUSED
    return (found.to(like.dtype) + 0.5) * 2.0 ** (chance.UNUSED - 32)


def _normal(key: Any, like: torch.Tensor) -> torch.Tensor:
    first, second = (_uniform(key, like, stream) for stream in chance.PAIR)
    return torch.sqrt(-2 * torch.log(first)) * torch.cos(chance.TURN * second)


def _along(x: torch.Tensor, over: str) -> dict[str, Any]:
    """The dimensions that a sum goes along; "whole rows" and "whole columns" are those of `Rule.is_flat`."""
    if over in ("tensor", "global"):
        return {}
    if over.startswith("whole") and x.dim() > 1:
        return {"dim": tuple(range(1, x.dim())) if over == "whole rows" else 0, "keepdim": True}
    return {"dim": -1 if over.endswith("rows") else -2, "keepdim": True}


def _sum(x: torch.Tensor, over: str) -> torch.Tensor:
    return x.double().sum(**_along(x, over))


def _mean(x: torch.Tensor, over: str) -> torch.Tensor:
    return _sum(x, over) if over == "global" else x.double().mean(**_along(x, over))


def _max(x: torch.Tensor, over: str) -> torch.Tensor:
    if x.numel() == 0:
        return torch.tensor(float("-inf"), dtype=torch.float64, device=x.device)
    return x.double().amax(**_along(x, over))


_WORDS = {
    "uniform": _uniform,
    "normal": _normal,
    "minimum": _minimum,
    "maximum": _maximum,
    "sign": _sign,
    "fma": _fma,
    "where": _where,
    "sum": _sum,
    "mean": _mean,
    "max": _max,
}
