"""The parts of a page about one run. Every function returns HTML; every text from the run is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import typeset
from .read import Run
from .series import first_nonfinite
from .words import duration, number, real, sentence, title, verdict


def esc(value: Any) -> str:
    """A value from the record as HTML text; safe inside quoted attributes too."""
    return html.escape(value if isinstance(value, str) else number(value))


def section(name: str, heading: str, body: str) -> str:
    """A section of the page (heading and body are HTML); nothing where there is no body."""
    return f'<section id="{name}"><h2>{heading}</h2>\n{body}\n</section>\n' if body else ""


def swatch(place: int) -> str:
    """The colour of a run, which is the same in every figure and table of the page."""
    return f'<span class="swatch" data-run="{place}"></span>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms (text) and what is said of them (HTML)."""
    rows = "".join(f"<div><dt>{html.escape(term)}</dt><dd>{said}</dd></div>" for term, said in pairs)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def subtitle(run: Run) -> str:
    """What ran on what, as one line of text."""
    rule, rate = shown(run.setting("rule", "name")), run.setting("rule", "lr")
    taken = run.setting("batch", "taken")
    if run.setting("run", "kind") == "minimize":
        subject = shown(run.setting("problem", "function"))
    else:
        source = (run.data or {}).get("name") or run.setting("data", "source")
        subject = " on ".join(filter(None, (shown(run.setting("model", "name")), shown(source))))
    if rule and rate is not None:
        rule += f", learning rate {number(rate)}"
    batches = "the whole set at every step" if run.setting("batch", "size") == "full" else ""
    if taken and not batches:
        batches = f"batches of {number(taken)}"
    return " · ".join(filter(None, (subject, rule, batches)))


def outcome(run: Run) -> str:
    """The verdict: why it stopped in plain words, what that means, and the numbers at the end."""
    word, tone, meaning = verdict(run.result)
    result = run.result or {}
    explanation = sentence(str(result.get("explanation") or "")) or (
        f"The record ends at step {number(int(run.steps[-1]))}."
        if len(run.steps)
        else "Nothing is on record yet."
    )
    return (
        f'<div class="verdict {tone}"><p class="badge">{html.escape(word)}</p>'
        f'<p class="explanation">{esc(explanation)}</p>'
        f'<p class="meaning">{html.escape(meaning)}</p></div>\n{tiles(run)}\n{reading(run)}'
    )


def tiles(run: Run) -> str:
    """The end's numbers, large."""
    shown = "".join(
        f'<li><span class="value">{value}</span><span class="name">{html.escape(name)}</span></li>'
        for name, value in outcomes(run)
    )
    return f'<ul class="tiles">{shown}</ul>' if shown else ""


def outcomes(run: Run) -> list[tuple[str, str]]:
    """(name, HTML value) of what came out, from the result or, without one, from the last records."""
    result = run.result or {}
    found: list[tuple[str, str]] = []
    metrics = result.get("metrics")
    for key, value in (metrics if isinstance(metrics, dict) else {}).items():
        found.append((title(f"validation_{key}"), esc(real(value))))
    held = real(result["validation_loss"]) if "validation_loss" in result else last(run, "validation_loss")
    if held is not None:
        found.append(("Held-out loss", esc(held)))
    loss = real(result["loss"]) if "loss" in result else last(run, "loss")
    if loss is not None:
        function = run.setting("run", "kind") == "minimize"
        found.append(("Loss" if function else "Training loss", esc(loss)))
    best = result.get("best")
    if isinstance(best, dict) and real(best.get("validation_loss")) is not None:
        at = f" <small>step {esc(best.get('step'))}</small>"
        found.append(("Best held-out loss", esc(real(best["validation_loss"])) + at))
    steps = result.get("steps", int(run.steps[-1]) if len(run.steps) else None)
    if steps is not None:
        found.append(("Steps", esc(steps)))
    epochs = real(result.get("epochs"))
    if epochs and run.setting("run", "kind") != "minimize":
        found.append(("Epochs", esc(epochs)))
    seconds = real(result.get("seconds"))
    if seconds is not None:
        found.append(("Time", html.escape(duration(seconds))))
    return found


