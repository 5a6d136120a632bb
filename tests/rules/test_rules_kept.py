"""The text that a run keeps of a rule: it says the same, and nothing but formulas comes back from it."""

from __future__ import annotations

import pytest

from descend import modifiers, rules
from descend.errors import UsageError
from descend.formula import Hyper, Rule, State, chain, except_for, only, renamed, rule_of
from descend.formula.vocabulary import minimum, where
from descend.rules.kept import from_text, text_of


def odd(
    p, g, m=State(init="start"), start=Hyper(-0.5, "(-inf, inf)", 'a "quoted" \\ word'), top=1e300, lr=0.1
):
    """Odd

    things: "quotes" at its end"
    """
    m = m + where(g > 0, g, -g)  # comments stay
    p = p - lr * (m / top)
    return p, m


CHAIN = chain(
    modifiers.clip_norm,
    renamed(modifiers.clip_global_norm, max_norm="most"),
    only(modifiers.decoupled_decay, ndim=(1, 2), names="*.weight"),
    except_for(modifiers.coupled_decay, names=["a*", "b*"]),
    rules.get("prodigy"),
    renamed(modifiers.ema_weights, a="slow", decay="slowness"),
)


def same(a: Rule, b: Rule) -> bool:
    parts = [(f.masks, f.called, f.states, f.hypers) for f in a] == [
        (f.masks, f.called, f.states, f.hypers) for f in b
    ]
    about = (a.name, a.title, a.source, a.doc) == (b.name, b.title, b.source, b.doc)
    return parts and about and a.outputs == b.outputs and a.hypers == b.hypers


@pytest.mark.parametrize(
    "given",
    [
        *map(rules.get, rules.built_in()),
        CHAIN,
        rule_of(odd),
        renamed(rules.get("adam"), lr="rate"),
        chain(modifiers.clip_value, rules.get("lion"), name="clipped"),
    ],
    ids=lambda given: given.name,
)
def test_the_text_says_the_same(given: Rule) -> None:
    text = text_of(given)
    back = from_text(text)
    assert same(back, given)
    assert text_of(back) == text
    assert from_text(text) is back


def test_the_text_keeps_the_author_s_lines() -> None:
    assert "# comments stay" in text_of(rule_of(odd))
    assert 'd0=Hyper(default=1e-06, allowed="(0, inf)", doc="first d"),' in text_of(rules.get("prodigy"))


def test_an_infinite_default_survives() -> None:
    def endless(p, g, top=Hyper(float("inf"), "(0, inf]"), lr=0.1):
        p = p - lr * minimum(g, top)
        return p

    assert from_text(text_of(rule_of(endless))).hyper("top").default == float("inf")


GOOD = "def mine(p, g, lr=0.1):\n    p = p - lr * g\n    return p\n"


@pytest.mark.parametrize(
    "text",
    [
        "import os\n" + GOOD,
        "from os import system\n" + GOOD,
        "from descend.formula import dialect\n" + GOOD,
        "from descend.formula import rule as print\n" + GOOD,
        "print(1)\n" + GOOD,
        "x = open('/etc/passwd')\n" + GOOD,
        "x = (1).__class__\n" + GOOD,
        "x = 9**9**9**9\n" + GOOD,
        GOOD.replace("0.1", "9**9**9**9"),
        GOOD.replace("0.1", "[x for x in (1,)]"),
        GOOD.replace("lr * g", "eval('1') * g"),
        GOOD.replace("lr * g", "g.real"),
        GOOD.replace("    p = p", "    import os\n    p = p"),
        GOOD.replace("    p = p", "    def sqrt(x):\n        return x\n    p = p"),
        "def sqrt(p, g):\n    p = p - g\n    return p\nx = sqrt(1, 2)\n",
        "lambda: 0\n",
        "def mine(p, g:\n",
        "",
        "x = 1\n",
        "@print\n" + GOOD,
    ],
)
def test_code_is_refused(text: str) -> None:
    assert from_text(GOOD).name == "mine"
    with pytest.raises(UsageError, match="is not a rule as descend keeps it"):
        from_text(text)
