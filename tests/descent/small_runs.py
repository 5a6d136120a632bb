"""Runs that are small but hold everything a resume has to put back; also a program, for tests that kill it.

    python small_runs.py KIND DIRECTORY start|resume [CALL]

With CALL the process kills itself at that call of fsync, rename or replace, or file removal, counted from 0.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset, TensorDataset

from descend import data as loading
from descend.descent import Descent, prepare, prepare_minimum, resume, run

N, FEATURES, CLASSES = 230, 6, 3


def tensors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy classes that a small model learns slowly."""
    teacher = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, FEATURES, generator=generator)
    return x, (x @ teacher + torch.randn(N, CLASSES, generator=generator)).argmax(1)


def jitter(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Augmentation: its randomness is the sample's own."""
    return x + 0.1 * torch.randn(x.shape, generator=generator)


class Noisy(nn.Module):
    """Draws from all three global generators in training, and keeps buffers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.body = nn.Sequential(
                nn.Linear(FEATURES, 16),
                nn.BatchNorm1d(16),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Linear(16, CLASSES),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = x * (1.0 + 0.01 * np.random.normal()) + 0.01 * random.gauss(0.0, 1.0)
        return self.body(x)


class Wobbly(Dataset):
    """A Dataset whose samples are random."""

    def __init__(self) -> None:
        self.x, self.y = tensors()

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.x[index] + 0.1 * torch.randn(FEATURES), int(self.y[index])


def one_cycle(optimizer: torch.optim.Optimizer) -> OneCycleLR:
    return OneCycleLR(optimizer, 0.02, total_steps=400)


def again(kind: str) -> dict[str, object]:
    """The objects that a resume of this kind of run needs again."""
    if kind == "function":
        return {}
    if kind == "loader":
        loader = DataLoader(Wobbly(), batch_size=32, shuffle=True)
        data = loading.load(loader, validation=TensorDataset(*tensors(1)))
        return {"model": Noisy(), "data": data, "schedule": one_cycle}
    return {"model": Noisy(), "data": loading.load(tensors(), transform=jitter)}


def begin(kind: str, out: Path | None, every: int | str = 25) -> Descent:
    """A new run of one of the kinds."""
    if kind == "function":
        return prepare_minimum(
            "rosenbrock",
            rule="adam",
            lr=0.05,
            steps=400,
            schedule="warmup(cosine, steps=5%)",
            out=out,
            checkpoint_every=every,
        )
    if kind == "loader":
        return prepare(
            **again(kind), rule="torch.optim.AdamW", epochs=30, seed=3, out=out, checkpoint_every=every
        )
    if kind == "plateau":
        return prepare(
            **again(kind),
            rule="torch.optim.RMSprop",
            lr=1e-3,
            hypers={"momentum": 0.5},
            epochs=300,
            patience=20,
            accumulate=2,
            batch=20,
            schedule="plateau(factor=0.5, patience=6)",
            clip_norm=1.0,
            seed=5,
            out=out,
            checkpoint_every=every,
        )
    assert kind == "momentum"
    return prepare(
        **again(kind),
        rule="momentum",
        lr=0.02,
        batch=16,
        epochs=24,
        schedule={"lr": "warmup(cosine, steps=10%)", "momentum": "one-cycle(0.85, start=0.95, end=0.95)"},
        log_every=3,
        seed=2,
        out=out,
        checkpoint_every=every,
    )


KINDS = ("momentum", "plateau", "loader", "function")


def kill_at(number: int) -> None:
    """Makes this process kill itself just before one of its calls that decide about durability."""
    calls = 0

    def wrapped(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.fsync, os.rename, os.replace = wrapped(os.fsync), wrapped(os.rename), wrapped(os.replace)
    shutil.rmtree, os.unlink = wrapped(shutil.rmtree), wrapped(os.unlink)


if __name__ == "__main__":
    kind, directory, action, *call = sys.argv[1:]
    torch.set_num_threads(1)
    if call:
        kill_at(int(call[0]))
    if action == "start":
        run(begin(kind, Path(directory)))
    else:
        resume(directory, **again(kind))
