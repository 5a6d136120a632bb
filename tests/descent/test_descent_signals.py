"""SIGINT and SIGTERM: the step is finished, a checkpoint saved; a second signal ends the process at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_runs import again, begin
from test_descent_resume import outcome

from descend.descent import Result, resume, run
from descend.descent.guards import Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_saves_and_resumes(number: int, tmp_path: Path) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(begin("momentum", tmp_path / "whole"))
    kinds = []

    def listener(event) -> None:
        kinds.append(event.kind)
        if event.step == 60 and event.kind != "checkpoint":
            os.kill(os.getpid(), number)

    result = run(begin("momentum", tmp_path / "run"), listener)
    assert (result.reason, result.signal) == ("interrupted", number)
    assert signal.Signals(number).name in result.explanation
    assert result.steps == 61
    assert kinds[-2:] == ["checkpoint", "stop"]
    assert (tmp_path / "run" / "checkpoints" / "step-00000061" / "manifest.json").exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    again_result = resume(tmp_path / "run", **again("momentum"))
    assert isinstance(again_result, Result)
    assert again_result.resumes[0]["step"] == 61
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_without_a_directory() -> None:
    def listener(event) -> None:
        if event.step == 30:
            os.kill(os.getpid(), signal.SIGINT)

    assert run(begin("momentum", None), listener).reason == "interrupted"


SECOND = """
import os, signal
from descend.descent.guards import Signals
with Signals() as signals:
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.caught == signal.SIGTERM
    print("first", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here", flush=True)
"""


def test_a_second_signal_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, check=False)
    assert done.returncode == 130
    assert done.stdout == b"first\n"


def test_other_threads_leave_the_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    inside = []

    def work() -> None:
        with Signals():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
