"""The progress: what it shows, how seldom, and that nothing it meets stops a run."""

from __future__ import annotations

import errno
import io
import itertools
from dataclasses import dataclass, field

import pytest

from descend.cli import progress
from descend.cli.progress import Lines, Live, Progress, choose


@dataclass(frozen=True)
class Event:
    """The fields of a descent's event that the progress reads."""

    kind: str = "step"
    step: int = 10
    total_steps: int | None = 100
    epoch: float = 0.5
    total_epochs: float | None = None
    loss: float = 0.25
    lr: float = 0.001
    grad_norm: float | None = 1.5
    validation_loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    message: str = ""


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_say_everything_and_come_by_time(clock: Clock) -> None:
    out = io.StringIO()
    shown = Lines("digits", stream=out)
    shown(Event(kind="start", step=0))
    for step in range(1, 101):
        clock.now += 0.125
        shown(
            Event(
                step=step, validation_loss=0.3 if step == 20 else None, metrics={"validation_accuracy": 0.5}
            )
        )
    lines = out.getvalue().splitlines()
    # Drawn at once, then after 1, 2 and 4 seconds: at 1/8, 9/8, 25/8 and 57/8.
    assert [line.split()[2] for line in lines] == ["1", "9", "25", "57"]
    assert lines[0] == "digits: step 1 of 100  loss 0.25  rate 0.001  gradient 1.5  0:13 left"
    assert lines[3] == (
        "digits: step 57 of 100  loss 0.25  held-out loss 0.3  accuracy 50.00 %  rate 0.001  gradient 1.5  "
        "0:06 left"
    )


def test_an_expensive_drawing_puts_the_next_one_off(clock: Clock) -> None:
    drawn: list[float] = []

    class Slow(Progress):
        def draw(self) -> None:
            drawn.append(clock.now)
            clock.now += 0.2

    shown = Slow("x", stream=io.StringIO())
    for _ in range(1000):
        clock.now += 0.05
        shown(Event())
    assert len(drawn) >= 3
    assert min(b - a for a, b in itertools.pairwise(drawn)) >= 50 * 0.2


def test_the_live_view_shows_the_values_and_leaves_the_terminal_as_it_was(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    with Live("digits", stream=out) as shown:
        shown(Event(kind="start", step=0))
        for step in (10, 20, 30, 40):
            clock.now += 1.0
            shown(Event(step=step, loss=1.0 / step))
        shown(Event(kind="notice", message="the batch [64] was clipped"))
    text = out.getvalue()
    assert "digits" in text
    assert "step 40 of 100" in text
    assert "loss 0.025" in text
    assert "0:06 left" in text
    assert "█▅▂▁  loss so far" in text
    assert "the batch [64] was clipped" in text
    assert "\x1b[?25l" not in text  # the cursor is never hidden, since a kill would leave it so


@pytest.mark.parametrize(("kind", "stream"), [(Lines, io.StringIO), (Live, Terminal)])
def test_a_broken_stream_silences_it(kind: type[Progress], stream: type[io.StringIO], clock: Clock) -> None:
    class Broken(stream):  # type: ignore[misc, valid-type]
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    out = Broken()
    with kind("digits", stream=out) as shown:
        for step in range(1, 50):
            clock.now += 100.0
            shown(Event(step=step))
        tried = out.writes
        shown(Event(kind="notice", message="never seen"))
        assert out.writes == tried
    assert shown.broken


def test_notices_and_quiet(clock: Clock) -> None:
    out = io.StringIO()
    choose("x", stream=out)(Event(kind="notice", message="one sample was left out"))
    assert out.getvalue() == "note: one sample was left out\n"
    silent = io.StringIO()
    with choose("x", quiet=True, stream=silent) as shown:
        shown(Event())
        shown(Event(kind="notice", message="m"))
    assert silent.getvalue() == ""
    assert isinstance(choose("x", stream=Terminal()), Live)


@pytest.mark.parametrize(
    ("event", "minutes", "left"),
    [
        (Event(step=50), None, 10.0),
        (Event(step=50, total_steps=None), None, None),
        (Event(step=50, total_steps=None, epoch=2.0, total_epochs=8.0), None, 30.0),
        (Event(step=50), 0.25, 5.0),
        (Event(step=50, total_steps=None), 1.0, 50.0),
    ],
)
def test_time_left(clock: Clock, event: Event, minutes: float | None, left: float | None) -> None:
    shown = Progress("x", stream=io.StringIO(), minutes=minutes)
    shown(Event(kind="start", step=0))
    clock.now += 10.0
    shown(event)  # type: ignore[arg-type]
    assert shown.left() == (None if left is None else pytest.approx(left))


def test_after_a_resume_the_pace_is_that_of_the_new_steps(clock: Clock) -> None:
    shown = Progress("x", stream=io.StringIO())
    shown(Event(kind="start", step=80))
    clock.now += 10.0
    shown(Event(step=90))
    assert shown.left() == pytest.approx(10.0)
