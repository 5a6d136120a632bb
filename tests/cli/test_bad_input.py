"""What bad input gets: the exit code, and one paragraph that names what was given, allowed and to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from descend.cli import main

GOOD = "a,b,y\n" + "".join(f"{i},{i % 3},{2 * i + 1}\n" for i in range(40))
OWN = """
import torch

def without_parameters():
    return torch.nn.Identity(), None, (torch.ones(8, 1), torch.ones(8, 1))

def frozen():
    model = torch.nn.Linear(1, 1)
    model.requires_grad_(False)
    return model, None, (torch.ones(8, 1), torch.ones(8, 1))

def broken():
    return 1 / 0
"""
FILES = {
    "good.csv": GOOD,
    "ragged.csv": GOOD + "1,2,3,4\n",
    "nan_label.csv": GOOD + "1,2,\n",
    "text.csv": GOOD + "1,two,3\n",
    "empty.csv": "a,b,y\n",
    "nothing.csv": "",
    "single.csv": "a,b,y\n1,2,3\n",
    "own.py": OWN,
    "typo.toml": "[stop]\nepoch = 3\n",
    "a_file": "not a run\n",
}
SHORT = ["--target", "y", "--steps", "2"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "latin.csv").write_bytes(b"stadt,y\n" + "Köln,1\nMünchen,2\n".encode("latin-1") * 20)
    (tmp_path / "not_a_run").mkdir()
    (tmp_path / "not_a_run" / "letter.txt").write_text("dear")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("fit ragged.csv --target y", 3, ["ragged.csv", "42", "4"]),
        ("fit nan_label.csv --target y", 3, ["'y'", "row 41", "line 42"]),
        ("fit text.csv --target y", 3, ["'b'", "row 41", "two"]),
        ("fit empty.csv --target y", 3, ["empty.csv"]),
        ("fit nothing.csv --target y", 3, ["nothing.csv"]),
        ("fit single.csv --target y", 3, ["single sample", "validation=0"]),
        ("fit latin.csv --target y", 3, ["latin.csv", "--encoding"]),
        ("fit good.csv --target price", 3, ["'price'", "a, b, y"]),
        ("fit good.csv", 2, ["target"]),
        ("fit nowhere.csv --target y", 3, ["nowhere.csv"]),
        ("fit digit", 3, ["digits"]),
        ("fit", 2, ["nothing to fit"]),
        ("fit good.csv --target y --lr -1", 2, ["lr", "-1"]),
        ("fit good.csv --target y --lr nan", 2, ["lr", "nan"]),
        ("fit good.csv --target y --lr fast", 2, ["--lr", "'fast'"]),
        ("fit good.csv --target y --batch 0", 2, ["--batch", "1 or more, full or auto"]),
        ("fit good.csv --target y --batch ful", 2, ["--batch", "'ful'"]),
        ("fit good.csv --target y --rule adm", 2, ["'adm'", "did you mean 'adam'?"]),
        ("fit good.csv --target y --model mpl", 2, ["'mpl'", "'mlp'"]),
        ("fit good.csv --target y --set rule.beta=0.5", 2, ["'beta'", "beta"]),
        ("fit good.csv --target y --schedule cosin", 2, ["cosin", "cosine"]),
        ("fit good.csv --target y --epochs 0", 2, ["epochs"]),
        ("fit good.csv --target y --validation 1.5", 2, ["validation", "1.5"]),
        ("fit good.csv --target y --checkpoint-every often", 2, ["often"]),
        ("fit good.csv --target y --config typo.toml", 2, ["stop.epoch", "stop.epochs"]),
        ("fit good.csv --target y --stepps 3", 2, ["--stepps", "--steps"]),
        ("fit good.csv --target y --out not_a_run", 5, ["not_a_run"]),
        ("fit good.csv --target y --out a_file", 5, ["a_file"]),
        ("fit own.py:without_parameters --steps 2", 2, ["parameter"]),
        ("fit own.py:frozen --steps 2", 2, ["gradient"]),
        ("fit own.py:broken", 1, ["own.py, line 13", "ZeroDivisionError"]),
        ("fit own.py:brokn", 2, ["'brokn'", "'broken'"]),
        ("fit --resume nowhere", 5, ["nowhere"]),
        ("fit --resume not_a_run", 5, ["not_a_run"]),
        ("fit good.csv --resume not_a_run", 2, ["--resume", "SOURCE"]),
        ("minimize rosenbrok --start 1,1", 2, ["rosenbrok", "rosenbrock"]),
        ("minimize x**2 --start one", 2, ["--start one"]),
        ("minimize x**2+import --start 1", 2, ["import"]),
        ("minimize", 2, ["nothing to descend"]),
        ("predict not_a_run good.csv", 5, ["not_a_run"]),
        ("report not_a_run", 5, ["not_a_run"]),
        ("report", 2, ["RUN"]),
        ("show adm", 2, ["'adm'", "'adam'"]),
        ("fitt digits", 2, ["'fitt'", "'fit'"]),
    ],
)
def test_bad_input(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: int, said: list[str]
) -> None:
    assert main(arguments.split()) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("descend: error: ")
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    for words in said:
        assert words in captured.err
    assert captured.out == ""
    assert not (folder / "runs").exists() or not any((folder / "runs").iterdir()), "a run directory was left"


def test_debug_shows_where(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "own.py:broken", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_batch_larger_than_the_set_is_clipped_with_a_note(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "good.csv", *SHORT, "--batch", "1000", "--out", "r"]) == 0
    assert "note: " in capsys.readouterr().err
