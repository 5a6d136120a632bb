"""Whole steps of element, reduction and matrix rules, chains and wrappers, beside the best-known packages.

    python benchmarks/kinds.py --prepare
    python benchmarks/kinds.py --out benchmarks/kinds.md

Ours, our own AdamW and every package's way to take the same step take turns in rounds, in rotated order, each
on parameters of its own; a round in which other processes took the processor is discarded. Every rule has a
process of its own, so that no package's settings reach another rule. `--prepare` fills the caches of those
who compile. docs/build_kinds.py reads the speeds of docs/kinds.md out of the table. Where a bar is in steps
of our AdamW, the two take turns by themselves first, before other packages have laid out memory; where there
is a bar at all, everything is laid out three times, for a step over 16M elements hangs on that by a tenth.
Before a turn is timed a tenth of its steps is taken, for the caches.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from _first_step import MAKERS
from _timing import (
    Contender,
    Measured,
    counted,
    deliver,
    duration,
    environment,
    factor,
    joined,
    machine,
    note,
    quartiles,
    ratios,
    rounds,
    table,
)

OURS, ADAMW = "descend", "descend AdamW"
BEST = "the best peer"
CHAIN = "clip_value, adamw, cautious_unscaled, ema_weights"
LARGE = ("1M", "1M, swept", "16M")
SQUARES, SMALL = ("512 × 512", "1024 × 1024", "2048 × 2048"), ("64 of 64 × 64", "150 of 32 × 32")
PACKAGES = (
    *("torch", "pytorch_optimizer", "heavyball", "jax", "optax"),
    *("schedulefree", "prodigyopt", "lion-pytorch", "adan-pytorch", "torch-optimi", "muon-optimizer"),
)
LAYOUTS = 3
"""How many times all are laid out in memory anew where a bar compares them."""
SECONDS = {"300 × 32": 2.0, "1M": 3.0, "1M, swept": 3.0, "16M": 8.0}
"""For a case; others, and those with compiled contenders at least, have the time of the middle one."""


@dataclass(frozen=True)
class Bar:
    """What is asked of a rule: over a peer at least, or in steps of our AdamW at most."""

    rule: str
    sizes: tuple[str, ...]
    against: str
    limit: float


BARS = (
    Bar(CHAIN, LARGE, ADAMW, 1.45),
    Bar("adamw, cautious", LARGE, ADAMW, 1.8),
    Bar("clip_global_norm, adamw", LARGE, ADAMW, 1.25),
    Bar("clip_global_norm, adamw", LARGE, "torch: clip_grad_norm_, fused AdamW", 1.3),
    Bar("lamb", LARGE, ADAMW, 1.6),
    Bar("lamb", LARGE, BEST, 1.7),
    Bar("adafactor", LARGE, BEST, 4.0),
    Bar("muon", SQUARES, "torch.optim.Muon", 0.95),
    Bar("muon", SMALL, "torch.optim.Muon", 2.0),
)
EVERYWHERE = ("300 × 32", "100 of 256 × 256", *LARGE)
AHEAD = {
    "element": [(EVERYWHERE, 1.0)],
    "reduction": [(EVERYWHERE, 1.0)],
    "matrix": [(SQUARES, 0.95), (SMALL, 1.0)],
}
"""By kind: over the best peer at least."""


@dataclass
class Case:
    """What was measured of one rule at one size."""

    rule: str
    kind: str
    size: str
    measured: Measured
    cycle: int
    missing: dict[str, str] = field(default_factory=dict)
    alone: Measured | None = None
    """Ours and our AdamW, before any other package was there, where a bar compares the two."""

    def best(self) -> str | None:
        """The quickest peer, by the ratio to ours."""
        peers = [n for n in self.measured.step if n not in (OURS, ADAMW)]
        return min(peers, key=lambda n: quartiles(self.over(n))[1], default=None)

    def over(self, name: str, below: str = OURS) -> list[float]:
        """How many times the time of `below` a contender takes, round by round."""
        step = self.rounds_with(below).step
        return ratios(step[name], step[below])

    def rounds_with(self, below: str) -> Measured:
        """The rounds in which `below` was compared."""
        return self.alone if below == ADAMW and self.alone is not None else self.measured


# -- measuring, in a process per rule ---------------------------------------------------------------------


def measure(names: list[str], given: argparse.Namespace) -> Iterator[Case]:
    """All cases of some rules."""
    import _kinds_peers as peers
    import _kinds_subjects
    import torch

    torch.set_num_threads(given.threads)
    everything = _kinds_subjects.subjects()
    for name in names:
        subject = everything[name]
        sizes = [size for size in subject.sizes if not given.sizes or size.name in given.sizes]
        ours_only = replace(subject, peers={})
        compared = {size for bar in BARS if (bar.rule, bar.against) == (name, ADAMW) for size in bar.sizes}
        alone = {
            size.name: joined(
                timed(ready(peers, ours_only, size, given)[0], size, given, LAYOUTS) for _ in range(LAYOUTS)
            )
            for size in sizes
            if size.name in compared and not given.prepare
        }
        for size in sizes:
            started = time.perf_counter()
            bars = any(bar.rule == name and size.name in bar.sizes and bar.against != ADAMW for bar in BARS)
            layouts = LAYOUTS if bars and size.name in LARGE and not given.prepare else 1
            parts, missing = list[Measured](), dict[str, str]()
            for _ in range(layouts):
                contenders, missing = ready(peers, subject, size, given)
                parts.append(Measured() if given.prepare else timed(contenders, size, given, layouts))
                contenders.clear()
                if not given.smoke:
                    torch._dynamo.reset()
                gc.collect()
            measured = joined(parts)
            for times in measured.step.values():
                times[:] = [t / subject.cycle for t in times]
            yield Case(name, subject.kind, size.name, measured, subject.cycle, missing, alone.get(size.name))
            note(f"{time.perf_counter() - started:6.1f} s  {name}, {size.name}")


def timed(contenders: list[Contender], size: Any, given: argparse.Namespace, times: int = 1) -> Measured:
    """Rounds of all contenders, one of so many times."""
    seconds = SECONDS.get(size.name, 3.0) * given.scale / times
    return rounds(contenders, seconds, 0.001 if given.smoke else 0.02)


def ready(
    peers: Any, subject: Any, size: Any, given: argparse.Namespace
) -> tuple[list[Contender], dict[str, str]]:
    """Every contender after its first steps, and the reasons why others are missing."""
    layout = size.shrunk() if given.smoke else size
    contenders: list[Contender] = []
    missing: dict[str, str] = {}

    def add(name: str, make: Any) -> None:
        step = make(peers.Given(layout))
        whole = step if subject.cycle == 1 else lambda: [step() for _ in range(subject.cycle)]
        contenders.append(Contender(name, whole, peers.sweep if layout.swept else None))
        contenders[-1].turn(2 if subject.cycle == 1 else 1)  # states, compilation

    add(OURS, subject.ours)
    add(ADAMW, peers.ours("adamw", lr=peers.LR, weight_decay=peers.DECAY))
    for name, peer in subject.peers.items():
        if peer.compiles and given.smoke:
            missing[name] = "left out of a smoke run"
            continue
        if peer.compiles and size.count > 1 and not given.all:
            missing[name] = "left out: compiles for minutes (--all)"
            continue
        try:
            add(name, peer.make)
        except ImportError as error:
            missing[name] = f"not installed ({error.name or error})"
        except Exception as error:  # a peer that cannot be built here is a cell of its own, not our failure
            missing[name] = f"failed: {type(error).__name__}"
            note(f"{name}: {error}")
    return contenders, missing


def in_own_process(names: list[str], given: argparse.Namespace) -> list[Case]:
    """Measure in a process whose packages have so many threads from its start."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cases.json"
        command = [sys.executable, __file__, "--cases", str(path), "--only", *names]
        command += ["--threads", str(given.threads), "--scale", str(given.scale)]
        command += [f"--{flag}" for flag in ("smoke", "prepare", "all") if getattr(given, flag)]
        command += ["--sizes", *given.sizes] if given.sizes else []
        subprocess.run(command, env=environment(given.threads), check=True)
        found = json.loads(path.read_text(encoding="utf-8"))
    read = {"measured", "alone"}
    return [Case(**{k: Measured(**v) if k in read and v else v for k, v in case.items()}) for case in found]


