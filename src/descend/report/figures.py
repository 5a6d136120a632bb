"""The figures of a page: which charts and surfaces there are, and the HTML that they are drawn into."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from . import sections, series, surface
from .read import Run
from .words import number, real, title

_LOSSES = (("loss", "train"), ("validation_loss", "held"))
_OTHERS = ("lr", "grad_norm")


def asset(name: str) -> str:
    """A file that goes into the page."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def slim(name: str) -> str:
    """A style sheet or script of ours without indentation and lines of comment."""
    lines = (line.strip() for line in asset(name).splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The charts there is something to draw for: loss, metrics, learning rate, gradient norm, the rest."""
    keys = dict.fromkeys(key for run in runs for key in run.columns)
    found = [_chart("loss", [(key, role) for key, role in _LOSSES if key in keys], runs)]
    for key in keys:
        if key.startswith("validation_") and key != "validation_loss":
            name = key[len("validation_") :]
            training = [(each, "train") for each in (name, f"train_{name}") if each in keys]
            found.append(_chart(key, [*training, (key, "held")], runs))
    found += [_chart(key, [(key, "train")], runs) for key in _OTHERS if key in keys]
    drawn = {each["key"] for chart in found for each in chart["series"]}
    for key in keys:
        # A hyper-parameter that never changes needs no picture; the table of the rule has it.
        if key not in (*drawn, "train_loss") and any(
            series.varies(run.columns[key]) for run in runs if key in run.columns
        ):
            found.append(_chart(key, [(key, "train")], runs))
    return [chart for chart in found if chart["series"]]


def _chart(key: str, parts: Sequence[tuple[str, str]], runs: Sequence[Run]) -> dict[str, Any]:
    fit = any(run.setting("run", "kind") != "minimize" for run in runs)
    names = {
        "loss": "training, each batch" if fit else "loss",
        "validation_loss": "held-out",
    }
    values = [run.columns[each].values for run in runs for each, _ in parts if each in run.columns]
    if key == "lr":  # a decay to zero has its known shape on a linear scale
        values = [rates.max(keepdims=True) for rates in values]
    return {
        "key": key,
        "title": title(key),
        "series": [
            {"key": each, "role": role, "label": names.get(each, title(each)[:1].lower() + title(each)[1:])}
            for each, role in parts
        ],
        "log": bool(values) and series.wants_log(np.concatenate(values)),
        "smooth": key in ("loss", "grad_norm"),
    }


def noisy(run: Run) -> bool:
    """Whether batches make the loss jump about, so that a trend is easier to see than the points."""
    loss = run.columns.get("loss")
    if loss is None or len(loss.values) < 50 or run.setting("run", "kind") == "minimize":
        return False
    moves = np.diff(loss.values[np.isfinite(loss.values)])
    return len(moves) > 1 and float(np.mean(np.sign(moves[1:]) != np.sign(moves[:-1]))) > 0.25


def smoothing(runs: Sequence[Run]) -> int:
    """The window, in steps, of the smoothing to start with: 0 where no loss is noisy."""
    longest = max((int(run.steps[-1] - run.steps[0]) for run in runs if noisy(run)), default=0)
    return max(10, longest // 50) if longest else 0


def marks(run: Run) -> list[dict[str, Any]]:
    """The steps that the loss chart points out: the best held-out loss, and where the run diverged."""
    found = []
    result = run.result or {}
    best, diverged = result.get("best"), result.get("diverged")
    if isinstance(best, Mapping) and real(best.get("validation_loss")) is not None:
        found.append({"step": best.get("step"), "text": "best held-out", "kind": "best"})
    bad = series.first_nonfinite(run, "loss")
    if isinstance(diverged, Mapping) and len(run.steps) and isinstance(diverged.get("step"), int):
        # The step that broke has no line of its own in the history; the last line stands at the chart's edge.
        step = min(diverged["step"], int(run.steps[-1]))
        found.append({"step": step, "text": f"diverged at step {number(diverged['step'])}", "kind": "bad"})
    elif bad is not None:
        found.append({"step": bad, "text": "not finite from here", "kind": "bad"})
    return found


def surfaces(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A figure for each problem of one or two parameters, with the paths of all runs that descend it."""
    groups: list[list[tuple[int, Run]]] = []
    for place, run in enumerate(runs):
        if run.surface is None:
            continue
        for group in groups:
            if surface.same_problem(group[0][1], run):
                group.append((place, run))
                break
        else:
            groups.append([(place, run)])
    return [figure for group in groups if (figure := surface.figure(group)) is not None]


def surface_section(place: int, figure: Mapping[str, Any], runs: Sequence[Run], of: int) -> str:
    """The section of one surface."""
    one = figure["dims"] == 1
    names = " and ".join(f"<i>{html.escape(name)}</i>" for name in figure["names"])
    labels = [html.escape(runs[path["run"]].label) for path in figure["paths"]]
    notes = [html.escape(figure["note"])] if figure["note"] else []
    for path, label in zip(figure["paths"], labels, strict=True):
        if path["of"]:
            notes.append(
                f"{label}: {number(len(path['x']))} of the {number(path['of'])} recorded points "
                "of the path are drawn, the first ones all, later ones evenly."
            )
    return sections.section(
        f"surface-{place}",
        f"The loss over {names}, and the way {figure['way']}{': ' + ', '.join(labels) if of > 1 else ''}",
        f'<div class="surface {"one" if one else "two"}" data-surface="{place}"></div>'
        + "".join(f'<p class="note">{note}</p>' for note in notes)
        + how("how-curve.html" if one else "how-contour.html"),
    )


def curves_section(runs: Sequence[Run], shown: Sequence[Mapping[str, Any]]) -> str:
    """The section of the charts, the loss large and the others small."""
    if not any(len(run.steps) for run in runs):
        return sections.section("curves", "Curves", "<p>No step is on record yet.</p>")
    notes = "".join(
        f'<p class="note">{html.escape(run.label)}: {number(len(run.steps))} lines are on record. Drawn '
        f"are, of each of {series.BUCKETS} equal stretches, the lowest and the highest value, so that no "
        "spike is lost; smoothing works on the mean of each stretch.</p>"
        for run in runs
        if len(run.steps) > series.WHOLE
    )
    figures = [
        f'<figure class="chart" data-chart="{place}">'
        f"<figcaption><h3>{html.escape(chart['title'])}</h3></figcaption></figure>"
        for place, chart in enumerate(shown)
    ]
    return sections.section(
        "curves",
        "Curves",
        '<div class="controls" data-controls="curves"></div>'
        f'<div class="charts large">{"".join(figures[:1])}</div>'
        f'<div class="charts">{"".join(figures[1:])}</div>{notes}{how("how-curves.html")}'
        + (sections.numbers(runs[0]) if len(runs) == 1 else ""),
    )


def how(name: str) -> str:
    """A text on how to read a figure, folded."""
    return f'<details class="how"><summary>How to read this</summary>{asset(name)}</details>'
