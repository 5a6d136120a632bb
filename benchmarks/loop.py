"""What the loop costs: `descend.fit` beside a loop written by hand, Lightning, skorch and Keras.

    python benchmarks/loop.py --out benchmarks/loop.md

The network is 64 -> 64 -> 10 with batches of 64 on one thread, where a step is so short that a loop's own
work shows. By hand: indexed tensors, no DataLoader, the same optimizer, nothing else. descend: progress to
a stream, history, run directory with checkpoints, checks that values are finite, stopping by patience,
target and limit. The others as their users have them: their own loaders, progress and history on. All take
turns in rounds; a value is the median epoch of a round over its steps, so that no start-up counts. A peer
that is not installed is left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import torch
from _timing import deliver, duration, factor, machine, note, ratios, settle, table
from torch import Tensor, nn

import descend

SAMPLES, INPUTS, HIDDEN, OUTPUTS, BATCH = 4096, 64, 64, 10, 64
STEPS = SAMPLES // BATCH
RATE = 1e-3


def tensors() -> tuple[Tensor, Tensor]:
    """Samples with the shape of the digits, and learnable classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, INPUTS, generator=generator)
    return x, (x @ torch.randn(INPUTS, OUTPUTS, generator=generator)).argmax(1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTPUTS))


class Clock:
    """Notes when each epoch ends."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def tick(self) -> None:
        self.at.append(time.perf_counter())

    def per_step(self) -> float:
        """The median epoch, without the first, over its steps."""
        epochs = [after - before for before, after in zip(self.at, self.at[1:], strict=False)]
        return statistics.median(epochs) / STEPS


def by_hand(epochs: int, make: Callable[..., torch.optim.Optimizer]) -> float:
    (x, y), model, clock = tensors(), network(), Clock()
    optimizer = make(model.parameters(), lr=RATE)
    for _ in range(epochs):
        order = torch.randperm(SAMPLES)
        for begin in range(0, SAMPLES, BATCH):
            indices = order[begin : begin + BATCH]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[indices]), y[indices])
            loss.backward()
            optimizer.step()
        clock.tick()
    return clock.per_step()


def ours(epochs: int, make: Callable[..., torch.optim.Optimizer]) -> float:
    from descend.cli import progress

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as stream:
        shown = progress.choose("benchmark", stream=stream)

        def listener(event: Any) -> None:
            shown(event)
            if event.kind == "epoch":
                clock.tick()

        descend.fit(
            network(),
            tensors(),
            rule=lambda parameters: make(parameters, lr=RATE),
            batch=BATCH,
            epochs=epochs,
            patience=epochs,
            target_loss=1e-9,
            validation=0,
            out=Path(folder) / "run",
            listener=listener,
            log_every=logged_every(epochs),
        )
    return clock.per_step()


def logged_every(epochs: int) -> int:
    """What `fit` takes by itself for a run of 100 epochs, however few the benchmark has."""
    return descend.descent.prepare(network(), tensors(), batch=BATCH, validation=0, epochs=100).log_every


def lightning(epochs: int, make: Callable[..., torch.optim.Optimizer]) -> float:
    import lightning as L
    from torch.utils.data import DataLoader, TensorDataset

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Any, number: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return make(self.parameters(), lr=RATE)

    class Watch(L.Callback):
        def on_train_epoch_end(self, *args: Any) -> None:
            clock.tick()

    clock = Clock()
    loader = DataLoader(TensorDataset(*tensors()), batch_size=BATCH, shuffle=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[Watch()],
            default_root_dir=folder,
            enable_model_summary=False,
        )
        trainer.fit(Module(), loader)
    return clock.per_step()


def skorch(epochs: int, make: Callable[..., torch.optim.Optimizer]) -> float:
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback

    class Watch(Callback):  # type: ignore[misc]
        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            clock.tick()

    clock, (x, y) = Clock(), tensors()
    net = NeuralNetClassifier(
        network(),
        criterion=nn.CrossEntropyLoss,
        optimizer=make,
        lr=RATE,
        batch_size=BATCH,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[("watch", Watch())],
    )
    net.fit(x, y)
    return clock.per_step()


def keras(epochs: int, make: Callable[..., torch.optim.Optimizer]) -> float:
    import keras as K

    class Watch(K.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, *args: Any) -> None:
            clock.tick()

    clock, (x, y) = Clock(), tensors()
    model = K.Sequential(
        [K.layers.Input((INPUTS,)), K.layers.Dense(HIDDEN, activation="relu"), K.layers.Dense(OUTPUTS)]
    )
    model.compile(K.optimizers.Adam(RATE), K.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x.numpy(), y.numpy(), batch_size=BATCH, epochs=epochs, callbacks=[Watch()])
    return clock.per_step()


CONTENDERS: dict[str, tuple[Callable[..., float], str]] = {
    "by hand": (by_hand, ""),
    "descend.fit": (ours, ""),
    "Lightning": (lightning, "lightning"),
    "skorch": (skorch, "skorch"),
    "Keras (torch)": (keras, "keras"),
}


def present() -> Iterator[str]:
    """The contenders that are installed."""
    from importlib.util import find_spec

    for name, (_, package) in CONTENDERS.items():
        if not package or find_spec(package):
            yield name
        else:
            note(f"{name} is left out: {package} is not installed")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=12, help="epochs of a round")
    parser.add_argument("--optimizer", choices=["descend", "torch"], default="descend")
    parser.add_argument("--out", help="a file for the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    make = descend.Adam if given.optimizer == "descend" else torch.optim.Adam
    names = list(present())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(given.rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            settle()
            quiet = io.StringIO()
            with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
                taken = CONTENDERS[name][0](given.epochs, make)
            seconds[name].append(taken)
        note(f"round {number + 1} of {given.rounds}")
    base = seconds["by hand"]
    rows = [(name, duration(values), factor(ratios(values, base))) for name, values in seconds.items()]
    deliver(
        f"{machine('torch', 'descend', 'lightning', 'skorch', 'keras')}; one thread\n\n"
        f"{SAMPLES} samples, {INPUTS} -> {HIDDEN} -> {OUTPUTS}, batches of {BATCH}, {given.optimizer} Adam; "
        f"{given.rounds} rounds of {given.epochs} epochs; medians, in brackets the quartiles.\n\n"
        + table(("loop", "a step", "by hand = 1"), rows),
        given.out,
    )


if __name__ == "__main__":
    main()
