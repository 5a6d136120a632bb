"""Every rule's file says what it must, and holds nothing but the formula."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import descend.rules
from descend import kernels, modifiers, rules
from descend.formula import Range, Rule, stage

PARTS = ("Paper:", "Deviations:", "torch:", "optax:", "Keras:")
MODIFIERS = [x for x in vars(modifiers).values() if isinstance(x, Rule)]

by_name = pytest.mark.parametrize("name", rules.built_in())


def missing_parts(doc: str) -> list[str]:
    """What a rule's docstring lacks of the parts that every one has, in their order."""
    at = [doc.find(f"\n{part}") for part in PARTS]
    lacking = [part for part, place in zip(PARTS, at, strict=True) if place < 0]
    if not lacking and at != sorted(at):
        lacking.append("the order " + " ".join(PARTS))
    first = doc.split("\n\n")[0]
    if not first.endswith(".") or "\n" in first:
        lacking.append("a first line that is one sentence")
    if not re.search(r"\b(18|19|20)\d\d\b", doc[doc.find("\nPaper:") :].split("\nDeviations:")[0]):
        lacking.append("a year of the paper")
    return lacking


def faults(rule: Rule) -> list[str]:
    """What is wrong with a rule's hyper-parameters and states as data."""
    found = []
    for h in rule.hypers:
        if not Range(h.allowed).holds(h.default):
            found.append(f"{h.name} = {h.default} is outside {h.allowed}")
        if h.sensible is not None and not Range(h.sensible).holds(h.default):
            found.append(f"{h.name} = {h.default} makes no sense by {h.sensible}")
        if not h.doc:
            found.append(f"{h.name} is not explained")
    found += [f"{s.name} is not explained" for s in rule.states if not s.doc]
    if not rule.source or not rule.title:
        found.append("no source or title")
    return found


@by_name
def test_the_docstring_has_every_part(name: str) -> None:
    assert missing_parts(rules.get(name).doc) == []


@by_name
def test_the_hyper_parameters_and_states_are_explained_and_in_range(name: str) -> None:
    assert faults(rules.get(name)) == []


@pytest.mark.parametrize("rule", MODIFIERS, ids=lambda rule: rule.name)
def test_so_are_those_of_the_modifiers(rule: Rule) -> None:
    assert rule.doc.endswith(".")
    assert faults(rule) == []


def strangers(body: list[ast.stmt], name: str, kind: str) -> list[str]:
    """What a rule's file holds besides its page, its formula and the forms of that in dialects.

    Each form has a docstring that says how it differs. A matrix rule may name, before its formula, the rule
    that vectors follow.
    """
    found = [] if isinstance(body[0], ast.Expr) else ["no page"]
    formulas = [part for part in body if isinstance(part, ast.FunctionDef)]
    found += [] if formulas and formulas[0].name == name else [f"no formula {name} first"]
    for part in formulas[1:]:
        first = ast.unparse(part.decorator_list[0]) if part.decorator_list else ""
        if not first.startswith(f"dialect({name}, ") or not (ast.get_docstring(part) or "").endswith("."):
            found.append(part.name)
    for other in body[1:]:
        if isinstance(other, ast.ImportFrom):
            matrix = kind == "matrix" and (other.level == 1 or other.module == "descend.modifiers")
            plain = other.module in ("descend.formula", "descend.formula.vocabulary")
            found += [] if plain or matrix else [ast.unparse(other)]
        elif not isinstance(other, ast.FunctionDef) and not (
            kind == "matrix" and isinstance(other, ast.Assign)
        ):
            found.append(ast.unparse(other))
    return found


@by_name
def test_the_file_holds_one_formula_its_dialects_and_nothing_else(name: str) -> None:
    path = Path(inspect.getfile(descend.rules)).with_name(f"{name}.py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert strangers(body, name, rules.get(name).kind) == []


@by_name
def test_a_formula_that_sums_nothing_takes_one_pass(name: str) -> None:
    rule = rules.get(name)
    passes = stage(rule).passes
    assert (len(passes) == 1) == (rule.kind == "element")
    assert "p" in passes[-1].written


@by_name
def test_the_rule_can_be_shown(name: str) -> None:
    shown = kernels.show(rules.get(name))
    assert rules.get(name).formula_text in shown
    assert ("none: sums of sums" in shown) == (name == "adafactor_stack")


def test_the_checks_see_what_is_missing() -> None:
    doc = rules.get("adam").doc
    assert missing_parts(doc.replace("Keras:", "In Keras")) == ["Keras:"]
    assert missing_parts("torch: a\nPaper: b 2015\nDeviations: c\noptax: d\nKeras: e") != []
    assert missing_parts(re.sub(r"20\d\d", "", doc)) == ["a year of the paper"]
    assert "a first line that is one sentence" in missing_parts(doc.replace(".", ""))

    def careless(p, g, lr=descend.formula.Hyper(2.0, "[0, 1]", "")):
        p = p - lr * g
        return p

    found = faults(descend.formula.rule_of(careless))
    assert [f.split()[0] for f in found] == ["lr", "lr", "no"]


def test_what_does_not_belong_into_a_rule_s_file_is_seen() -> None:
    text = """
'A page.'
import math
from .adamw import adamw
K = 1
def first(p): 'One.'
@dialect(second, keras={})
def silent(p): pass
@dialect(third, keras={})
def of_another(p): 'Says.'
"""
    found = strangers(ast.parse(text).body, "second", "element")
    assert found == [
        "no formula second first",
        "silent",
        "of_another",
        "import math",
        "from .adamw import adamw",
        "K = 1",
    ]