def last(run: Run, key: str) -> float | None:
    column = run.columns.get(key)
    return float(column.values[-1]) if column is not None and len(column.values) else None


def reading(run: Run) -> str:
    """What the numbers say, by arithmetic alone."""
    said: list[str] = []
    loss = run.columns.get("loss")
    if loss is not None and len(loss.values) > 1:
        first, end = float(loss.values[0]), float(loss.values[-1])
        what = "The loss" if run.setting("run", "kind") == "minimize" else "The loss of a batch"
        said.append(
            f"{what} went from {esc(first)} at step {esc(int(run.steps[loss.rows[0]]))} "
            f"to {esc(end)} at step {esc(int(run.steps[loss.rows[-1]]))}."
        )
        bad = first_nonfinite(run, "loss")
        if bad is not None:
            finite = loss.values[np.isfinite(loss.values)]
            largest = f", after values up to {esc(float(finite.max()))}" if len(finite) else ""
            said.append(f"From step {esc(bad)} on record it is not a finite number{largest}.")
    held = run.columns.get("validation_loss")
    if held is not None and len(held.values) > 1 and np.isfinite(held.values).any():
        place = int(np.nanargmin(np.where(np.isfinite(held.values), held.values, np.inf)))
        least, end = float(held.values[place]), float(held.values[-1])
        step = esc(int(run.steps[held.rows[place]]))
        if place == len(held.values) - 1:
            said.append(f"The held-out loss was lowest at its last evaluation: {esc(least)}.")
        elif least > 0 and np.isfinite(end):
            rise = (
                f"is {esc(float(f'{(end / least - 1) * 100:.2g}'))} % above that"
                if end < 2 * least
                else f"is {esc(float(f'{end / least:.2g}'))} times that"
            )
            said.append(
                f"The held-out loss was lowest at step {step}, {esc(least)}; the last one, {esc(end)}, "
                f"{rise}. <code>best.safetensors</code> holds the weights of the lowest."
            )
    norm = run.columns.get("grad_norm")
    if norm is not None and len(norm.values) > 1:
        said.append(
            f"The gradient norm went from {esc(float(norm.values[0]))} to {esc(float(norm.values[-1]))}."
        )
    diverged = (run.result or {}).get("diverged")
    if isinstance(diverged, Mapping):
        said.append(_where(diverged, run.setting("run", "kind") == "minimize"))
    resumed = (run.result or {}).get("resumed")
    if isinstance(resumed, int) and resumed:
        said.append(
            f"The run was continued {esc(resumed)} time{'s' if resumed > 1 else ''} from a checkpoint."
        )
    return f'<ul class="reading">{"".join(f"<li>{each}</li>" for each in said)}</ul>' if said else ""


def _where(diverged: Mapping[str, Any], function: bool) -> str:
    """Where a run broke: step, batch and, folded, the samples of that batch."""
    parts = ("step", "loss") if function else ("step", "epoch", "batch", "loss")
    named = ", ".join(
        f"{part} {esc(real(diverged[part]) if part == 'loss' else diverged[part])}"
        for part in parts
        if diverged.get(part) is not None
    )
    samples = diverged.get("samples")
    if not isinstance(samples, list) or not samples:
        return f"Where it broke: {named}."
    listed = ", ".join(esc(str(sample)) for sample in samples)
    return (
        f"Where it broke: {named}.<details><summary>The {len(samples)} samples of that batch</summary>"
        f"{listed}</details>"
    )


def notices(run: Run) -> str:
    """What the user should know: the data's notices and the run's, each once."""
    found = [*((run.data or {}).get("notices") or []), *((run.result or {}).get("notices") or [])]
    items = "".join(f"<li>{esc(sentence(each))}</li>" for each in dict.fromkeys(map(str, found)))
    return f'<ul class="notices">{items}</ul>' if items else ""


