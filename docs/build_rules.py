"""Writes docs/rules/: one page for every rule, drawn from the rule itself.

    python docs/build_rules.py

A test fails when a page is not what this writes.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from descend import modifiers, rules
from descend.formula import DIALECTS, Hyper, Rule, State

FOLDER = Path(__file__).parent / "rules"
PARTS = ("Paper", "Deviations", "torch", "optax", "Keras")


def page(rule: Rule) -> str:
    """The page of a rule in Markdown."""
    text, notes = split(rule.doc)
    summary, *rest = text
    lines = [f"# {rule.title}", "", summary, "", "```python", rule.formula_text, "```", ""]
    lines += [paragraph for part in rest for paragraph in (part, "")]
    lines += ["| Hyper-parameter | Default | Allowed | What it is |", "|---|---|---|---|"]
    lines += [f"| `{h.name}` | {h.default:g} | {allowed(h)} | {h.doc} |" for h in rule.hypers]
    if rule.states:
        lines += ["", "| State | In the state dict | Starts at | What it is |", "|---|---|---|---|"]
        lines += [f"| `{s.name}` | `{s.key}` | {first(s)} | {s.doc}{kind(s)} |" for s in rule.states]
    lines += [""]
    lines += [f"**{part}.** {said}\n" for part, said in notes.items()]
    if len(rule.dialects) > 1:
        whose = ", ".join(word for word in DIALECTS if word in rule.dialects)
        lines += [f"**Dialects.** {whose}: [what each does](../dialects.md).\n"]
    lines += [
        f"`descend show {rule.name}` prints what becomes of the formula on a machine. [All rules](index.md)"
    ]
    return "\n".join(lines) + "\n"


def split(doc: str) -> tuple[list[str], dict[str, str]]:
    """A rule's docstring as its paragraphs and its notes (paper, deviations, libraries)."""
    head, notes = re.split(r"\n\n(?=Paper:)", doc.strip(), maxsplit=1)
    marks = "|".join(PARTS)
    pieces = re.split(rf"^({marks}): ", notes, flags=re.MULTILINE)[1:]
    said = dict(zip(pieces[::2], map(flowing, pieces[1::2]), strict=True))
    return [flowing(part) for part in head.split("\n\n")], said


def flowing(part: str) -> str:
    """A paragraph on one line; a program, which is indented, as it stands."""
    if part.startswith("    "):
        return f"```python\n{textwrap.dedent(part)}\n```"
    return " ".join(part.split()).replace("*", "\\*")  # a power in prose is no emphasis


def allowed(h: Hyper) -> str:
    """The range of a hyper-parameter; where a value is allowed but makes no sense, both."""
    return h.allowed if h.sensible is None else f"{h.allowed}; sensible: {h.sensible}"


def first(s: State) -> str:
    """What a state starts at."""
    return f"`{s.init}`" if isinstance(s.init, str) else f"{s.init:g}"


def kind(s: State) -> str:
    """A word for a state that is not one number an element."""
    if s.scalar:
        return " (one number for the whole parameter)"
    if s.shape == "element":
        return ""
    squares = {"left": "rows x rows", "right": "columns x columns"}
    return f" ({squares.get(s.shape, f'one number for each of the {s.shape}')})"


def index() -> str:
    """The page that lists them all."""
    lines = [
        "# The update rules",
        "",
        "One file each in `src/descend/rules`; every page here is drawn from its file. States are the values",
        "kept beside every element of a parameter. Rules of the kind reduction sum over tensors on the way.",
        "",
        "| Rule | Name | Kind | What it does | States | torch |",
        "|---|---|---|---|---|---|",
    ]
    for name in rules.built_in():
        rule = rules.get(name)
        summary, torch = rule.summary, split(rule.doc)[1]["torch"]
        known = re.match(r"`([^`]+)`", torch)
        states = sum(not s.scalar and s.shape == "element" for s in rule.states)
        theirs = f"`{known[1]}`" if known else "–"
        called = f"[{rule.title}]({name}.md) | `{name}` | {rule.kind}"
        lines.append(f"| {called} | {summary} | {states} | {theirs} |")
    lines += ["", "## Modifiers", ""]
    lines += ["Small formulas for a chain: before a rule, or after it where they take its update u or keep a"]
    lines += ["state of their own.", "", "```python", "from descend.formula import chain"]
    lines += ["from descend.modifiers import clip_global_norm, ema_weights", ""]
    lines += ['rule = chain(clip_global_norm, descend.rules.get("adamw"), ema_weights)']
    lines += ["optimizer = descend.optimizer(rule)(model.parameters(), lr=1e-3, max_norm=1.0, decay=0.999)"]
    lines += ["```", "", "Parts share a hyper-parameter of one name.", ""]
    for form, found in vars(modifiers).items():
        if isinstance(found, Rule):
            said = found.doc.replace("*", "\\*")
            lines += [
                f"**{found.title[0].upper()}{found.title[1:]}** (`{form}`). {said} Source: {found.source}.",
                "",
            ]
            lines += ["```python", found.formula_text, "```", ""]
    lines += [
        "Under gradient descent coupled and decoupled decay are the same. Under a rule that divides by the",
        "size of the gradient they are not: coupled, the penalty's gradient is divided like any other.",
        "",
        "See also [averages and bias correction](../averages.md),",
        "[learning-rate decay](../learning-rate-decay.md), [the kinds of rules](../kinds.md) and",
        "[how exactly the rules are computed](../accuracy.md).",
    ]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Every file of the folder and what stands in it."""
    return {"index.md": index()} | {f"{name}.md": page(rules.get(name)) for name in rules.built_in()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.md"):
        stale.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
