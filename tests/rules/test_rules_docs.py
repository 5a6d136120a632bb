"""The pages about the rules: drawn from the rules, and every number and program in them right."""

from __future__ import annotations

import contextlib
import io
import math
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rule_checks import DTYPES
from rule_lines import MEASURED

from descend import rules

DOCS = Path(__file__).parents[2] / "docs"
LESSONS = ["averages.md", "learning-rate-decay.md"]
KINDS: str = runpy.run_path(str(DOCS / "build_kinds.py"))["page"]()
PAGES: dict[str, str] = runpy.run_path(str(DOCS / "build_rules.py"))["pages"]()


def stale(folder: Path, pages: dict[str, str]) -> list[str]:
    """The names of files that are missing, out of date, or of no rule."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in {*there, *pages} if there.get(name) != pages.get(name))


def programs(text: str) -> list[tuple[str, str]]:
    """Every program of a page and the output that the page gives for it."""
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.DOTALL)


def outputs(text: str) -> list[tuple[str, str]]:
    """What the programs of a page print, run one after the other, beside what the page says."""
    space: dict[str, Any] = {}
    found = []
    for program, printed in programs(text):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(program, "<page>", "exec"), space)
        found.append((out.getvalue(), printed))
    return found


def test_the_pages_are_as_the_rules_are_now() -> None:
    assert stale(DOCS / "rules", PAGES) == [], "run: python docs/build_rules.py"


def test_the_page_of_kinds_is_as_the_rules_are_now() -> None:
    assert (DOCS / "kinds.md").read_text(encoding="utf-8") == KINDS, "run: python docs/build_kinds.py"
    rows = [line for line in KINDS.splitlines() if line.startswith("| [")]
    assert len(rows) == len(PAGES) - 1
    assert {line.count(" |") for line in rows} == {11}
    cells = [[cell.strip() for cell in line.split("|")[-3:-1]] for line in rows]
    assert all(re.fullmatch(r"([\d.]+ \(.+\))?", peer) for peer, _ in cells)
    assert all(re.fullmatch(r"[\d.]*", adamw) for _, adamw in cells)
    assert sum(peer != "" for peer, _ in cells) > 15


def test_the_page_of_dialects_is_as_the_rules_are_now() -> None:
    space = runpy.run_path(str(DOCS / "build_dialects.py"))
    text = (DOCS / "dialects.md").read_text(encoding="utf-8")
    assert text == space["page"](), "run: python docs/build_dialects.py"
    wanted = {
        (name, word)
        for name in rules.built_in()
        for word in rules.get(name).dialects
        if word != "torch" and (name, word) != ("muon", "paper")  # which is the rule itself
    }
    assert set(space["measured"]()) == wanted
    assert all(
        float(ours) < (1e-8 if name == "muon" else 1e-12)  # the others add eps to the length
        for (name, _), (ours, _) in space["measured"]().items()
        if "fact" not in name
    )


def test_a_stale_page_is_seen(tmp_path: Path) -> None:
    for name, text in PAGES.items():
        (tmp_path / name).write_text(text.replace("beta1**t", "beta1"), encoding="utf-8")
    (tmp_path / "gone.md").write_text("", encoding="utf-8")
    (tmp_path / "rprop.md").unlink()
    assert {"adam.md", "gone.md", "rprop.md"} <= set(stale(tmp_path, PAGES))


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_link_of_a_page_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+\.md)\)", PAGES[name]):
        assert (DOCS / "rules" / target).exists(), target


@pytest.mark.parametrize("name", LESSONS)
def test_the_programs_of_a_lesson_print_what_it_says(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    assert text.count("```python") == len(programs(text)) >= 4
    for printed, said in outputs(text):
        assert printed == said


def test_a_wrong_output_is_seen() -> None:
    [(printed, said)] = outputs("```python\nprint(1 + 1)\n```\n\n```text\n3\n```")
    assert printed != said


def ratios(text: str) -> dict[tuple[str, str], list[float]]:
    """Ours over torch's best, mean and largest, by rule and dtype; empty where torch has no such rule."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:2] == "| "
    ]
    return {
        (row[0], row[1]): [float(x) for x in row[3].split(" / ")] if row[3] != "–" else []
        for row in rows
        if row[1] != "dtype"
    }


def test_the_table_of_accuracy_is_whole_and_no_step_in_it_is_less_exact_than_torch_s() -> None:
    step, run = map(
        ratios, (DOCS / "accuracy.md").read_text(encoding="utf-8").split("## A step")[1].split("## A run")
    )
    wanted = {(line.name, str(dtype).removeprefix("torch.")) for line in MEASURED for dtype in DTYPES}
    assert set(step) == set(run) == wanted
    assert all(not pair or (pair[0] <= 1.0 and pair[1] <= 1.0) for pair in step.values())
    assert all(not pair or pair[0] <= 1.01 for pair in run.values())


def uncorrected(t: Any) -> Any:
    return (1 - 0.9**t) / np.sqrt(1 - 0.999**t)


def test_the_numbers_in_the_text_about_averages() -> None:
    text = " ".join((DOCS / "averages.md").read_text(encoding="utf-8").split())
    steps = np.arange(1, 10_000)
    sizes = uncorrected(steps)
    within = int(steps[sizes > 1.01].max()) + 1
    claims = [
        f"hold {1 - 0.9**10:.1%} of the weight for beta = 0.9, and {1 - 0.999**1000:.1%} for 0.999",
        f"at 0.9 that is {0.1 / 1.9:.4f}, so its size shrinks to {math.sqrt(0.1 / 1.9):.0%}",
        f"{0.9 / (1 - 0.9):.0f} at beta = 0.9.",
        f"(1 − beta1)/√(1 − beta2) = {uncorrected(1):.2f} times lr",
        f"at t = {steps[sizes.argmax()]}, is {sizes.max():.2f} times lr",
        f"only after {round(within, -2)} steps is the step within 1% of lr",
        f"its first step is {1 / math.sqrt(1 - 0.99):.1f} times lr",
        f"wrong by {abs(float(np.float32(0.999)) - 0.999):.1e} of v",
        f"{0.1 * (1 - 0.9):.2f} there is 0.1 here",
    ]
    assert [claim for claim in claims if claim not in text] == []
