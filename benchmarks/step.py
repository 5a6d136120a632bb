"""How long a whole `optimizer.step()` takes, beside every other way to take it.

    python benchmarks/step.py --out benchmarks/step.md

All contenders of a case take turns in rounds, in rotated order, each on parameters of its own; a round in
which other processes took the processor is discarded. Every thread count has a process of its own, because
some contenders fix theirs when they start. The first run compiles torch.compile's, HeavyBall's and
DeepSpeed's kernels, which takes minutes; they keep them on disk. `--prepare` does only that.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _timing import (
    Contender,
    Measured,
    counted,
    deliver,
    duration,
    environment,
    factor,
    machine,
    note,
    quartiles,
    ratios,
    rounds,
    table,
)

OURS, STILL, ADD = "descend", "descend, no arithmetic", "torch.add(out=)"
PATHS = ("torch fused", "torch foreach", "torch for-loop")
BARE, PASSES = "bare", "between passes"

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "AdamW": ("AdamW", {}),
    "AMSGrad": ("Adam", {"amsgrad": True}),
    "SGD": ("SGD", {"lr": 1e-3}),
    "SGD, momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "SGD, Nesterov": ("SGD", {"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {}),
    "Adadelta": ("Adadelta", {}),
    "RMSprop": ("RMSprop", {"lr": 1e-3}),
    "RMSprop, centred, momentum": ("RMSprop", {"lr": 1e-3, "centered": True, "momentum": 0.9}),
    "Adamax": ("Adamax", {}),
    "NAdam": ("NAdam", {}),
    "RAdam": ("RAdam", {}),
    "Rprop": ("Rprop", {}),
    "ASGD": ("ASGD", {}),
}

ADAM_TARGETS = {"9k in 6": 3.5, "300 × 32": 7.0, "1M": 1.1, "16M": 0.95}
UNFUSED_TARGET = 4.0
BANDWIDTH_TARGET = 0.9
PASSES_TARGET = 1.03
"""Our forward and backward passes over those beside torch's fused optimizer, at most."""


@dataclass
class Case:
    """What was measured of one rule at one size."""

    rule: str
    size: str
    mode: str
    threads: int
    measured: Measured
    elements: int
    missing: dict[str, str] = field(default_factory=dict)

    def best_path(self) -> str | None:
        """torch's quickest own path."""
        paths = [p for p in PATHS if p in self.measured.step]
        return min(paths, key=lambda p: quartiles(self.measured.step[p])[1], default=None)

    def over_ours(self, name: str) -> list[float]:
        """How many times our time a contender takes, round by round."""
        return ratios(self.measured.step[name], self.measured.step[OURS])


# -- measuring, in a process per thread count -------------------------------------------------------------


def measure(threads: int, given: argparse.Namespace) -> Iterator[Case]:
    """All cases at one thread count."""
    scale, smoke, prepare, everything = given.scale, given.smoke, given.prepare, given.all
    import _peers
    import torch

    torch.set_num_threads(threads)
    started = time.perf_counter()

    def case(rule: str, size: Any, mode: str, made: Iterator[Any], seconds: float) -> Case:
        contenders: list[Contender] = []
        missing: dict[str, str] = {}
        for name, contender in made:
            if isinstance(contender, Contender):
                contender.turn(2)  # states, compilation
                contenders.append(contender)
            else:
                missing[name] = contender
        turn = 0.001 if smoke else 0.02
        measured = Measured() if prepare else rounds(contenders, seconds * scale, turn)
        elements = sum(p.numel() for p in size.model().parameters())
        note(f"{time.perf_counter() - started:6.1f} s  {counted(threads)}, {size.name}, {mode}, {rule}")
        return Case(rule, size.name, mode, threads, measured, elements, missing)

    for size in _peers.sizes(smoke):
        if given.sizes and size.name not in given.sizes:
            continue
        for mode in (BARE, PASSES):

            def bench(size: Any = size, mode: str = mode) -> Any:
                return _peers.Bench(size, passes=mode == PASSES)

            def adam(size: Any = size, mode: str = mode, bench: Any = bench) -> Iterator[Any]:
                yield from _peers.ours(bench, "Adam", _peers.ADAM)
                yield from _peers.torch_paths(bench, "Adam", _peers.ADAM)
                yield from _peers.compiled(bench, smoke)
                yield from _peers.libraries(bench, size, smoke, mode == PASSES, everything)
                if size.name == "16M" and mode == BARE:
                    yield from _peers.bandwidth(bench)

            yield case("Adam", size, mode, adam(), 9 if size.name == "16M" else 5)
            torch._dynamo.reset()
            gc.collect()
        if prepare:
            continue
        for rule, (kind, hypers) in RULES.items():

            def plain(kind: str = kind, hypers: Any = hypers, size: Any = size) -> Iterator[Any]:
                yield from _peers.ours(lambda: _peers.Bench(size, passes=False), kind, hypers)
                yield from _peers.torch_paths(lambda: _peers.Bench(size, passes=False), kind, hypers)

            if hasattr(_peers.descend, kind):
                yield case(rule, size, BARE, plain(), 0.5)
            else:
                yield Case(rule, size.name, BARE, threads, Measured(), 0, {OURS: "not in descend"})