def rule(run: Run, *, settings: bool = True) -> str:
    """The rule's formula, where it comes from and, with `settings`, its hyper-parameters as set."""
    name = run.setting("rule", "name")
    if not isinstance(name, str):
        return ""
    known = _rule(run, name)
    values = {key: value for key, value in run.setting("rule").items() if key != "name"}
    if known is None:
        said = (
            f"<p><code>{esc(shown(name))}</code> is not one of descend's rules (a <code>torch.optim</code> "
            "optimizer, or one of your own), so there is no formula to show.</p>"
        )
        settled = ((key, f"<code>{esc(value)}</code>") for key, value in values.items())
        return said + (facts(settled) if settings else "")
    text = known.formula_text.strip()
    return (
        f'<p>{esc(known.summary)}</p>\n<div class="formula" role="group" aria-label="Formula">'
        f"{typeset.lines(text)}</div>\n"
        '<p class="key"><i>p</i> is one element of the parameter, <i>g</i> of its gradient; <i>t</i> is the '
        "step, from 1; ← gives a letter its next value.</p>"
        + (_hypers(known, values, run.setting("schedule") or {}) if settings else "")
        + "<details><summary>The lines as the program reads them</summary>"
        f'<pre tabindex="0">{esc(text)}</pre></details>\n'
        + (f'<p class="source">Source: {esc(known.source)}</p>' if known.source else "")
    )


def _hypers(known: Any, values: dict[str, Any], schedules: Mapping[str, Any]) -> str:
    rows = ""
    for hyper in known.hypers:
        value = values.pop(hyper.name, hyper.default)
        mark = "" if value == hyper.default else f" <small>default {esc(hyper.default)}</small>"
        if hyper.name in schedules:
            mark += f" <small>then {esc(str(schedules[hyper.name]))}</small>"
        rows += _row(f"<code>{esc(hyper.name)}</code>", esc(value) + mark, esc(hyper.doc))
    for key, value in values.items():
        rows += _row(f"<code>{esc(key)}</code>", esc(value), "")
    return _table(("Name", "Value", "Meaning"), rows)


def _row(head: str, *cells: str) -> str:
    return f"<tr><th scope=row>{head}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _table(heads: Sequence[str], rows: str, kind: str = "") -> str:
    shown = "".join(f"<th scope=col>{html.escape(head)}</th>" for head in heads)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{shown}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _rule(run: Run, name: str) -> Any:
    """The rule that the run has kept, or the built-in one of that name; a file's code is never run for it."""
    from .. import rules
    from ..descent.own_rule import kept_rule
    from ..errors import StorageError

    try:
        kept = kept_rule(run.path, run.config)
    except StorageError:
        return None
    return kept or (rules.get(name, run.setting("rule", "dialect")) if name in rules.built_in() else None)


def data(run: Run) -> str:
    """The data: its sentences, its columns and classes, its fingerprint."""
    found = run.data
    if not found:
        return ""
    body = "".join(f"<p>{esc(sentence(str(each)))}</p>" for each in found.get("summary") or [])
    shape = found.get("input_shape")
    pairs = [
        ("Name", esc(found.get("name") or "–")),
        ("Task", esc(found.get("task") or "–")),
        ("Input", esc(" × ".join(map(str, shape)) if shape else "–")),
        ("Outputs", esc(found.get("outputs"))),
    ]
    if found.get("classes"):
        pairs.append(("Classes", _several(found["classes"])))
    if found.get("features"):
        pairs.append((f"Features ({len(found['features'])})", _several(found["features"])))
    if found.get("fingerprint"):
        pairs.append(("Fingerprint", f'<code class="long">{esc(str(found["fingerprint"]))}</code>'))
    return body + facts(pairs)


def _several(values: Sequence[Any], most: int = 12) -> str:
    shown = ", ".join(esc(str(value)) for value in values[:most])
    if len(values) <= most:
        return shown
    rest = ", ".join(esc(str(value)) for value in values[most:])
    return f"{shown}<details><summary>and {len(values) - most} more</summary>{rest}</details>"


