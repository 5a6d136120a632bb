"""What a rule does at gradients that are zero, infinite, NaN, huge or tiny, and whether it recovers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from .check_subject import Finding, Run, Subject, fails, holds, note

_EQUAL = "1 from the start"
_HEAD = ("gradient", "p", "states", "other elements", "a normal step later")
_HUGE, _TINY = 1e30, 1e-30
_LONG = 1e3


def gradients(subject: Subject) -> Iterator[Finding]:
    """Zero gradients must leave all finite; what the others do is told."""
    rows = []
    cases = {
        "0 from the start": (0, 0.0, True),
        "0 later": (3, 0.0, True),
        _EQUAL: (0, 1.0, True),
        "infinite, one element": (3, math.inf, False),
        "NaN, one element": (3, math.nan, False),
        "1e30": (3, _HUGE, True),
        "1e-30": (3, _TINY, True),
    }
    broken: list[str] = []
    stuck: list[str] = []
    ratio = 0.0
    for name, (before, value, whole) in cases.items():
        run = subject.run([subject.shape]).go(before)
        start = run.params[0].detach().clone()
        run.draw()
        if whole:
            run.params[0].grad.fill_(value)
        else:
            run.params[0].grad.reshape(-1)[0] = value
        run.step()
        after = run.params[0].detach().clone()
        states = _states(run)
        if value == 0 and not run.finite():
            broken.append(name)
        if name == _EQUAL:
            ratio = _length(start, after) / _length(
                start, subject.run([subject.shape]).go(1).params[0].detach()
            )
        later = _later(after, run.go(1).params[0].detach())
        if later == "stands still" and torch.equal(run.go(3).params[0].detach(), after):
            stuck.append(name)
        others = "" if whole else _told(start, after, slice(1, None))
        rows.append((name, _told(start, after, slice(0, 1)), states, others, later))
    if broken:
        yield fails(
            "zero gradients",
            f"a gradient of zero ({', '.join(broken)}) makes something NaN or infinite",
            "add a small eps to what is divided by, as in … / (sqrt(v) + eps)",
        )
    else:
        yield holds("zero gradients", "a gradient of zero, at the start or later, leaves everything finite")
    if ratio > _LONG:
        yield note(
            "equal gradients",
            f"a gradient that is the same everywhere makes the first step {ratio:.2g} times as long as usual",
            "something divides by what is zero there: where(x == 0, y, y / (x + eps))",
        )
    advice = (
        f"after {', '.join(stuck)} p stands still for good: clip gradients before the rule" if stuck else ""
    )
    yield note(
        "odd gradients",
        "what one odd gradient does, in float32 after three normal steps:",
        advice,
        [_HEAD, *rows],
    )


def _length(before: torch.Tensor, after: torch.Tensor) -> float:
    return max(float((after - before).abs().mean()), _TINY)


def _told(before: torch.Tensor, after: torch.Tensor, where: slice) -> str:
    old, new = before.reshape(-1)[where], after.reshape(-1)[where]
    if bool(new.isnan().any()):
        return "NaN"
    if bool(new.isinf().any()):
        return "infinite"
    far = float((new - old).abs().max())
    return f"moves by {far:.2g}" if far else "stays"


def _states(run: Run) -> str:
    (p,) = run.params
    said = []
    for word, value in run.state(p).items():
        x = torch.as_tensor(value)
        if bool(x.isnan().any()):
            said.append(f"{word} NaN")
        elif bool(x.isinf().any()):
            said.append(f"{word} infinite")
    return ", ".join(said) or ("finite" if run.subject.rule.states else "none")


def _later(before: torch.Tensor, after: torch.Tensor) -> str:
    bad = ~torch.isfinite(after.reshape(-1))
    if bool(bad.any()):
        return "NaN or infinite" if bool(bad.all()) else "NaN or infinite there"
    moved = after.reshape(-1) != before.reshape(-1)
    if bool(moved.all()):
        return "moves on"
    return "stands still" if not bool(moved.any()) else "stands still in part"