def in_own_process(threads: int, options: list[str]) -> list[Case]:
    """Measure in a process that has so many threads from its start."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cases.json"
        command = [sys.executable, __file__, "--threads", str(threads), "--cases", str(path), *options]
        subprocess.run(command, env=environment(threads), check=True)
        found = json.loads(path.read_text(encoding="utf-8"))
    return [Case(**{**case, "measured": Measured(**case["measured"])}) for case in found]


# -- the report -------------------------------------------------------------------------------------------


def report(cases: list[Case]) -> str:
    """All tables, as Markdown."""
    parts = []
    for threads in sorted({c.threads for c in cases}, reverse=True):
        mine = [c for c in cases if c.threads == threads]
        adam = {mode: [c for c in mine if c.rule == "Adam" and c.mode == mode] for mode in (BARE, PASSES)}
        word = counted(threads)
        parts += [
            f"## {word}: Adam, bare",
            "Time of a step; how many times ours it is. Median (quartiles).",
            adam_table(adam[BARE]),
            f"## {word}: Adam, between forward and backward passes",
            adam_table(adam[PASSES]),
            "The forward and backward passes beside each optimizer; over those beside torch's fused one.",
            passes_table(adam[PASSES]),
            f"## {word}: memory, 16M elements",
            bandwidth_table(adam[BARE]),
            f"## {word}: every rule, bare",
            "Ours; torch's best path of its own (fused, foreach, for-loop) over ours.",
            rules_table(mine),
        ]
    parts += ["## Targets", targets_table(cases), kept(cases)]
    return "\n\n".join(parts)


def adam_table(cases: list[Case]) -> str:
    """A row for every contender, a column for every size."""
    names = list(dict.fromkeys(n for c in cases for n in [*c.measured.step, *c.missing]))
    rows = []
    for name in names:
        if name in (STILL, ADD):
            continue
        row = [name]
        for c in cases:
            times = c.measured.step.get(name)
            text = f"– {c.missing.get(name, '')}" if times is None else duration(times)
            row.append(text if times is None or name == OURS else f"{text}, {factor(c.over_ours(name))}")
        rows.append(row)
    return table(["", *(c.size for c in cases)], rows)


def passes_table(cases: list[Case]) -> str:
    """Time of forward and backward beside each optimizer, and over that beside torch's fused one."""
    rows = []
    for name in dict.fromkeys(n for c in cases for n in c.measured.before):
        row = [name]
        for c in cases:
            times = c.measured.before.get(name)
            if times is None:
                row.append("–")
            else:
                row.append(f"{duration(times)}, {factor(ratios(times, c.measured.before['torch fused']))}")
        rows.append(row)
    return table(["", *(c.size for c in cases)], rows)


def bandwidth_table(cases: list[Case]) -> str:
    """Bytes of the parameters, gradients and states that a step must read and write, over its time."""
    rows = []
    for c in cases:
        for name, tensors in ((OURS, 7), (STILL, 7), (ADD, 3), ("torch fused", 7)):
            if name in c.measured.step and STILL in c.measured.step:
                speed = c.elements * 4 * tensors / quartiles(c.measured.step[name])[1] / 1e9
                rows.append([name, str(tensors), duration(c.measured.step[name]), f"{speed:.1f} GB/s"])
    return table(["", "tensors read or written", "time", "bandwidth"], rows)


