"""The checkers of the rules' tests. Each is also run on broken rules, which it must reject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rule_contenders import Ours, Reference, Torch
from rule_lines import Line

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

LIMIT = 5.0
"""Ulps of the operands that a step of ours may differ from the float64 reference's and from torch's.

Adadelta squares a step of eight roundings; others stay < 2.5. On AMD a fifth of torch's own roots are one ulp
off, so that Adadelta's distance from torch differs by machine.
"""


@contextmanager
def torch_counts_in(dtype: torch.dtype) -> Iterator[None]:
    """Let torch keep its scalar states (mu_product, eta) in float64 for float64 parameters.

    torch keeps them in its default dtype, and a float32 scalar spoils a float64 step by nine digits.
    """
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


def fit_for(line: Line, dtype: torch.dtype) -> Line:
    """The line with an eps that the dtype can hold: 1e-8 is zero in float16, and torch would divide by it."""
    if dtype != torch.float16 or "eps" not in line.values:
        return line
    return replace(line, hypers={**line.hypers, "eps": 1e-3})


def ulp(x: Any, dtype: torch.dtype) -> Any:
    """The distance between neighbours of `dtype` at the size of `x`; its smallest one for subnormal `x`."""
    info = torch.finfo(dtype)
    size = np.maximum(np.abs(np.asarray(x, np.float64)), info.tiny)
    _, exponent = np.frexp(size)
    return np.ldexp(1.0, exponent - 1) * info.eps


def widest(dtype: torch.dtype) -> Any:
    """The precision of the reference for a dtype: more digits than the dtype has, where NumPy has them."""
    return np.longdouble if dtype == torch.float64 else np.float64


def wide(x: Any) -> Any:
    """A tensor as a float64 array."""
    return x.double().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, np.float64)


def start(n: int, dtype: torch.dtype, seed: int = 0, scale: float = 1.0) -> tuple[torch.Tensor, Any]:
    """Parameters [n] and an endless supply of fresh gradients [n], all standard normal and seeded."""
    source = torch.Generator().manual_seed(seed)

    def fresh(scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(n, generator=source, dtype=torch.float64) * scale).to(dtype)

    return fresh(scale), fresh


def operands(run: Any) -> dict[str, Any]:
    """p and the element states of a contender."""
    return {"p": run.p, **{w: x for w, x in run.states.items() if np.ndim(x)}}


def unit_of(exact: Reference, g: Any, dtype: torch.dtype) -> dict[str, Any]:
    """One ulp of the operands in every result: what moving each operand by one ulp changes, and the result's.

    A step's roundings are those of its operands and of its results, so this is the size of error that no
    order of operations avoids: where a sum cancels, it is what the lost digits are worth.
    """
    kept = dict(exact.states)

    def results(word: str | None) -> dict[str, Any]:
        trial = Reference(exact.line, exact.p, exact.wide)
        trial.put(exact.p, kept, exact.t)
        gradient = trial.widened(g)
        if word == "p":
            trial.p = trial.p + ulp(trial.p, dtype)
        elif word == "g":
            gradient = gradient + ulp(gradient, dtype)
        elif word is not None:
            trial.states[word] = trial.states[word] + ulp(trial.states[word], dtype)
        trial.step(gradient)
        return operands(trial)

    true = results(None)
    unit = {w: ulp(x, dtype) for w, x in true.items()}
    for moved in ("g", *operands(exact)):
        for w, x in results(moved).items():
            unit[w] = unit[w] + np.abs(x - true[w])
    return unit


def distances(
    line: Line, dtype: torch.dtype, backend: str, n: int = 1000, steps: int = 10
) -> dict[str, float]:
    """How far one step of ours may be from the reference's and from each of torch's, from equal state.

    At every step all start from the parameters and states of one run. Distances are counted in `unit_of`.
    Returns the largest one by name: "reference" and torch's paths.
    """
    line = fit_for(line, dtype)
    p, fresh = start(n, dtype)
    ours = Ours(line, p, backend)
    others: dict[str, Any] = {"reference": Reference(line, p)}
    others |= {path: Torch(line, p, path) for path in line.paths}
    lead, finer = Ours(line, p, "torch"), Reference(line, p, widest(dtype))
    found = dict.fromkeys(others, 0.0)
    for t in range(steps):
        if t:
            for run in (ours, finer, *others.values()):
                run.put(lead.p, lead.states, t)
        g = fresh()
        unit = unit_of(finer, g, dtype)
        for run in (lead, ours, *others.values()):
            run.step(g.clone())
        for who, other in others.items():
            theirs = operands(other)
            apart = [_error(x, wide(theirs[w])) / unit[w] for w, x in operands(ours).items()]
            found[who] = max(found[who], float(np.max(apart)))
    return found


def check_agreement(line: Line, dtype: torch.dtype, backend: str) -> None:
    """Assert that a step is within the limits of the reference's and of torch's, from equal state.

    Torch's paths differ among themselves (its fused SGD leaves half-type elements where they are, pytorch
    issue 191763; its for-loop rounds every intermediate to the half type); the nearest counts.
    """
    with torch_counts_in(dtype):
        found = distances(line, dtype, backend)
    assert found["reference"] <= LIMIT, found
    assert min((found[path] for path in line.paths), default=0.0) <= LIMIT, found


def contenders(line: Line, p: torch.Tensor) -> dict[str, Any]:
    """Our kernel and every path of torch, all at the same start."""
    return {"ours": Ours(line, p)} | {path: Torch(line, p, path) for path in line.paths}


def errors_of_a_step(
    line: Line, dtype: torch.dtype, n: int, steps: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Each contender's error of one step, from equal state: {operand: {contender: (mean, largest)}}.

    All contenders start every step from our parameters and states, and are compared with the reference's step
    from there. Nothing piles up, so the numbers tell how exactly the step is computed and no more.
    """
    line = fit_for(line, dtype)
    p, fresh = start(n, dtype)
    runs = contenders(line, p)
    ours, exact = runs["ours"], Reference(line, p, widest(dtype))
    total: dict[str, dict[str, Any]] = {}
    for t in range(steps):
        before = (ours.p.clone(), {w: x.clone() if np.ndim(x) else x for w, x in ours.states.items()}, t)
        if t:
            exact.put(*before)
            for name in line.paths:
                runs[name].put(*before)
        g = fresh()
        exact.step(g)
        true = operands(exact)
        for name, run in runs.items():
            run.step(g.clone())
            for w, x in operands(run).items():
                wrong = _error(x, true[w])
                mean, largest = total.setdefault(w, {}).get(name, (0.0, 0.0))
                total[w][name] = (mean + float(wrong.mean()) / steps, max(largest, float(wrong.max())))
    return total


