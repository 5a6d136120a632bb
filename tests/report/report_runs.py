"""Run directories made by hand, in the formats of the record."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w


def plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


def make_run(
    path: Path,
    config: dict[str, Any],
    history: list[dict[str, Any]],
    *,
    data: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
    surface: dict[str, Any] | None = None,
    tail: str = "",
) -> Path:
    """Write one run directory; `tail` is what a killed writer left at the end of the history."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    lines = "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in history)
    (path / "history.jsonl").write_text(lines + tail, encoding="utf-8")
    for name, content in (("data", data), ("result", result), ("surface", surface)):
        if content is not None:
            (path / f"{name}.json").write_text(json.dumps(plain(content)), encoding="utf-8")
    return path


def fit_run(
    path: Path, *, steps: int = 1150, seed: int = 0, settings: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """A run of `fit` as digits gives it; `settings` go into the config, `changes` replace whole files."""
    noise = np.random.default_rng(seed).normal(size=(steps, 2))
    per_epoch = 23
    history = []
    for step in range(1, steps + 1):
        trend = 2.3 * math.exp(-step / 180) + 0.02
        row = {
            "step": step,
            "epoch": step / per_epoch,
            "loss": trend * math.exp(0.25 * noise[step - 1, 0]),
            "lr": 1e-3,
            "grad_norm": 0.4 * trend * math.exp(0.3 * noise[step - 1, 1]),
        }
        if step % per_epoch == 0:
            row["validation_loss"] = 2.3 * math.exp(-step / 190) + 0.06 + 2e-8 * step * step
            row["validation_accuracy"] = 0.98 - 0.85 * math.exp(-step / 130)
        history.append(row)
    config: dict[str, Any] = {
        "run": {"kind": "fit", "seed": seed, "descend": "0.1.0"},
        "data": {"source": "digits", "validation": 0.2},
        "model": {"name": "mlp", "hidden": [64]},
        "rule": {"name": "adam", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        "batch": {"size": 64, "taken": 64},
        "stop": {"epochs": 50},
        "choices": [{"what": "model", "value": "mlp", "why": "ten classes of small images"}],
    }
    for table, values in (settings or {}).items():
        config[table] = {**config.get(table, {}), **values}
    parts: dict[str, Any] = {
        "data": {
            "name": "digits",
            "task": "classification",
            "features": [],
            "classes": [str(each) for each in range(10)],
            "input_shape": [1, 8, 8],
            "outputs": 10,
            "fingerprint": "5f" * 32,
            "summary": ["1,797 images of 8 × 8 pixels, 10 classes.", "360 held out, stratified by class."],
            "notices": [],
            "recipe": {},
        },
        "result": {
            "reason": "epoch_limit",
            "explanation": f"Stopped after {steps / per_epoch:.0f} epochs, as asked.",
            "steps": steps,
            "epochs": steps / per_epoch,
            "seconds": 3.4,
            "loss": history[-1]["loss"],
            "validation_loss": 0.091,
            "metrics": {"accuracy": 0.9778},
            "best": {"step": 920, "validation_loss": 0.0835},
            "notices": [],
            "diverged": None,
            "resumed": 0,
        },
    }
    return make_run(path, config, changes.pop("history", history), **{**parts, **changes})


def descent_2d(
    path: Path, *, momentum: float = 0.0, lr: float = 0.08, steps: int = 60, wide: float = 2.5, **changes: Any
) -> Path:
    """A run of `minimize` on x² + 10y², by gradient descent with or without momentum."""
    point, velocity = np.array([-2.0, 1.6]), np.zeros(2)
    points, history = [], []
    with np.errstate(all="ignore"):
        for step in range(steps + 1):
            loss, gradient = float(point @ (point * [1, 10])), point * [2, 20]
            points.append({"step": step, "x": point.tolist(), "loss": loss, "gradient": gradient.tolist()})
            if step < steps:
                norm = float(np.hypot(*gradient))
                history.append({"step": step + 1, "loss": loss, "lr": lr, "grad_norm": norm})
            velocity = momentum * velocity + gradient
            point = point - lr * velocity
    axis = np.linspace(-wide, wide, 61)
    grid = axis[None, :] ** 2 + 10 * axis[:, None] ** 2
    config = {
        "run": {"kind": "minimize", "seed": 0},
        "problem": {"function": "x**2 + 10*y**2", "start": [-2.0, 1.6]},
        "rule": {"name": "momentum" if momentum else "gradient_descent", "lr": lr, "momentum": momentum},
        "stop": {"steps": steps},
    }
    parts: dict[str, Any] = {
        "surface": {
            "names": ["x", "y"],
            "axes": [axis.tolist(), axis.tolist()],
            "loss": grid.tolist(),
            "path": points,
        },
        "result": {
            "reason": "step_limit",
            "explanation": f"Took the {steps} steps it was given.",
            "steps": steps,
            "loss": points[-1]["loss"],
            "seconds": 0.02,
        },
    }
    return make_run(path, config, history, **{**parts, **changes})


def descent_1d(path: Path, *, lr: float = 0.3, steps: int = 25, **changes: Any) -> Path:
    """A run of `minimize` on (x² − 1)² + 0.3x, which has two valleys."""
    x, points, history = 2.0, [], []
    for step in range(steps + 1):
        loss, gradient = (x * x - 1) ** 2 + 0.3 * x, 4 * x * (x * x - 1) + 0.3
        points.append({"step": step, "x": [x], "loss": loss, "gradient": [gradient]})
        if step < steps:
            history.append({"step": step + 1, "loss": loss, "lr": lr, "grad_norm": abs(gradient)})
        x -= lr * gradient
    axis = np.linspace(-2.2, 2.2, 201)
    config = {
        "run": {"kind": "minimize", "seed": 0},
        "problem": {"function": "(x**2 - 1)**2 + 0.3*x"},
        "rule": {"name": "gradient_descent", "lr": lr},
    }
    curve = ((axis**2 - 1) ** 2 + 0.3 * axis).tolist()
    parts: dict[str, Any] = {
        "surface": {"names": ["x"], "axes": [axis.tolist()], "loss": curve, "path": points},
        "result": {
            "reason": "converged",
            "explanation": f"The gradient fell below 1e-06 at step {steps}.",
            "steps": steps,
            "loss": points[-1]["loss"],
            "seconds": 0.01,
        },
    }
    return make_run(path, config, history, **{**parts, **changes})


def content(page: Path) -> dict[str, Any]:
    """What the page's script reads, parsed as strictly as a browser does."""
    found = re.search(
        r'<script type="application/json" id="content">(.*?)</script>', page.read_text("utf-8"), re.S
    )
    assert found is not None

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(found[1], parse_constant=refuse)


def visible(page: Path) -> str:
    """The page's text, without scripts, styles and tags."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text("utf-8"), flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))
