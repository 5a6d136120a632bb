"""The page on a rule of one's own: its programs print what it says, and its file passes the check."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from pathlib import Path

from descend.rules.loading import load
from descend.study.check_formula import behaviour, formula
from descend.study.check_subject import Subject

PAGE = (Path(__file__).parents[2] / "docs" / "own-rules.md").read_text(encoding="utf-8")
_BLOCK = r"```python\n((?:(?!```).)*)```"


def test_the_programs_print_what_the_page_says(tmp_path: Path) -> None:
    found = re.findall(_BLOCK + r"\n\n```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(found) == 3
    for place, (program, said) in enumerate(found):
        file = tmp_path / f"program_{place}.py"
        file.write_text(program, encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_path(str(file))
        assert out.getvalue() == said


def test_the_files_of_the_page_hold_rules(tmp_path: Path) -> None:
    first, second = re.findall(_BLOCK, PAGE, flags=re.DOTALL)[:2]
    for name, text in (("laprop", first), ("clip_global_norm + lion + ema_weights", second)):
        file = tmp_path / "laprop.py"
        file.write_text(text, encoding="utf-8")
        assert load(str(file)).name == name
        subject = Subject(load(str(file)), quick=True)
        assert {f.word for f in (*formula(subject), *behaviour(subject))} <= {"holds", "note"}