def errors_of_a_run(
    line: Line,
    dtype: torch.dtype,
    n: int,
    steps: int,
    seed: int = 0,
    others: Mapping[str, Callable[..., Any]] | None = None,
) -> dict[str, Any]:
    """Each contender's errors of p after a run of its own: {contender: errors [n]}.

    `others` are further contenders, made from the line and the first parameters.
    """
    line = fit_for(line, dtype)
    p, fresh = start(n, dtype, seed)
    runs = contenders(line, p) | {name: make(line, p) for name, make in (others or {}).items()}
    exact = Reference(line, p, widest(dtype))
    for _ in range(steps):
        g = fresh()
        for run in (exact, *runs.values()):
            run.step(g.clone())
    return {name: _error(run.p, exact.p) for name, run in runs.items()}


def _error(x: Any, true: Any) -> Any:
    """How far from the truth, element by element; infinitely far where not finite."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(wide(x).astype(true.dtype) - true).astype(np.float64)
    return np.where(np.isfinite(apart), apart, np.inf)


def check_step_accuracy(line: Line, dtype: torch.dtype, n: int, steps: int) -> None:
    """Assert that no error of a step is larger than that of torch's best path, in p or any state.

    Both round p correctly almost always, so their means agree in four digits where p is large against the
    step; which of the few ties goes wrong is chance, hence one part in ten thousand for the mean, and one in
    ten for the largest, which is a single element's.
    """
    with torch_counts_in(dtype):
        found = errors_of_a_step(line, dtype, n, steps)
    for word, by in found.items():
        mean, largest = (min(by[path][k] for path in line.paths) for k in (0, 1))
        assert by["ours"][0] <= mean * 1.0001, (word, by)
        assert by["ours"][1] <= largest * 1.1, (word, by)


def check_run_accuracy(line: Line, dtype: torch.dtype, n: int, steps: int) -> None:
    """Assert that after a run the errors of p are no larger than those of torch's best path.

    After many steps an error is a random walk of p's own roundings, the same in size for everyone who rounds
    once a step. So the mean may exceed torch's by what chance explains, four standard errors of the paired
    difference (in half types by one part in a hundred, for there the elements share their few roundings), and
    the largest, which hangs on a handful of elements, by a half.
    """
    with torch_counts_in(dtype):
        found = errors_of_a_run(line, dtype, n, steps)
    ours = found["ours"]
    for path in line.paths:
        if not np.isfinite(found[path]).all():
            continue
        more = ours - found[path]
        chance = 4 * more.std() / np.sqrt(n)
        if torch.finfo(dtype).bits == 16:
            chance = max(chance, 0.01 * found[path].mean())
        assert more.mean() <= chance, (path, ours.mean(), found[path].mean())
        assert ours.max() <= 1.5 * found[path].max(), (path, ours.max(), found[path].max())
    assert np.isfinite(ours).all()


def drawn(shapes: Any, dtype: torch.dtype, seed: int = 3) -> list[torch.Tensor]:
    """Parameters, standard normal."""
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=source, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def give(params: list[torch.Tensor], t: int) -> None:
    """Every parameter its gradient of a step."""
    source = torch.Generator().manual_seed(100 + t)
    for p in params:
        p.grad = torch.randn(p.shape, generator=source, dtype=torch.float64).to(p.dtype)
