"""How much faster than torch any kernel can be where memory is the limit.

For each rule without a fused path in torch: a step of torch's quickest path, ours, and a formula with the
same loads and stores and no arithmetic to speak of, through the same machinery. What the last one gains over
torch is the most that the rule can gain on this machine. And for rules of two passes, in steps of our AdamW:
ours, and the same loads and stores without arithmetic, which are the least that such a rule can take; beside
clipping also what torch takes for it, which reads and writes each gradient once more than that.

    python benchmarks/ceiling.py --out benchmarks/ceiling.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _timing import deliver, machine, settle, table

import descend
from descend import chain, modifiers, rules
from descend.formula.vocabulary import sum

ELEMENTS = 1 << 20
LARGE = 1 << 24


def three_two(p, g, a, lr=1e-3):  # type: ignore[no-untyped-def]
    """Reads p, g and one state; writes p and the state."""
    a = a + g
    p = p + lr
    return p, a


def four_three(p, g, a, b, lr=1e-3):  # type: ignore[no-untyped-def]
    """Reads p, g and two states; writes all but g."""
    a = a + g
    b = b + p
    p = p + lr
    return p, a, b


def five_four(p, g, a, b, c, lr=1e-3):  # type: ignore[no-untyped-def]
    """Reads p, g and three states; writes all but g."""
    a = a + g
    b = b + p
    c = c + lr
    p = p + lr
    return p, a, b, c


RULES: dict[str, tuple[str, dict[str, Any], Callable[..., Any]]] = {
    "RMSprop": ("RMSprop", {}, three_two),
    "RMSprop, centred, momentum": ("RMSprop", {"centered": True, "momentum": 0.9}, five_four),
    "Adamax": ("Adamax", {}, four_three),
    "NAdam": ("NAdam", {}, four_three),
    "RAdam": ("RAdam", {}, four_three),
    "Adadelta": ("Adadelta", {}, four_three),
    "ASGD": ("ASGD", {}, three_two),
}


def lamb_bare(p, g, m, v, lr=1e-9):  # type: ignore[no-untyped-def]
    """Reads p, g, m, v and writes m and v, with a sum; then reads p, m, v and writes p."""
    m = m + g
    v = v + g
    p = p - lr * sum(p + m) * (m + v)
    return p, m, v


def clip_bare(p, g, m, v, lr=1e-9):  # type: ignore[no-untyped-def]
    """Reads g, with a sum; then reads all four and writes all but g."""
    m = m + lr * sum(g) * g
    v = v + g
    p = p - lr * (m + v)
    return p, m, v


class ClippedByTorch:
    """`clip_grad_norm_` and the fused AdamW, as one step."""

    def __init__(self, params: list[torch.Tensor]) -> None:
        self.params, self.adamw = params, torch.optim.AdamW(params, fused=True)

    def step(self) -> None:
        """Clip, and go on."""
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.adamw.step()


TWO_PASSES: dict[str, dict[str, Callable[..., Any]]] = {
    "lamb": {"ours": descend.optimizer("lamb"), "bare": descend.optimizer(lamb_bare)},
    "clip_global_norm, adamw": {
        "ours": descend.optimizer(chain(modifiers.clip_global_norm, rules.get("adamw"))),
        "bare": descend.optimizer(clip_bare),
        "torch": ClippedByTorch,
    },
}


def stepping(make: Callable[[list[torch.Tensor]], Any], elements: int) -> Callable[[], Any]:
    """An optimizer over one large parameter, after its first step."""
    p = torch.nn.Parameter(torch.randn(elements))
    p.grad = torch.randn(elements)
    optimizer = make([p])
    optimizer.step()
    step: Callable[[], Any] = optimizer.step
    return step


def measure(elements: int, rounds: int, steps: int) -> str:
    """Every rule, in turns."""
    rows = []
    for label, (name, options, bare) in RULES.items():
        theirs = getattr(torch.optim, name)
        runs = {
            "foreach": stepping(lambda ps, k=theirs, o=options: k(ps, foreach=True, **o), elements),
            "for-loop": stepping(lambda ps, k=theirs, o=options: k(ps, foreach=False, **o), elements),
            "ours": stepping(lambda ps, n=name, o=options: getattr(descend, n)(ps, **o), elements),
            "bare": stepping(descend.optimizer(bare), elements),
        }
        times: dict[str, list[float]] = {kind: [] for kind in runs}
        for _ in range(rounds):
            for kind, step in runs.items():
                start = time.perf_counter()
                for _ in range(steps):
                    step()
                times[kind].append((time.perf_counter() - start) / steps * 1e6)
        middle = {kind: statistics.median(values) for kind, values in times.items()}
        best = min(("foreach", "for-loop"), key=lambda kind: middle[kind])
        rows.append(
            [
                label,
                f"{middle[best]:,.0f} µs ({best})",
                f"{middle['ours']:,.0f} µs, {middle[best] / middle['ours']:.2f}×",
                f"{middle['bare']:,.0f} µs, {middle[best] / middle['bare']:.2f}×",
            ]
        )
    head = ["rule", "torch's quickest path", "ours", "same loads and stores, no arithmetic"]
    return table(head, rows)


def measure_two_passes(elements: int, rounds: int, steps: int) -> str:
    """Every rule of two passes beside AdamW, in turns; ratios are taken round by round."""
    rows = []
    for label, makers in TWO_PASSES.items():
        runs = {kind: stepping(make, elements) for kind, make in {"AdamW": descend.AdamW, **makers}.items()}
        times: dict[str, list[float]] = {kind: [] for kind in runs}
        for _ in range(rounds):
            for kind, step in runs.items():
                settle()
                step()
                start = time.perf_counter()
                for _ in range(steps):
                    step()
                times[kind].append((time.perf_counter() - start) / steps)
        ratios = {
            kind: statistics.median(a / b for a, b in zip(found, times["AdamW"], strict=True))
            for kind, found in times.items()
        }
        adamw = f"{statistics.median(times['AdamW']) * 1e6:,.0f} µs"
        of = [f"{ratios[kind]:.2f}×" if kind in ratios else "–" for kind in ("ours", "bare", "torch")]
        rows.append([label, f"{elements:,}", adamw, *of])
    head = ["rule", "elements", "our AdamW", "ours", "same loads and stores, no arithmetic", "torch"]
    return table(head, rows)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", help="write the table to this file too")
    parser.add_argument("--smoke", action="store_true", help="a small parameter, once")
    given = parser.parse_args()
    small, threads = 1 << 10, torch.get_num_threads()
    elements = small if given.smoke else ELEMENTS
    parts = [
        *("# The most that a step can gain", machine("torch")),
        f"One parameter of {elements:,} elements, {threads} threads.",
        measure(small, 1, 1) if given.smoke else measure(ELEMENTS, 15, 20),
        "## Rules of two passes, in steps of our AdamW",
        measure_two_passes(elements, *((1, 1) if given.smoke else (31, 20))),
        measure_two_passes(small if given.smoke else LARGE, *((1, 1) if given.smoke else (15, 2))),
    ]
    deliver("\n\n".join(parts), given.out)


if __name__ == "__main__":
    main()
