"""How exactly each rule is computed: ours, torch's paths, optax and Keras against the float64 reference.

    python benchmarks/accuracy.py [--elements 100000] [--steps 100] [--dtypes float32 float64 ...]

Two tables in Markdown, p and gradients standard normal and seeded. "A step": every step starts from the same
state for everyone, so the numbers hold the error of one step. "A run": everyone goes on from its own state.
optax and Keras stand in the second one where they can be imported; neither is needed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / "rules"), str(Path(__file__).parent)]

import torch  # noqa: E402
from _accuracy_peers import peers  # noqa: E402
from rule_checks import errors_of_a_run, errors_of_a_step, torch_counts_in  # noqa: E402
from rule_lines import MEASURED, Line  # noqa: E402

PATHS = ("forloop", "foreach", "fused")


def cell(mean: float, largest: float) -> str:
    """Mean and largest error; a run that did not stay finite says so."""
    return f"{mean:.3e} / {largest:.2e}" if largest < float("inf") else "not finite"


def row(line: Line, dtype: str, found: dict[str, tuple[float, float]], columns: tuple[str, ...]) -> str:
    """One line of a table; ours stands first, then its share of torch's best."""
    best = [min(found[path][k] for path in line.paths) for k in (0, 1)] if line.paths else None
    share = "–"
    if best is not None:
        share = " / ".join(
            f"{a / b:.4f}" if b else "1.0000" for a, b in zip(found["ours"], best, strict=True)
        )
    cells = [cell(*found[who]) if who in found else "–" for who in columns]
    return f"| {line.name} | {dtype} | {cells[0]} | {share} | {' | '.join(cells[1:])} |"


def head(columns: tuple[str, ...]) -> str:
    """The head of a table."""
    names = [columns[0], "ours : torch's best", *columns[1:]]
    return f"| rule | dtype | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}"


def a_run(line: Line, dtype: torch.dtype, n: int, steps: int) -> dict[str, tuple[float, float]]:
    """Mean and largest error of everyone after a run."""
    found: dict[str, Any] = errors_of_a_run(line, dtype, n, steps)
    for who, (changed, maker) in peers(line.name).items():
        theirs = replace(line, hypers={**line.hypers, **changed}, torch=None)
        try:
            found[who] = errors_of_a_run(theirs, dtype, n, steps, others={who: maker})[who]
        except TypeError:  # Keras's Nadam cannot take a half type on its torch back end
            continue
    return {who: (float(x.mean()), float(x.max())) for who, x in found.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--elements", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64", "bfloat16", "float16"])
    parser.add_argument("--rules", nargs="+", default=[line.name for line in MEASURED])
    asked = parser.parse_args()
    lines = [line for line in MEASURED if line.name in asked.rules]
    for title, columns in (("A step", ("ours", *PATHS)), ("A run", ("ours", *PATHS, "optax", "Keras"))):
        print(f"\n## {title}\n\n{head(columns)}")
        for name in asked.dtypes:
            dtype = getattr(torch, name)
            with torch_counts_in(dtype):
                for line in lines:
                    if title == "A run":
                        found = a_run(line, dtype, asked.elements, asked.steps)
                    else:
                        found = errors_of_a_step(line, dtype, asked.elements, asked.steps)["p"]
                    print(row(line, name, found, columns), flush=True)


if __name__ == "__main__":
    main()
