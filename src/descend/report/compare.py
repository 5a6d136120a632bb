"""Several runs in one table: the settings in which they differ, and what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .read import Run
from .sections import esc, outcomes, swatch
from .words import sentence, verdict

# Settings that say how a run was kept, not how it descended.
_ASIDE = {"choices", "checkpoint", "out", "versions"}
_RUN_ASIDE = {"log_every", "descend", "torch", "python", "out", "started", "directory", "version", "versions"}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name.

    >>> flat({"rule": {"name": "adam", "lr": 0.1}})
    {'rule.name': 'adam', 'rule.lr': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Dotted setting -> its value in each run (None where a run has none), for the settings that differ."""
    every = []
    for run in runs:
        config = {key: value for key, value in run.config.items() if key not in _ASIDE}
        if isinstance(config.get("run"), dict):
            config["run"] = {key: value for key, value in config["run"].items() if key not in _RUN_ASIDE}
        settings = flat(config)
        settings.pop("batch.reason", None)
        settings["data.fingerprint"] = (run.data or {}).get("fingerprint")
        every.append(settings)
    names = dict.fromkeys(name for settings in every for name in settings)
    rows = {name: [settings.get(name) for settings in every] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values[1:])}


def table(runs: Sequence[Run]) -> str:
    """A row for each run: its colour and name, the settings that differ, and what came out."""
    differ = differing(runs)
    # What only some runs have, as hyper-parameters of another rule, goes into one column.
    partly = {name: values for name, values in differ.items() if None in values}
    settings = {name: values for name, values in differ.items() if None not in values}
    if "data.fingerprint" in settings:
        settings["data.fingerprint"] = [str(value)[:8] for value in settings["data.fingerprint"]]
    results = [dict(outcomes(run)) for run in runs]
    names = list(dict.fromkeys(name for each in results for name in each))
    head = "".join(f"<th scope=col><code>{esc(name)}</code></th>" for name in settings)
    head += "<th scope=col>besides</th>" if partly else ""
    head += "<th scope=col>Stopped because</th>" + "".join(
        f"<th scope=col>{esc(name)}</th>" for name in names
    )
    body = ""
    for place, run in enumerate(runs):
        word, tone, _ = verdict(run.result)
        cells = "".join(f"<td>{esc(values[place])}</td>" for values in settings.values())
        if partly:
            own = {name: values[place] for name, values in partly.items() if values[place] is not None}
            said = ", ".join(f"{esc(name.partition('.')[2])} {esc(value)}" for name, value in own.items())
            cells += f'<td class="besides">{said}</td>'
        cells += f'<td><span class="word {tone}">{esc(word)}</span></td>'
        cells += "".join(f"<td>{results[place].get(name, '–')}</td>" for name in names)
        body += f"<tr><th scope=row>{swatch(place)}{esc(run.label)}</th>{cells}</tr>"
    same = "" if differ else "<p>The configurations do not differ.</p>"
    return (
        f'{same}<div class="scroll" tabindex="0" role="region" aria-label="Comparison">'
        f'<table class="comparison"><thead><tr><th scope=col>Run</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def explanations(runs: Sequence[Run]) -> str:
    """Each run's reason for stopping, in plain words."""
    rows = ""
    for place, run in enumerate(runs):
        word, _, meaning = verdict(run.result)
        said = (run.result or {}).get("explanation") or meaning
        rows += (
            f"<div><dt>{swatch(place)}{esc(run.label)}</dt>"
            f"<dd><b>{esc(word)}.</b> {esc(sentence(str(said)))}</dd></div>"
        )
    return f'<dl class="facts wide">{rows}</dl>'
