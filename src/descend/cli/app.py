"""The group of commands, and what every one of them does with errors, signals and closed pipes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import click

from .. import __version__
from ..errors import DataError, StorageError, UsageError, nearest
from .own import OwnCodeError

Function = TypeVar("Function", bound=Callable[..., Any])

# Where each command is defined; imported when it is asked for, so that `descend --help` stays quick.
_COMMANDS = {
    "analyse": "Analyse a rule: first step, stable range, invariances, limits.",
    "export": "Write a rule as one file that needs nothing but torch.",
    "fit": "Train a model on data by an update rule.",
    "minimize": "Descend a function: a named surface or an expression.",
    "predict": "Predict new rows with the best weights of a run.",
    "report": "Write one HTML page for one or more runs.",
    "check": "Test a rule, your own or a built-in one: what holds and what does not.",
    "rules": "List the update rules.",
    "show": "Show a rule: its formula, its stages and the code made from it.",
}
_STORAGE = {
    errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip


@dataclass
class State:
    """What the whole invocation shares."""

    debug: bool = False


class Commands(click.Group):
    """Finds commands by file, and the nearest name of one that does not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"{__package__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise click.UsageError(
                f"unknown command '{args[0]}'{nearest(args[0], _COMMANDS) or '.'} "
                f"The commands are {', '.join(_COMMANDS)}.",
                ctx,
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader has seen enough, as in `descend rules | head`
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def debug_option(function: Function) -> Function:
    """`--debug`, on the group and on every command."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(State).debug = True

    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=remember, help="Show the traceback of an error."
    )(function)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="descend %(version)s")
@debug_option
def group() -> None:
    """Gradient descent, from the formula on the page to the run on disk.

    Try: descend fit digits
    """


def run(argv: Sequence[str]) -> int:
    """Runs the command that `argv` names; every failure becomes a paragraph on stderr and an exit code."""
    with contextlib.ExitStack() as opened:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by the caller (`>&-`)
                setattr(sys, name, opened.enter_context(open(os.devnull, "w")))
                opened.callback(setattr, sys, name, None)
        return _flushed(_run(argv))


def _run(argv: Sequence[str]) -> int:
    state = State()
    code: int
    try:
        code = group.main(args=list(argv), prog_name="descend", standalone_mode=False, obj=state) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.UsageError as error:
        code = _say(_click_message(error), error.exit_code)
    except click.ClickException as error:
        code = _say(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = _say("interrupted", 130)
    except Exception as error:
        if state.debug:
            traceback.print_exc()
        code = _say(*_explained(error))
    return code


def _explained(error: Exception) -> tuple[str, int]:
    """The paragraph and the exit code for `error`."""
    if isinstance(error, (UsageError, DataError, StorageError)):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return f"{error.strerror}: {error.filename}" if error.filename else str(error), StorageError.exit_code
    if isinstance(error, OwnCodeError):
        return str(error), 1
    message = str(error) or "no message"
    return f"{type(error).__name__}: {message} (not foreseen; --debug shows where)", 1


def _click_message(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "descend"
    message = error.format_message()
    end = "" if message[-1:] in ".?" else "."
    return f"{message[:1].lower()}{message[1:]}{end} See: {path} --help"


def _say(message: str, code: int) -> int:
    start = "descend" if code == 130 else "descend: error"
    with contextlib.suppress(OSError, ValueError):  # nobody may listen; the exit code says it too
        print(f"{start}: {message}", file=sys.stderr, flush=True)
    return code


def _flushed(code: int) -> int:
    """Flushes stdout while an error can be caught; the interpreter's own flush at exit would complain."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return _say(f"stdout cannot be written: {error}", StorageError.exit_code)
    return code