def choices(run: Run) -> str:
    """What was chosen for the user, and why."""
    listed = run.config.get("choices") or []
    rows = [(str(each.get("what", "")), each.get("value"), str(each.get("why", ""))) for each in listed]
    reason = run.setting("batch", "reason")
    if reason and not any(what.startswith("batch") for what, _, _ in rows):
        rows.append(("batch", run.setting("batch", "taken"), str(reason)))
    if not rows:
        return ""
    return _table(
        ("What", "Chosen", "Why"), "".join(_row(esc(what), esc(value), esc(why)) for what, value, why in rows)
    )


def configuration(run: Run) -> str:
    return (
        "<details><summary>config.toml, enough to run it again</summary>"
        f'<pre tabindex="0">{esc(run.config_text.strip())}</pre></details>'
    )


def onward(run: Run) -> str:
    """The commands that go on from this run."""
    place = str(run.path)
    quoted = f"'{place}'" if any(letter in place for letter in ' ()&;$"') else place
    lines = []
    if run.result is None or run.result.get("reason") == "interrupted":
        lines.append(("Continue exactly where it stopped", _resume(run, quoted)))
    if run.data and "recipe" in run.data:
        lines.append(("Predict new rows", f"descend predict {quoted} new.csv"))
    lines.append(("Write this page again", f"descend report {quoted}"))
    lines.append(("Beside another run", f"descend report {quoted} OTHER_RUN"))
    return facts((name, f"<code>{esc(line)}</code>") for name, line in lines)


def _resume(run: Run, quoted: str) -> str:
    """The command line, or a line of Python for a run with parts that no name stands for."""
    named = {"model": run.setting("model", "name"), "function": run.setting("problem", "function")}
    if run.setting("own_rule") is None:
        named["rule"] = run.setting("rule", "name")
    again = [part for part, name in named.items() if is_own(name)]
    if str(run.setting("schedule", "lr")).startswith("torch:"):
        again.append("schedule")
    if again and ".py:" not in str(run.setting("data", "source")):
        given = "".join(f", {part}=..." for part in again)
        return f"descend.descent.resume({str(run.path)!r}{given})"
    return f"descend {run.setting('run', 'kind') or 'fit'} --resume {quoted}"


def is_own(name: Any) -> bool:
    """Whether a name in the configuration stands for an object of the user's, not for something known."""
    return isinstance(name, str) and name.startswith("own:")


def shown(name: Any) -> str:
    """
    >>> shown("own:Net"), shown("mlp"), shown("/home/me/my_rule.py:mine"), shown(None)
    ('Net', 'mlp', 'my_rule.py:mine', '')
    """
    if name is None:
        return ""
    return re.sub(r".*[/\\](?=[^/\\]+\.py(:\w+)?\Z)", "", str(name).removeprefix("own:"))


def numbers(run: Run, most: int = 12) -> str:
    """The curves as a table of a few rows, for reading without the pictures."""
    keys = [key for key in run.columns if len(run.columns[key].values)]
    if not len(run.steps) or not keys:
        return ""
    held = run.columns.get("validation_loss")
    among = held.rows if held is not None and len(held.rows) > 1 else np.arange(len(run.steps))
    spread = among[np.unique(np.linspace(0, len(among) - 1, most).round().astype(int))]
    chosen = np.unique(np.concatenate(([0], spread, [len(run.steps) - 1])))
    body = ""
    for row in chosen.tolist():
        cells = []
        for key in keys:
            column = run.columns[key]
            place = int(np.searchsorted(column.rows, row))
            there = place < len(column.rows) and column.rows[place] == row
            cells.append(esc(float(column.values[place])) if there else "")
        body += _row(number(int(run.steps[row])), *cells)
    table = _table(("Step", *map(title, keys)), body, "figures")
    return f"<details><summary>The same as a table</summary>{table}</details>"
