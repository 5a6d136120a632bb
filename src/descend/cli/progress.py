"""The live progress: a listener to the descent's events that draws on stderr.

It is refreshed by time and never by step. A drawing that took long puts the next one off, so that drawing
costs at most one part in fifty of the run. A stderr that is closed or full silences it; the descent goes on.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from . import text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..descent import Event

_SHARE = 50  # one drawing in this many times its own cost
_CURVE = 24  # characters of the loss curve


class Progress:
    """Turns events into lines. Base of the two ways of drawing, and by itself the quiet one.

    `minutes` is the time limit of the run, where it has one: the time left then never exceeds it.
    """

    first_pause = 0.1

    def __init__(self, title: str, *, stream: TextIO | None = None, minutes: float | None = None) -> None:
        self.title = title
        self.stream = stream or sys.stderr
        self.limit = None if minutes is None else 60.0 * minutes
        self.latest: Event | None = None
        self.held_out: dict[str, float] = {}
        self.norm: float | None = None
        self.curve: list[float] = []
        self.broken = False
        self._started = time.monotonic()
        self._first_step = 0
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        self._remember(event)
        now = time.monotonic()
        if self.broken:
            return
        if event.kind == "notice":
            self._guarded(self.note, event.message)
        elif event.kind == "start":
            self._started, self._first_step = now, event.step
        elif now >= self._next and event.kind in ("step", "epoch"):
            self._guarded(self.draw)
            cost = time.monotonic() - now
            self._next = now + max(self.pause(), _SHARE * cost)

    def _remember(self, event: Event) -> None:
        if event.validation_loss is not None:
            self.held_out = {"loss": event.validation_loss, **event.metrics}
        if event.kind in ("step", "epoch"):
            self.latest = event
            self.norm = self.norm if event.grad_norm is None else event.grad_norm

    def _guarded(self, action: Callable[..., None], *args: str) -> None:
        try:
            action(*args)
        except (OSError, ValueError):  # a closed pipe, a full disk, a closed file
            self.broken = True

    def pause(self) -> float:
        """Seconds until the next drawing."""
        return self.first_pause

    def draw(self) -> None:
        """Shows the latest event."""

    def note(self, message: str) -> None:
        """Shows something that the person should know."""

    def close(self) -> None:
        """Leaves the terminal as it was."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.broken:
            self._guarded(self.close)

    def part(self) -> float | None:
        """How much of the run is done, from 0 to 1, where its length is known."""
        event = self.latest
        if event is None:
            return None
        parts = [event.step / event.total_steps] if event.total_steps else []
        if event.total_epochs:
            parts.append(event.epoch / event.total_epochs)
        if self.limit:
            parts.append((time.monotonic() - self._started) / self.limit)
        return min(1.0, max(parts)) if parts else None

    def left(self) -> float | None:
        """Seconds left at the pace so far, where the length of the run is known."""
        event, passed = self.latest, time.monotonic() - self._started
        if event is None:
            return None
        guesses = [] if self.limit is None else [self.limit - passed]
        done = event.step - self._first_step
        total = event.total_steps
        if not total and event.total_epochs and event.epoch > 0:
            total = round(event.step / event.epoch * event.total_epochs)
        if total and done > 0:
            guesses.append(passed / done * (total - event.step))
        return max(0.0, min(guesses)) if guesses else None

    def where(self) -> str:
        """The place in the run, in the unit its length was given in."""
        event = self.latest
        if event is None:
            return ""
        if event.total_epochs:
            return f"epoch {math.ceil(event.epoch)} of {event.total_epochs:g}"
        if event.total_steps:
            return f"step {event.step:,} of {event.total_steps:,}"
        return f"step {event.step:,}"

    def values(self) -> list[str]:
        """Loss, held-out values, rate and gradient norm, each with its name."""
        event = self.latest
        if event is None:
            return []
        shown = [f"loss {text.number(event.loss)}"]
        if self.held_out:
            first, *rest = text.metrics(self.held_out)
            shown += [f"held-out {first}", *rest[:2]]
        shown.append(f"rate {text.number(event.lr, 3)}")
        if self.norm is not None:
            shown.append(f"gradient {text.number(self.norm, 3)}")
        return shown


