"""How far a step is from the memory limit: beside a step with the same loads and stores and no arithmetic."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import torch

from ..formula import Rule
from ..optim.rule_optimizer import class_of
from ..rules import kept
from .check_subject import Finding, Subject, holds, note

ELEMENTS = 1 << 22
_ROUNDS = 9
_NEAR = 1.3
_BUSY = 0.8


def bare(states: int) -> Rule:
    """A formula that reads and writes p and so many states, and computes next to nothing."""
    words = [f"s{k}" for k in range(states)]
    lines = [f"def bare({', '.join(['p', 'g', *words, 'lr=1e-3'])}):"]
    lines += [f"    {word} = {word} + g" for word in words]
    lines += ["    p = p + lr" if words else "    p = p + lr * g", f"    return {', '.join(['p', *words])}"]
    return kept.from_text("\n".join(lines) + "\n", f"<{states} bare states>")


def memory_limit(subject: Subject) -> Iterator[Finding]:
    """A step over one large tensor, interleaved with a bare one that moves as many bytes."""
    program = subject.program
    if subject.rule.kind == "matrix":
        yield note("speed", "a rule of whole matrices is limited by its products of matrices, not by memory")
        return
    elements = ELEMENTS // 4 if subject.quick else ELEMENTS
    side = 1 << (elements.bit_length() // 2)
    states = sum(s.shape == "element" and not s.scalar for s in subject.rule.states)
    plain = bare(states)
    steps = []
    for kind in (subject.kind, class_of(plain)):
        p = torch.nn.Parameter(torch.full((elements // side, side), 0.5))
        p.grad = torch.linspace(-1, 1, elements).reshape(p.shape)
        steps.append(kind([p]).step)
        steps[-1]()
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + (0.2 if subject.quick else 0.6)
    while len(times[1]) < _ROUNDS or time.perf_counter() < end:
        for step, taken in zip(steps, times, strict=True):
            begin = time.perf_counter()
            step()
            taken.append(time.perf_counter() - begin)
    own, least = (min(taken) for taken in times)  # the least disturbed by others
    steps.clear()
    gc.collect()
    moved = 3 + 2 * states  # p, g and the states read; p and the states written
    least *= program.bytes_moved / moved
    said = (
        f"a step over {elements / 2**20:.0f}M elements takes {own * 1e3:.1f} ms, {own / least:.2f} times "
        f"what moving its {4 * program.bytes_moved} bytes an element takes alone ({least * 1e3:.1f} ms, "
        f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''})"
    )
    if own / least < _BUSY:
        yield note("speed", f"{said}: others were using the machine", "ask again when it is idle")
    elif own / least <= _NEAR:
        yield holds("speed", f"{said}: memory is the limit")
    else:
        sweeps = program.sweeps
        more = "arithmetic counts" if sweeps == 1 else f"arithmetic and the {sweeps} passes count"
        yield note("speed", f"{said}: {more} too")
