"""The README and the examples: commands parse, programs run, the first two blocks are as agreed."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest

from descend.cli.app import State, group

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path) -> list[tuple[str, str]]:
    """Every fenced block of a Markdown file: its kind and what stands in it."""
    return [(match["kind"], match["body"]) for match in _FENCE.finditer(path.read_text(encoding="utf-8"))]


README = blocks(ROOT / "README.md")
PROGRAMS = [
    body
    for path in ("README.md", "docs/formulas.md", "docs/chains.md")
    for kind, body in blocks(ROOT / path)
    if kind == "python"
]
BOOK = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line
        for path in BOOK
        for kind, body in blocks(path)
        if kind == "sh"
        for line in body.splitlines()
        if line.startswith("descend ")
    }
)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_the_first_two_blocks_are_the_main_job_and_the_tests() -> None:
    (kind, job), (other, tests) = README[:2]
    assert kind == other == "sh"
    for line in (job, tests):
        assert line.count("\n") == 1
        environment, install, *_ = line.split(" && ")
        assert environment == "python3 -m venv .venv"
        assert install.startswith(".venv/bin/pip install -q -c constraints.txt -e ")
    assert job.strip().endswith('".[all]" && .venv/bin/descend fit digits')
    assert tests.strip().endswith('".[dev]" && .venv/bin/python -m pytest')


def test_there_is_something_to_run() -> None:
    assert len(PROGRAMS) >= 3
    assert len(EXAMPLES) >= 3
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("program", PROGRAMS, ids=[f"program{n + 1}" for n in range(len(PROGRAMS))])
def test_every_program_of_the_readme_and_of_the_page_on_formulas_runs(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "program.py"  # a file, since a rule's formula is read from its source
    path.write_text(program)
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_every_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_book_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    with group.make_context("descend", list(words), obj=State()) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None, name
        assert isinstance(command, click.Command)
        command.make_context(name, rest, parent=context)


def test_links_lead_somewhere() -> None:
    for path in [*BOOK, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_book_names_every_page_and_example() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for path in [*(ROOT / "docs").glob("*.md"), *EXAMPLES]:
        assert path.name == "index.md" or f"{path.name})" in index, f"docs/index.md does not name {path.name}"
