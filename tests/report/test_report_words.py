from __future__ import annotations

import math
import re
import xml.etree.ElementTree as tree

import pytest

from descend import rules
from descend.report import typeset, words


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1150, "1,150"),
        (0.01, "0.01"),
        (-2.5, "−2.5"),
        (1e-8, "1×10⁻⁸"),
        (-1.5e12, "−1.5×10¹²"),
        (math.nan, "NaN"),
        (-math.inf, "−infinite"),
        (None, "–"),
        (True, "yes"),
        ([64, 0.5], "64, 0.5"),
        ("full", "full"),
    ],
)
def test_numbers_are_for_reading(value: object, said: str) -> None:
    assert words.number(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0421, "42 ms"), (59.96, "60.0 s"), (75, "1 min 15 s"), (7265, "2 h 1 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_every_reason_of_the_record_has_words() -> None:
    limits = {"step_limit", "epoch_limit", "time_limit"}
    known = limits | {"converged", "no_progress", "target", "diverged", "interrupted"}
    assert set(words.REASONS) == known
    assert words.verdict({"reason": "of tomorrow"})[0] == "of tomorrow"
    assert words.verdict(None)[0] == "No result yet"


@pytest.mark.parametrize(
    ("line", "mathml"),
    [
        ("a = b * c", '<mi>b</mi><mspace width="0.17em"/><mi>c</mi>'),
        ("a = (b + c) * d", "<mo>(</mo><mrow><mi>b</mi><mo>+</mo><mi>c</mi></mrow><mo>)</mo>"),
        ("a = b - (c - d)", "<mi>b</mi><mo>−</mo><mrow><mo>(</mo><mrow><mi>c</mi><mo>−</mo><mi>d</mi>"),
        ("a = b / (c + d)", "<mfrac><mrow><mi>b</mi></mrow><mrow><mrow><mi>c</mi><mo>+</mo><mi>d</mi>"),
        ("a = beta1**t", "<msubsup><mi>β</mi><mrow><mn>1</mn></mrow><mrow><mi>t</mi></mrow></msubsup>"),
        ("a = (-b)**2", "<msup><mrow><mo>(</mo><mrow><mo>−</mo><mi>b</mi></mrow><mo>)</mo></mrow>"),
        (
            "m_hat = sqrt(v)",
            '<mover accent="true"><mi>m</mi><mo>^</mo></mover><mo>←</mo><msqrt><mi>v</mi></msqrt>',
        ),
        (
            "a = where(b > 0, c, d)",
            '<mi mathvariant="normal">where</mi><mo>(</mo><mrow><mi>b</mi><mo>&gt;</mo>',
        ),
        ("a = lr * abs(g)", "<mi>lr</mi>"),
        ('a = mean(g, "rows")', "<mi>g</mi><mo>,</mo><mtext>rows</mtext>"),
        ("a = global_norm(g)", '<mi mathvariant="normal">global norm</mi><mo>(</mo>'),
    ],
)
def test_a_line_is_set_as_mathematics(line: str, mathml: str) -> None:
    found = typeset.lines(line)
    tree.fromstring(found)
    assert mathml in found


def test_a_line_that_is_no_formula_stands_as_written() -> None:
    assert typeset.lines("if a < b:") == '<div class="formula-line"><code>if a &lt; b:</code></div>'
    assert "<code>a = f(x=1)</code>" in typeset.lines("a = f(x=1)  # <note>")
    assert "&lt;note&gt;" in typeset.lines("a = f(x=1)  # <note>")


@pytest.mark.parametrize("name", rules.built_in())
def test_every_rule_can_be_set(name: str) -> None:
    found = typeset.lines(rules.get(name).formula_text)
    for line in found.splitlines():
        tree.fromstring(line)
    assert "<math" in found
    assert not re.search("<code>", found)
