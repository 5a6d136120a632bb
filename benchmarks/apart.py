"""The bars of kinds.py where every optimizer has a process of its own, as in a training script.

    python benchmarks/apart.py --out benchmarks/apart.md

In kinds.py all take turns in one process, and where memory lies there hangs on all of them: torch's step over
16M elements takes up to a tenth less or more for it. Here a round is a fresh process each for our rule, our
AdamW and what the bar names, one after the other. A round in which other processes took the processor is
discarded. The host may do anything between two processes, so the quartiles are wide and the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from _timing import DISTURBED, FEWEST, Disturbance, Measured, deliver, environment, machine, note, table
from kinds import ADAMW, BARS, BEST, OURS, Case, judged

WARM, SECONDS = 10, 0.5
SIZES = tuple(dict.fromkeys(size for bar in BARS for size in bar.sizes if "swept" not in size))


def alone(rule: str, contender: str, size: str, smoke: bool) -> tuple[float, float]:
    """Median seconds of a step in this process, and what share of the time others took."""
    import _kinds_peers as peers
    import _kinds_subjects
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    subject = _kinds_subjects.subjects()[rule]
    layout = next(one for one in subject.sizes if one.name == size)
    makers = {OURS: subject.ours, ADAMW: peers.ours("adamw", lr=peers.LR, weight_decay=peers.DECAY)}
    makers |= {name: peer.make for name, peer in subject.peers.items()}
    step = makers[contender](peers.Given(layout.shrunk() if smoke else layout))
    for _ in range(WARM):
        step()
    watch, times = Disturbance(), list[float]()
    while sum(times) < (0 if smoke and times else SECONDS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times), watch.share()


def measured(rule: str, contenders: list[str], size: str, given: argparse.Namespace) -> Measured:
    """Rounds of a process for every contender."""
    done: list[tuple[float, list[float]]] = []
    for _ in range(given.rounds):
        found = []
        for contender in contenders:
            command = [sys.executable, __file__, "--one", rule, contender, size]
            command += ["--smoke"] if given.smoke else []
            environ = environment(given.threads)
            result = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(result.stdout))
        done.append((max(share for _, share in found), [seconds for seconds, _ in found]))
    done.sort(key=lambda item: item[0])
    quiet = sum(share <= DISTURBED for share, _ in done)
    kept = [times for _, times in done[: max(quiet, FEWEST)]]
    step = {name: list(times) for name, times in zip(contenders, zip(*kept, strict=True), strict=True)}
    return Measured(step, {}, rounds=len(done), kept=len(kept), disturbed=max(0, len(kept) - quiet))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", help="write the table to this file too")
    parser.add_argument("--sizes", nargs="+", default=["1M", "16M"], choices=SIZES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--smoke", action="store_true", help="small tensors, once; the numbers mean nothing")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(alone(*given.one, given.smoke)))
        return
    if given.smoke:
        given.rounds = 1
    rows, rounds, left = [], 0, 0
    bars = [bar for bar in BARS if bar.against != BEST]
    for rule, size in dict.fromkeys((bar.rule, size) for bar in bars for size in given.sizes):
        mine = [bar for bar in bars if bar.rule == rule and size in bar.sizes]
        if mine:
            found = measured(rule, [OURS, *(bar.against for bar in mine)], size, given)
            rows += [judged(bar, Case(rule, "", size, found, 1)) for bar in mine]
            rounds, left = rounds + found.rounds, left + found.kept
            note(f"{rule}, {size}")
    about = f"{rounds} rounds, {rounds - left} discarded because other processes took the processor."
    what = "Median (quartiles) over rounds of a process for each."
    head = ["bar", "asked", "measured", "verdict"]
    parts = ["# Every optimizer in a process of its own", machine("torch"), what, table(head, rows), about]
    deliver("\n\n".join(parts), given.out)


if __name__ == "__main__":
    main()
