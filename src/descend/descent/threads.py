"""On how many processor threads a descent runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..data import Data
from ..errors import UsageError

SMALL = 5e8
"""Operations in a step below which a second thread brings little: some ten milliseconds of one core."""


@contextmanager
def on_threads(threads: int | None) -> Iterator[None]:
    """torch on so many threads for a while; None leaves it as it is."""
    before = torch.get_num_threads()
    if threads is not None and threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def choose(asked: int | str | None, module: nn.Module, data: Data, batch: int) -> tuple[int | None, str]:
    """The number of threads, or None for torch's own, and why where it was chosen here.

    "auto" takes one for small steps: the threads of a team wait for each other at every operation, and where
    another program holds a core for a moment, all of them stand still.

    Raises UsageError for anything but "auto", None and whole numbers from 1.
    """
    if asked is None:
        return None, ""
    if isinstance(asked, int) and not isinstance(asked, bool) and asked >= 1:
        return asked, ""
    if asked != "auto":
        raise UsageError(f'threads={asked!r}: give a whole number from 1, or "auto"')
    on_cpu = all(p.device.type == "cpu" for p in module.parameters())
    if not on_cpu or torch.get_num_threads() == 1 or "OMP_NUM_THREADS" in os.environ:
        return None, ""
    operations = _operations(module, data, batch)
    if operations is None or operations > SMALL:
        return None, ""
    return 1, (
        f"a step of {operations / 1e6:,.0f} million operations gains little from a second thread, "
        "and loses much where other programs use the processor"
    )


def _operations(module: nn.Module, data: Data, batch: int) -> float | None:
    """Floating-point operations of a step, from a pass over two samples; None where torch cannot count."""
    from torch.utils.flop_counter import FlopCounterMode

    count = min(2, len(data.train))
    inputs, _ = data.train.batch(torch.arange(count), 0)
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), counter:
            module(inputs)
    except Exception:  # whatever a module of the user's own makes of being counted, it trains as before
        return None
    finally:
        for part, training in modes.items():
            part.training = training
    backward_too = 3
    return float(counter.get_total_flops()) / count * batch * backward_too
