"""What the benchmark scripts share: rounds of turns, disturbed rounds, tables, the machine."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

DISTURBED = 0.03
"""A round is discarded when others took more than this share of its time from us."""

FEWEST = 5
"""Rounds to keep at least; where fewer were quiet, the quietest of the others join them."""

PATIENCE = 3
"""How many times as long as asked to go on where fewer than that were quiet."""

WARMING = 10
"""Of how many steps one is taken before any is timed: at 1M elements the caches are full after five."""

LONG = 0.2
"""Seconds from which a step takes so long that waking its threads does not count."""


@dataclass
class Contender:
    """One way of taking a step. `before` is what happens ahead of every step; it is timed apart."""

    name: str
    step: Callable[[], object]
    before: Callable[[], object] | None = None

    def turn(self, times: int) -> tuple[float, float]:
        """Mean seconds of `step` and of `before` over so many repetitions."""
        now, step, before = time.perf_counter, self.step, self.before
        stepping = preparing = 0.0
        for _ in range(times):
            if before is not None:
                start = now()
                before()
                preparing += now() - start
            start = now()
            step()
            stepping += now() - start
        return stepping / times, preparing / times


@dataclass
class Measured:
    """The kept rounds: seconds of a step, and of what came before it, per contender and round."""

    step: dict[str, list[float]] = field(default_factory=dict)
    before: dict[str, list[float]] = field(default_factory=dict)
    rounds: int = 0
    kept: int = 0
    disturbed: int = 0
    """Kept rounds that others disturbed nevertheless."""


def rounds(contenders: Sequence[Contender], seconds: float, turn: float = 0.02) -> Measured:
    """Let all contenders take turns of about `turn` seconds, in rotated order, for about `seconds`."""
    repetitions, once = {}, {}
    for c in contenders:
        c.turn(1)
        once[c.name] = sum(c.turn(1))
        repetitions[c.name] = max(1, min(2000, round(turn / once[c.name])))
    done: list[tuple[float, dict[str, tuple[float, float]]]] = []
    quiet, start = 0, time.perf_counter()
    while True:
        spent = (time.perf_counter() - start) * (1 + 1 / max(1, len(done)))
        if len(done) >= FEWEST and spent >= seconds * (1 if quiet >= FEWEST else PATIENCE):
            break
        shift = len(done) % len(contenders)
        disturbance, results = 0.0, {}
        for c in [*contenders[shift:], *contenders[:shift]]:
            settle()
            watch = Disturbance()  # goes through the caches itself
            if repetitions[c.name] > 1 or once[c.name] < LONG:
                c.turn(-(-repetitions[c.name] // WARMING))  # wakes its threads and fills its caches
            results[c.name] = c.turn(repetitions[c.name])
            disturbance = max(disturbance, watch.share())
        quiet += disturbance <= DISTURBED
        done.append((disturbance, results))
    done.sort(key=lambda item: item[0])
    kept = done[: max(quiet, FEWEST)]
    names = [c.name for c in contenders]
    return Measured(
        {n: [r[n][0] for _, r in kept] for n in names},
        {n: [r[n][1] for _, r in kept] for n in names},
        rounds=len(done),
        kept=len(kept),
        disturbed=len(kept) - min(quiet, len(kept)),
    )


def joined(parts: Iterable[Measured]) -> Measured:
    """The rounds of the same contenders, measured several times."""
    whole = Measured()
    for part in parts:
        for into, times in ((whole.step, part.step), (whole.before, part.before)):
            for name, found in times.items():
                into.setdefault(name, []).extend(found)
        whole.rounds += part.rounds
        whole.kept += part.kept
        whole.disturbed += part.disturbed
    return whole


def settle() -> None:
    """Wait until the thread pools of the contender before have stopped spinning (30 ms at most)."""
    for _ in range(15):
        own = time.process_time()
        time.sleep(0.002)
        if time.process_time() - own < 0.0005:
            return


class Disturbance:
    """How long other processes ran since it was made, and what the hypervisor took.

    Waiting threads of this process tell less: those of some libraries wait for each other.
    """

    def __init__(self) -> None:
        self._others, self._wall = _others() + _stolen(), time.perf_counter()

    def share(self) -> float:
        """Others' time over wall time; 0 where the system does not tell."""
        wall = time.perf_counter() - self._wall
        return abs(_others() + _stolen() - self._others) / wall  # less, where one of them has ended


def _others() -> float:
    """Seconds that the threads of all other processes have run; those that have ended are left out."""
    ran = 0
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            threads = os.listdir(process / "task")
        except OSError:  # the process has ended
            continue
        for thread in threads:
            try:
                ran += int((process / "task" / thread / "schedstat").read_text().split()[0])
            except (OSError, IndexError):  # the thread has ended, or the kernel does not count
                continue
    return ran / 1e9


def _stolen() -> float:
    """Seconds that the hypervisor took."""
    try:
        stolen = int(Path("/proc/stat").read_text().split(maxsplit=9)[8])
        return stolen / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def duration(values: Sequence[float]) -> str:
    """Median and quartiles of seconds, in the unit that suits: `12.9 µs (12.1–13.4)`."""
    low, middle, high = quartiles(values)
    scale, unit = next((s, u) for s, u in ((1e6, "µs"), (1e3, "ms"), (1, "s")) if middle * s < 1000 or s == 1)
    return f"{_digits(middle * scale)} {unit} ({_digits(low * scale)}–{_digits(high * scale)})"


def factor(values: Sequence[float]) -> str:
    """Median and quartiles of ratios: `5.41× (5.20–5.66)`."""
    low, middle, high = quartiles(values)
    return f"{middle:.2f}× ({low:.2f}–{high:.2f})"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def machine(*packages: str) -> str:
    """One line: date, processor, versions of the packages that are installed."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return (
        f"{datetime.date.today()}, {name}, {os.cpu_count()} cores, {platform.system()}; {', '.join(versions)}"
    )


def environment(threads: int) -> dict[str, str]:
    """For a process in which torch, its compiled code and XLA have so many threads from the start."""
    found = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    found |= {"NPROC": str(threads), "JAX_PLATFORMS": "cpu"}  # what XLA's thread pool asks
    if threads == 1:
        found["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return found


def counted(threads: int) -> str:
    """The thread count in words."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def deliver(text: str, out: str | None) -> None:
    """Print the report and, if asked, write it to a file."""
    print(text)
    if out is not None:
        Path(out).write_text(text + "\n", encoding="utf-8")


def note(message: str) -> None:
    """Progress, on standard error."""
    print(message, file=sys.stderr, flush=True)