def first_steps(names: list[str], given: argparse.Namespace) -> str:
    """Fresh processes, at first with empty caches, then with what the first left there; as a table."""
    rows = []
    for package, rule in MAKERS:
        if rule not in names or (given.smoke and package != "descend"):
            continue
        with tempfile.TemporaryDirectory() as cache:
            caches = {f"{name}_CACHE_DIR": cache for name in ("DESCEND", "TORCHINDUCTOR", "TRITON")}
            caches |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            found = []
            for _ in range(2 if given.smoke else 4):
                result = subprocess.run(
                    [sys.executable, str(Path(__file__).parent / "_first_step.py"), package, rule],
                    env={**environment(given.threads), **caches},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if result.returncode != 0:
                    note(result.stderr)
                    break
                found.append(json.loads(result.stdout.splitlines()[-1]))
        note(f"first step, {package}, {rule}")
        if len(found) < 2:
            rows.append([f"{rule}, {package}", "– failed, or not installed", "–", "–"])
            continue
        cold, *warm = found
        imports, whole = ([w[key] for w in warm] for key in ("imports", "all"))
        rows.append([f"{rule}, {package}", f"{cold['all']:.2f} s", duration(whole), duration(imports)])
    return table(["", "cold caches", "warm caches", "of it imports"], rows) if rows else ""


# -- the report -------------------------------------------------------------------------------------------


def speed_table(cases: list[Case]) -> str:
    """A row for every rule and size."""
    rows = []
    for c in cases:
        best = c.best()
        others = [f"{n} {factor(c.over(n))}" for n in c.measured.step if n not in (OURS, ADAMW, best)]
        others += [f"{n} – {reason}" for n, reason in c.missing.items()]
        rows.append(
            [
                c.rule,
                c.size,
                duration(c.measured.step[OURS]),
                factor(c.over(OURS, ADAMW)),
                best or "–",
                "–" if best is None else factor(c.over(best)),
                "; ".join(others),
            ]
        )
    return table(
        ["rule", "size", "ours", "in AdamW's", "best peer", "over ours", "other peers over ours"], rows
    )


def bars_table(cases: list[Case]) -> str:
    """Every bar, what was measured, and whether it was reached; undecided where rounds were disturbed."""
    rows = []
    by_rule: dict[str, list[Case]] = {}
    for c in cases:
        by_rule.setdefault(c.rule, []).append(c)
    bars = [bar for bar in BARS if bar.rule in by_rule]
    for rule, mine in by_rule.items():
        bars += [Bar(rule, sizes, BEST, limit) for sizes, limit in AHEAD.get(mine[0].kind, [])]
    for bar in bars:
        for c in (c for c in by_rule[bar.rule] if c.size in bar.sizes):
            rows.append(judged(bar, c))
    return table(["bar", "asked", "measured", "verdict"], rows)


def judged(bar: Bar, c: Case) -> list[str]:
    """One row: a bar at one size."""
    peer = c.best() if bar.against == BEST else bar.against
    at_most = peer == ADAMW
    what = f"{c.rule}, {c.size}, {'in times of our AdamW' if at_most else f'against {peer or BEST}'}"
    asked = f"{'≤' if at_most else '≥'} {bar.limit:g}×"
    if peer not in c.measured.step:
        return [what, asked, "–", "not measured"]
    values = c.over(OURS, ADAMW) if at_most else c.over(peer)
    middle = quartiles(values)[1]
    reached = middle <= bar.limit if at_most else middle >= bar.limit
    disturbed = c.rounds_with(peer).disturbed
    verdict = "undecided: disturbed" if disturbed else "reached" if reached else "not reached"
    return [what, asked, factor(values), verdict]


def report(cases: list[Case], first: str) -> str:
    """All tables, as Markdown."""
    kinds = dict.fromkeys(c.kind for c in cases)
    total, left = sum(c.measured.rounds for c in cases), sum(c.measured.kept for c in cases)
    disturbed = sum(c.measured.disturbed for c in cases)
    kept = f"{total} rounds, {total - left} discarded because other processes took the processor."
    if disturbed:
        kept += f" {disturbed} of the {left} kept were disturbed too: some cases had too few quiet rounds."
    parts = ["## Bars", bars_table(cases)]
    for kind in kinds:
        parts += [f"## {kind.capitalize()}", speed_table([c for c in cases if c.kind == kind])]
    if first:
        about = "One 1024 × 1024 parameter; from before the imports, torch's or jax's among them, to the end."
        parts += ["## The first step of a fresh process", about, first]
    return "\n\n".join([*parts, kept])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", help="write the tables to this file too")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these rules and chains")
    parser.add_argument("--sizes", nargs="+", help="only these, as the table names them")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scale", type=float, default=1.0, help="stretch the time given to every case")
    parser.add_argument("--all", action="store_true", help="also contenders that compile for minutes")
    parser.add_argument("--prepare", action="store_true", help="only fill the caches of those who compile")
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all; the numbers mean nothing")
    parser.add_argument("--cases", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.smoke:
        given.scale = 0.0
    if given.cases is not None:
        cases = list(measure(given.only, given))
        Path(given.cases).write_text(json.dumps([asdict(c) for c in cases]), encoding="utf-8")
        return
    import _kinds_subjects

    known = list(_kinds_subjects.subjects())
    unknown = [name for name in given.only or [] if name not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; use some of {'; '.join(known)}")
    names = given.only or known
    started = time.perf_counter()
    runs = [names] if given.smoke else [[name] for name in names]
    cases = [case for run in runs for case in in_own_process(run, given)]
    if given.prepare:
        return
    fresh = ["adamw"] if given.smoke else names if given.only else ["adamw", *names]
    first = first_steps(fresh, given)
    head = [
        "# Every kind of rule, beside other packages",
        f"{machine(*PACKAGES)}; {counted(given.threads)}",
    ]
    if given.smoke:
        head.append("A smoke run: the numbers mean nothing.")
    head.append(
        "Times of a whole step, ratios taken round by round: median (quartiles). *In AdamW's*: our step over"
        " a step of our AdamW of the same size, in the same rounds. *Over ours*: a peer's step over ours."
        " *Swept*: before every step 256 MB of something else go through the caches, as a forward and a"
        " backward pass would; without it what fits the caches stays there from step to step."
    )
    took = f"Measured in {time.perf_counter() - started:.0f} s."
    deliver("\n\n".join([*head, report(cases, first), took]), given.out)


if __name__ == "__main__":
    main()
