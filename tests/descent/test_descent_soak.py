"""SIGKILL at random instants, in real processes: every killed run resumes to the bit. `pytest -m soak`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_runs
from test_descent_resume import outcome

KILLS = 30
PROGRAM = Path(small_runs.__file__)


def start(kind: str, directory: Path, action: str, call: int | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PROGRAM), kind, str(directory), action]
    return subprocess.Popen(
        command + ([] if call is None else [str(call)]),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def appeared(path: Path, process: subprocess.Popen[bytes]) -> float:
    """Waits until `path` is there; the instant."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.001)
    return time.monotonic()


@pytest.mark.soak
def test_thirty_kills_resume_to_the_bit(tmp_path: Path) -> None:
    rng = random.Random(20260101)
    wholes, lasts = {}, {}
    for kind in small_runs.KINDS:
        process = start(kind, tmp_path / kind, "start")
        begun = appeared(tmp_path / kind, process)
        appeared(tmp_path / kind / "result.json", process)
        lasts[kind] = time.monotonic() - begun
        finish(process)
        wholes[kind] = outcome(tmp_path / kind)

    killed, attempt = 0, 0
    while killed < KILLS:
        attempt += 1
        kind = rng.choice(small_runs.KINDS)
        directory = tmp_path / f"killed-{attempt}"
        action, kills_of_this = "start", 0
        for _ in range(rng.choice((1, 1, 2))):  # some are killed again while they resume
            at_a_call = rng.random() < 0.4  # just before a sync, rename or removal: so also during a save
            process = start(kind, directory, action, rng.randrange(8, 160) if at_a_call else None)
            if not at_a_call:
                appeared(directory if action == "start" else directory / "lock", process)
                time.sleep(rng.uniform(0.0, lasts[kind]))
                process.send_signal(signal.SIGKILL)
            process.communicate(timeout=120)
            kills_of_this += process.returncode == -signal.SIGKILL
            if process.returncode != -signal.SIGKILL:
                break  # it had ended before its kill
            action = "resume" if directory.exists() else "start"
        if not kills_of_this:
            continue
        finish(start(kind, directory, action))
        assert outcome(directory) == wholes[kind], f"attempt {attempt}: {kind}"
        assert not list((directory / "checkpoints").glob(".*"))
        killed += kills_of_this
