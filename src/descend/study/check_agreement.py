"""The back ends of a rule against the float64 reference: types, shapes, strides; one thread against two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from .check_subject import Finding, Run, States, Subject, fails, holds, note, wide

LIMIT = 16.0
"""Units in the last place that a step may be from the reference's; the rules of this library stay below 6."""

MATRIX_LIMIT = 0.25
"""For a rule of whole matrices, as a share of the step's root mean square: Muon iterates in bfloat16."""

_BACK_ENDS = {"cpu": False, "torch": True}
_LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "with gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
}


def agreement(subject: Subject) -> Iterator[Finding]:
    """Every back end over types, shapes and layouts, and the numbers of threads."""
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    if subject.quick:
        dtypes = [torch.float32, torch.bfloat16]
    elif subject.rule.kind == "element":
        dtypes.append(torch.complex64)
    steps = 2 if subject.quick else 4
    for name, by_torch in _BACK_ENDS.items():
        found = {d: apart(subject.run(subject.shapes, d, by_torch=by_torch), steps) for d in dtypes}
        between = found.pop(torch.float16, 0.0) if len(subject.program.passes) > 1 else 0.0
        yield _judged(
            subject, name, {_short(d): v for d, v in found.items()}, f"{len(subject.shapes)} shapes"
        )
        if between > LIMIT:
            yield note(
                name,
                f"in float16 a step is {between:.2g} ulp from the reference: "
                "a later pass reads states that an earlier one has rounded",
                "keep such parameters in float32 or bfloat16",
            )
    yield from _large(subject)
    yield _layouts(subject)
    if subject.rule.kind == "element":
        yield _empty(subject)


def _judged(subject: Subject, area: str, found: dict[str, float], what: str) -> Finding:
    limit, unit = (
        (MATRIX_LIMIT, "shares of the mean step") if subject.rule.kind == "matrix" else (LIMIT, "ulp")
    )
    said = ", ".join(f"{name} {value:.2g}" for name, value in found.items())
    worst = max(found.values())
    sentence = f"largest distance of a step from the float64 reference over {what}, in {unit}: {said}"
    if worst <= limit:
        return holds(area, f"{sentence} (limit {limit:g})")
    bad = [name for name, value in found.items() if not value <= limit]
    return fails(
        area,
        f"{sentence}; {', '.join(bad)} is beyond {limit:g}",
        "this is the library's to get right, or the formula loses its digits (a difference of nearly equal "
        "numbers, a power or exp of something large): write that part another way, or report it",
    )


def _large(subject: Subject) -> Iterator[Finding]:
    shapes = subject.large[:1] if subject.quick else subject.large
    far = apart(subject.run(shapes), 2 if subject.rule.kind == "matrix" else 1)
    yield _judged(subject, "large tensors", {"float32": far}, " and ".join(map(str, shapes)))


def _layouts(subject: Subject) -> Finding:
    shapes = subject.shapes if subject.needs_matrix else ((6, 4), (5, 7), (2, 3, 4, 5))
    found = {}
    for name, change in _LAYOUTS.items():
        fit = [s for s in shapes if len(s) == 4] if name == "channels last" else shapes
        if fit:
            found[name] = apart(subject.run(fit, change=change), 2)
    return _judged(subject, "strides", found, "other strides")


def _empty(subject: Subject) -> Finding:
    run = subject.run([(0,), (3,)]).go(2)
    if all(bool(torch.isfinite(p).all()) for p in run.params):
        return holds("empty tensors", "a tensor without elements takes part and harms nobody")
    return fails("empty tensors", "beside an empty tensor another becomes NaN", "report it")


def threads(subject: Subject) -> Iterator[Finding]:
    """One thread against two, to the bit."""
    before = torch.get_num_threads()
    runs = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            runs.append(subject.run(subject.large).go(2 if subject.quick else 3))
    finally:
        torch.set_num_threads(before)
    what = " and ".join(map(str, subject.large))
    if runs[0].same_bits(runs[1]):
        yield holds("threads", f"one thread and two give the same bits over {what}")
    else:
        yield fails(
            "threads", f"one thread and two give different bits over {what}", "report it: it must not be"
        )