def rules_table(cases: list[Case]) -> str:
    """A row for every rule, a column for every size."""
    names = list(dict.fromkeys(c.size for c in cases))
    rows = []
    for rule in dict.fromkeys(c.rule for c in cases):
        row = [rule]
        for c in (c for c in cases if c.rule == rule and c.mode == BARE):
            best = c.best_path()
            if OURS not in c.measured.step or best is None:
                row.append(c.missing.get(OURS, "–"))
            else:
                row.append(f"{duration(c.measured.step[OURS])}, {best} {factor(c.over_ours(best))}")
        rows.append(row)
    return table(["", *names], rows)


def targets_table(cases: list[Case]) -> str:
    """Every target, what was measured, and whether it was met; undecided where rounds were disturbed."""
    rows = []

    def add(what: str, c: Case, values: list[float], target: float, at_most: bool = False) -> None:
        middle = quartiles(values)[1]
        met = middle <= target if at_most else middle >= target
        verdict = "undecided: disturbed" if c.measured.disturbed else "pass" if met else "miss"
        where = f"{c.size}, {c.mode}, {counted(c.threads)}"
        asked = f"{'≤' if at_most else '≥'} {target:g}×"
        rows.append([f"{what}, {where}", asked, factor(values), verdict])

    for c in cases:
        best = c.best_path()
        if OURS not in c.measured.step or best is None:
            continue
        if c.rule == "Adam":
            add(f"Adam against {best}", c, c.over_ours(best), ADAM_TARGETS[c.size])
        elif "torch fused" not in c.measured.step:
            add(f"{c.rule} against {best}", c, c.over_ours(best), UNFUSED_TARGET)
        if STILL in c.measured.step:
            add("Adam against its loads and stores", c, c.over_ours(STILL), BANDWIDTH_TARGET)
        if c.mode == PASSES:
            beside = ratios(c.measured.before[OURS], c.measured.before["torch fused"])
            add("forward and backward beside ours over beside fused", c, beside, PASSES_TARGET, at_most=True)
    return table(["target", "asked", "measured", "verdict"], rows)


def kept(cases: list[Case]) -> str:
    """How many rounds were discarded."""
    total, left = sum(c.measured.rounds for c in cases), sum(c.measured.kept for c in cases)
    disturbed = sum(c.measured.disturbed for c in cases)
    text = f"{total} rounds, {total - left} discarded because other processes took the processor."
    if disturbed:
        text += f" {disturbed} of the {left} kept were disturbed too: some cases had too few quiet rounds."
    return text


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", help="write the tables to this file too")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--scale", type=float, default=1.0, help="stretch the time given to every case")
    parser.add_argument("--sizes", nargs="+", choices=ADAM_TARGETS, help="only these")
    parser.add_argument("--all", action="store_true", help="also contenders that compile for minutes")
    parser.add_argument("--prepare", action="store_true", help="only fill the caches of those who compile")
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all; the numbers mean nothing")
    parser.add_argument("--cases", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.smoke:
        given.scale = 0.0
    if given.cases is not None:
        cases = measure(given.threads[0], given)
        Path(given.cases).write_text(json.dumps([asdict(c) for c in cases]), encoding="utf-8")
        return
    options = ["--scale", str(given.scale), *["--smoke"] * given.smoke, *["--prepare"] * given.prepare]
    options += [*["--all"] * given.all, *(["--sizes", *given.sizes] if given.sizes else [])]
    started = time.perf_counter()
    found = [case for threads in given.threads for case in in_own_process(threads, options)]
    if given.prepare:
        return
    head = [
        "# A step of every optimizer",
        machine("torch", "pytorch_optimizer", "heavyball", "deepspeed", "jax", "optax"),
    ]
    if given.smoke:
        head.append("A smoke run: the numbers mean nothing.")
    took = f"Measured in {time.perf_counter() - started:.0f} s."
    deliver("\n\n".join([*head, report(found), took]), given.out)


if __name__ == "__main__":
    main()