class Lines(Progress):
    """For files and pipes: a plain line now and then, at first after a second, later every half minute."""

    first_pause = 1.0

    def __init__(self, title: str, *, stream: TextIO | None = None, minutes: float | None = None) -> None:
        super().__init__(title, stream=stream, minutes=minutes)
        self._pause = self.first_pause / 2

    def pause(self) -> float:
        self._pause = min(30.0, 2 * self._pause)
        return self._pause

    def draw(self) -> None:
        left = self.left()
        ending = [] if left is None else [f"{text.clock(left)} left"]
        print(
            "  ".join([f"{self.title}: {self.where()}", *self.values(), *ending]),
            file=self.stream,
            flush=True,
        )

    def note(self, message: str) -> None:
        print(f"note: {message}", file=self.stream, flush=True)


class Live(Progress):
    """For a terminal: a bar, the values, and the curve of the loss so far, redrawn in place."""

    def __init__(self, title: str, *, stream: TextIO | None = None, minutes: float | None = None) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        class Patient(Console):
            def on_broken_pipe(self) -> None:
                raise  # rich would end the process, and with it the run

            def show_cursor(self, show: bool = True) -> bool:
                return False  # never hidden: a killed run leaves the terminal as it was

        super().__init__(title, stream=stream, minutes=minutes)
        self.console = Patient(file=self.stream, highlight=False)
        self._live = RichLive(
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=False,
        )

    def __enter__(self) -> Live:
        self._guarded(self.draw)  # reading the data can take a while
        return self

    def draw(self) -> None:
        if self.latest is not None:
            self._extend_curve(self.latest.loss)
        self._live.start()
        self._live.update(self._picture(), refresh=True)

    def note(self, message: str) -> None:
        self.console.print(f"[yellow]note[/]: {_escaped(message)}")

    def close(self) -> None:
        self._live.stop()

    def _extend_curve(self, loss: float) -> None:
        if len(self.curve) >= 2 * _CURVE:
            self.curve = self.curve[::2]
        self.curve.append(loss)

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if self.latest is None:
            return Text(f"{self.title}  getting ready", style="dim")
        part, left = self.part(), self.left()
        head = Table.grid(padding=(0, 2))
        cells: list[RenderableType] = [Text(self.title, style="bold")]
        if part is not None:
            width = max(10, min(40, self.console.width - 50))
            cells.append(ProgressBar(total=1.0, completed=part, width=width))
        cells.append(Text(self.where()))
        if left is not None:
            cells.append(Text(f"{text.clock(left)} left", style="cyan"))
        head.add_row(*cells)
        lines: list[RenderableType] = [head, Text("  ".join(self.values()), overflow="fold")]
        if len(self.curve) > 2 and not self.console.options.ascii_only:
            shown = (
                self.curve[-_CURVE:]
                if len(self.curve) <= _CURVE
                else self.curve[:: -(-len(self.curve) // _CURVE)]
            )
            lines.append(Text(f"{text.sparkline(shown)}  loss so far", style="dim"))
        return Group(*lines)


def _escaped(message: str) -> str:
    from rich.markup import escape

    return escape(message)


def choose(
    title: str, *, quiet: bool = False, minutes: float | None = None, stream: TextIO | None = None
) -> Progress:
    """The progress that suits `stream` (stderr): none where `quiet`, live on a terminal, lines elsewhere."""
    target = stream or sys.stderr
    kind: type[Progress]
    if quiet:
        kind = Progress
    elif target.isatty():
        kind = Live
    else:
        kind = Lines
    return kind(title, stream=target, minutes=minutes)
