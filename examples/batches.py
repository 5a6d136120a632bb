"""Batch, mini-batch and single-sample descent on the same data, side by side in one report."""

from __future__ import annotations

import descend

runs = []
for size in ("full", 64, 1):
    run = f"runs/iris-{size}"
    result = descend.fit("softmax", "iris", rule="gradient_descent", lr=0.05, batch=size, epochs=20, out=run)
    print(f"batch {size!s:>4}: {result.steps:5d} steps, held-out loss {result.validation_loss:.4f}")
    runs.append(run)

print(descend.report.write(runs, out="batches.html"))
