from __future__ import annotations

import re
from pathlib import Path

from report_runs import content, fit_run, visible

import descend.report
from descend.report import compare
from descend.report.read import labelled, read


def three(tmp_path: Path) -> list[Path]:
    sizes = [("single", 1, 1), ("mini", 64, 64), ("full", "full", 1437)]
    return [
        fit_run(tmp_path / name, steps=60, settings={"batch": {"size": size, "taken": taken, "reason": name}})
        for name, size, taken in sizes
    ]


def test_only_settings_that_differ_are_compared(tmp_path: Path) -> None:
    runs = [read(path) for path in three(tmp_path)]
    assert compare.differing(runs) == {"batch.size": [1, 64, "full"], "batch.taken": [1, 64, 1437]}


def test_a_setting_that_one_run_lacks_differs(tmp_path: Path) -> None:
    runs = [
        read(fit_run(tmp_path / "a", steps=5)),
        read(
            fit_run(tmp_path / "b", steps=5, settings={"schedule": {"lr": "cosine"}, "run": {"descend": "9"}})
        ),
    ]
    assert compare.differing(runs) == {"schedule.lr": [None, "cosine"]}


def test_settings_of_one_rule_share_a_column(tmp_path: Path) -> None:
    settings = {"rule": {"momentum": 0.9, "nesterov": True}}
    runs = [fit_run(tmp_path / "a", steps=5, settings=settings), fit_run(tmp_path / "b", steps=5)]
    table = compare.table([read(run) for run in runs])
    assert "momentum 0.9, nesterov yes" in table
    assert "rule.momentum" not in table


def test_the_table_has_a_row_for_each_run(tmp_path: Path) -> None:
    page = descend.report.write(three(tmp_path))
    table = re.search(r'<table class="comparison">.*?</table>', page.read_text("utf-8"), re.S)
    assert table is not None
    rows = [re.sub(r"<[^>]+>", "|", row) for row in table[0].split("<tr>")[1:]]
    assert len(rows) == 4
    assert "batch.size" in rows[0]
    assert "model.name" not in rows[0]
    for row, name, size in zip(rows[1:], ("single", "mini", "full"), ("1", "64", "full"), strict=True):
        cells = [cell for cell in row.split("|") if cell]
        assert cells[:2] == [name, size]
        assert "Epoch limit" in cells
        assert "0.9778" in cells


def test_every_run_has_its_curves_and_its_reason(tmp_path: Path) -> None:
    page = descend.report.write(three(tmp_path))
    found = content(page)
    assert [run["label"] for run in found["runs"]] == ["single", "mini", "full"]
    assert all("loss" in run["series"] for run in found["runs"])
    text = visible(page)
    assert "3 runs side by side" in text
    assert text.count("Stopped after 3 epochs, as asked.") == 3
    assert text.count("Kingma and Ba 2015") == 1


def test_runs_of_one_name_are_told_apart_by_their_places(tmp_path: Path) -> None:
    runs = [read(fit_run(tmp_path / place / "run", steps=2)) for place in ("a", "b")]
    assert [run.label for run in labelled(runs)] == ["a/run", "b/run"]
    assert [run.label for run in labelled([runs[0], runs[0]])] == ["run (1)", "run (2)"]


def test_equal_runs_are_said_to_be_equal(tmp_path: Path) -> None:
    runs = [fit_run(tmp_path / name, steps=3) for name in ("a", "b")]
    assert "The configurations do not differ." in visible(descend.report.write(runs))
