"""Run directories -> one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..record import write_aside
from . import compare, figures, sections, series
from .read import Run, labelled, read

Place = str | os.PathLike[str]


def write(run_dirs: Place | Sequence[Place], out: Place | None = None) -> Path:
    """Write the report of one run directory, or of several side by side, and return where it is.

    The page is one HTML file without any outside resource. It is made from nothing but the run directories,
    so a run in progress can be reported too. The page of one run goes to `report.html` in its directory, that
    of several to `comparison.html` beside the first of them, or to `out`.

    Raises:
        UsageError: `run_dirs` is empty.
        StorageError: one of them is not a run directory or is damaged, or the page cannot be written.
    """
    given = [run_dirs] if isinstance(run_dirs, (str, os.PathLike)) else list(run_dirs)
    if not given:
        raise UsageError(
            "no run directory was given; give one or more that `descend fit` or `descend minimize` wrote"
        )
    runs = labelled([read(each) for each in given])
    if out is not None:
        target = Path(out)
    elif len(runs) == 1:
        target = runs[0].path / "report.html"
    else:
        target = runs[0].path.resolve().parent / "comparison.html"
    write_aside(target, page(runs).encode())
    return target


def page(runs: Sequence[Run]) -> str:
    """The page of one run or several, as text."""
    several = len(runs) > 1
    heading = f"{len(runs)} runs side by side" if several else runs[0].label
    surfaces, charts = figures.surfaces(runs), figures.charts(runs)
    content = {
        "runs": [_drawn(run, charts) for run in runs],
        "charts": charts,
        "surfaces": surfaces,
        "smooth": figures.smoothing(runs),
    }
    if several:
        body = _several_header(runs, heading)
        body += sections.section("comparison", "What differs, and what came out", compare.table(runs))
    else:
        body = _header(runs[0], heading)
        body += sections.section("notices", "Worth knowing", sections.notices(runs[0]))
    for place, figure in enumerate(surfaces):
        body += figures.surface_section(place, figure, runs, len(surfaces))
    body += figures.curves_section(runs, charts)
    body += _several_sections(runs) if several else _run_sections(runs[0])
    packed = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _TEMPLATE.format(
        title=html.escape(f"{heading} · descend report"),
        style=figures.asset("uplot.min.css") + figures.slim("report.css"),
        body=body,
        # "<" could end the script element that holds the content.
        content=packed.replace("<", "\\u003c"),
        licence=figures.asset("uplot.LICENSE.txt").strip(),
        uplot=figures.asset("uplot.min.js").partition("*/")[2].strip(),
        script="\n".join(figures.slim(name) for name in ("common.js", "curves.js", "surface.js")),
    )


def _drawn(run: Run, charts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = {each["key"] for chart in charts for each in chart["series"]}
    about = {"label": run.label, "marks": figures.marks(run), "noisy": figures.noisy(run)}
    return {**about, **series.drawn(run, keys)}


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}</main>
<footer>Written by <b>descend</b> from the files of the run directory. This page is one file: it loads
nothing and works without a network. uPlot draws the charts (MIT licence, in the page's source).</footer>
<script type="application/json" id="content">{content}</script>
<script>
/*!
{licence}
*/
{uplot}
</script>
<script>
{script}
</script>
</body>
</html>
"""


def _header(run: Run, heading: str) -> str:
    return (
        f'<header><p class="over">descend report</p><h1>{html.escape(heading)}</h1>'
        f'<p class="sub">{html.escape(sections.subtitle(run))}</p>\n{sections.outcome(run)}</header>\n'
    )


def _several_header(runs: Sequence[Run], heading: str) -> str:
    items = "".join(
        f'<li><label><input type="checkbox" checked data-run="{place}">{sections.swatch(place)}'
        f"<b>{html.escape(run.label)}</b> <small>{html.escape(sections.subtitle(run))}</small></label></li>"
        for place, run in enumerate(runs)
    )
    return (
        f'<header><p class="over">descend report</p><h1>{html.escape(heading)}</h1>'
        f'<ul class="legend" aria-label="Runs; untick one to hide it everywhere">{items}</ul></header>\n'
    )


def _run_sections(run: Run) -> str:
    name = html.escape(sections.shown(run.setting("rule", "name")))
    return (
        sections.section("rule", f"The rule: {name}", sections.rule(run))
        + sections.section("data", "The data", sections.data(run))
        + sections.section("choices", "What was chosen, and why", sections.choices(run))
        + sections.section("onward", "Going on from here", sections.onward(run))
        + sections.section("configuration", "Configuration", sections.configuration(run))
    )


def _several_sections(runs: Sequence[Run]) -> str:
    told = sections.section("why", "Why each one stopped", compare.explanations(runs))
    by_rule: dict[str, Run] = {}
    by_data: dict[str, Run] = {}
    for run in runs:
        by_rule.setdefault(str(run.setting("rule", "name")), run)
        by_data.setdefault(str((run.data or {}).get("fingerprint")), run)
    for place, (name, run) in enumerate(by_rule.items()):
        told += sections.section(
            f"rule-{place}",
            f"The rule: {html.escape(sections.shown(name))}",
            sections.rule(run, settings=False),
        )
    for place, run in enumerate(by_data.values()):
        told += sections.section(f"data-{place}", "The data", sections.data(run))
    return told + sections.section(
        "configuration",
        "Configurations",
        "".join(f"<h3>{html.escape(run.label)}</h3>{sections.configuration(run)}" for run in runs),
    )