def apart(run: Run, steps: int) -> float:
    """How far any number of any step is from the reference's step from the same start."""
    worst = 0.0
    dtype, rule = run.params[0].dtype, run.subject.rule
    shown = {s.name for s in rule.states if not s.scalar} if rule.kind != "matrix" else set()
    for _ in range(steps):
        run.draw()
        before = run.snapshot()
        true = _results(run.expected(before), shown)
        units = _length(before, true, dtype) if rule.kind == "matrix" else _moved(run, before, true, shown)
        run.step()
        for now, exact, unit in zip(_results(run.snapshot(), shown), true, units, strict=True):
            worst = max(worst, *(_units(now[word], exact[word], unit[word], dtype) for word in exact))
    return worst


def _results(found: States, shown: set[str]) -> list[dict[str, Any]]:
    return [{"p": p, **{word: x for word, x in states.items() if word in shown}} for p, states in found]


def _length(before: States, true: list[dict[str, Any]], dtype: torch.dtype) -> list[dict[str, Any]]:
    """The length of the whole step, and what rounding p takes of it, as the unit of a rule of matrices."""
    found = []
    for (p, _), exact in zip(before, true, strict=True):
        size = np.linalg.norm(exact["p"] - p) / np.sqrt(max(1, np.size(p)))
        found.append({"p": size + 2 * _ulp(exact["p"], dtype) / MATRIX_LIMIT})
    return found


def _moved(run: Run, before: States, true: list[dict[str, Any]], shown: set[str]) -> list[dict[str, Any]]:
    """One unit in the last place of every result, and what moving each operand by one would change.

    Where a sum cancels, that is what the lost digits are worth, and no order of operations is nearer.
    """
    dtype = run.params[0].dtype
    gradients = [wide(p.grad) for p in run.params]
    found = [{word: _ulp(x, dtype) for word, x in exact.items()} for exact in true]

    def off(x: Any, sign: int) -> Any:
        return x + sign * _ulp(x, dtype)

    for word in ("p", "g", *shown):
        for sign in (1, -1):
            start = [
                (
                    off(p, sign) if word == "p" else p,
                    {w: off(x, sign) if w == word else x for w, x in states.items()},
                )
                for p, states in before
            ]
            pushed = [off(g, sign) if word == "g" else g for g in gradients]
            for unit, exact, other in zip(
                found, true, _results(run.expected(start, pushed), shown), strict=True
            ):
                for w, x in other.items():
                    with np.errstate(all="ignore"):
                        unit[w] = unit[w] + np.nan_to_num(np.abs(x - exact[w]), posinf=0.0)
    return found


def _units(now: Any, true: Any, unit: Any, dtype: torch.dtype) -> float:
    """The largest distance in units; what overflows the type on both sides agrees."""
    if np.size(true) == 0:
        return 0.0
    most = torch.finfo(dtype).max
    with np.errstate(all="ignore"):
        held = np.where(np.abs(true) > most, np.copysign(np.inf, true), true)
        same = (
            (now == held) | (np.isnan(now) & np.isnan(held)) | (np.isinf(now) & (np.abs(true) > 0.99 * most))
        )
        apart = np.where(same, 0.0, np.abs(now - held) / unit)
    return float(np.max(np.where(np.isnan(apart), np.inf, apart)))


def _ulp(x: Any, dtype: torch.dtype) -> Any:
    """The distance between neighbours of a type at the size of `x`; the smallest one for subnormal `x`."""
    info = torch.finfo(dtype)
    with np.errstate(all="ignore"):
        size = np.clip(np.nan_to_num(np.abs(x), posinf=info.max), info.tiny, info.max)
    return np.ldexp(1.0, np.frexp(size)[1] - 1) * info.eps


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
