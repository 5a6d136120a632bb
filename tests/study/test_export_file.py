"""The exported file as such: it needs no descend, is formatted, and the command and the book show it."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from export_rules import RULES

from descend.formula import Rule
from descend.study import export


def test_the_file_runs_where_there_is_no_descend(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["descend"] = None  # as if it were not installed
try:
    import descend
except ImportError:
    print("no descend")
import torch
from prodigy import Prodigy
w = torch.tensor([3.0, -2.0], requires_grad=True)
optimizer = Prodigy([w])
for _ in range(200):
    optimizer.zero_grad()
    (w**2).sum().backward()
    optimizer.step()
print(bool(w.abs().max() < 0.1), any(name.startswith("descend.") for name in sys.modules))
"""
    (tmp_path / "prodigy.py").write_text(export("prodigy"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split("\n")[:2] == ["no descend", "True False"], done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_file_imports_no_descend(rule: Rule) -> None:
    text = export(rule)
    imports = re.findall(r"^\s*(?:from|import) .*", text.partition('\n"""\n')[2], re.MULTILINE)
    allowed = {"__future__", "collections.abc", "contextlib", "math", "torch", "typing"}
    assert {line.split()[1] for line in imports} <= allowed


def test_the_files_are_formatted_and_clean(tmp_path: Path) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    assert ruff, "ruff is one of the development tools"
    for k, rule in enumerate(RULES):
        (tmp_path / f"rule_{k}.py").write_text(export(rule), encoding="utf-8")
    for command in (["check", "--select=E4,E7,E9,F,I,UP,RET,PIE,C4"], ["format", "--diff"]):
        done = subprocess.run(
            [ruff, *command, "--isolated", "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_writes_a_file_or_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from descend.cli import main

    assert main(["export", "lion", "--out", str(tmp_path / "lion.py")]) == 0
    assert (tmp_path / "lion.py").read_text(encoding="utf-8") == export("lion")
    capsys.readouterr()
    assert main(["export", "lion"]) == 0
    assert capsys.readouterr().out == export("lion")
    assert main(["export", "lion", "--out", str(tmp_path / "none" / "lion.py")]) == 5
    assert "cannot be written" in capsys.readouterr().err
    assert main(["export", "liom"]) == 2


def test_the_book_shows_what_is_written() -> None:
    book = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    shown = book.split("```python\n")[1].split("\n```")[0]
    assert shown in export("lamb")


@pytest.mark.parametrize("name", ["analyse", "export", "export_layout"])
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"descend.study.{name}"))
    assert (found.failed, found.attempted > 0) == (0, True)
