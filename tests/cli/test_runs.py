"""Whole runs through the command line: what is said, what is written, and that it can be had again."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from descend import record, report
from descend.cli import main

# The tests of a directory share its conftest; its names are imported for the types only.
Command = Any

SHORT = "fit iris --model softmax --epochs 3 --seed 1"
OWN = """
import torch
from safetensors.torch import load_file, save_file

def make():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64).unsqueeze(1)
    return torch.nn.Linear(1, 1), torch.nn.functional.l1_loss, (x, 3 * x)
"""


def same_files(one: Path, other: Path, *names: str) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_fit_says_how_it_ended_and_where_everything_is(descend: Command, tmp_path: Path) -> None:
    said = descend(SHORT)
    assert said.code == 0
    assert said.out.startswith("stopped: the limit of 3 epochs was reached.\n3 epochs, 6 steps in ")
    for words in ("training loss ", "held-out loss ", "accuracy ", "runs/iris\n", "runs/iris/report.html"):
        assert words in said.out
    assert "iris: epoch 1 of 3  loss " in said.err
    run = tmp_path / "runs" / "iris"
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!")
    held_out = (record.read(run).result or {})["metrics"]["accuracy"]
    assert f"accuracy {100 * held_out:.2f} %" in said.out
    assert "runs/iris-2\n" in descend(SHORT).out


def test_quiet_says_only_where(descend: Command) -> None:
    said = descend([*SHORT.split(), "--quiet"])
    assert (said.code, said.out, said.err) == (0, "runs/iris\n", "")


def test_the_recorded_configuration_runs_it_again(descend: Command, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "a,b,y\n" + "".join(f"{i % 7},{'xyz'[i % 3]},{i % 5}.5\n" for i in range(80))
    )
    line = (
        "fit t.csv --target y --validation 0.3 --model mlp --set model.hidden=[8,4] --init xavier_normal "
        "--rule momentum --lr 0.02 --set rule.momentum=0.8 --schedule cosine --clip-norm 1 --batch 16 "
        "--schedule momentum=polynomial(0.8,total=12,end=0.5) --epochs 4 --patience 3 --seed 5 "
        "--checkpoint-every 5 --out one"
    )
    assert descend(line).code == 0
    said = descend("fit --config one/config.toml --out two")
    assert said.code == 0, said.err
    one, two = tmp_path / "one", tmp_path / "two"
    assert same_files(one, two, "history.jsonl", "final.safetensors", "best.safetensors", "data.json")
    first, second = record.read(one).config, record.read(two).config
    del first["choices"], second["choices"]  # what was chosen the first time was asked for the second time
    assert first == second
    assert descend("fit --config one/config.toml --out three --seed 6").code == 0
    assert not same_files(one, tmp_path / "three", "history.jsonl")


def test_divergence_is_exit_4_and_leaves_a_complete_run(descend: Command, tmp_path: Path) -> None:
    said = descend("fit diabetes --model linear --rule gradient_descent --lr 1e6 --epochs 50 --out r")
    assert said.code == 4
    assert said.out.startswith("diverged: the ")
    assert "step" in said.out
    for name in ("result.json", "best.safetensors", "report.html", "config.toml", "history.jsonl"):
        assert (tmp_path / "r" / name).is_file()


def test_an_own_file_fits_predicts_and_is_found_from_elsewhere(
    descend: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    assert descend("fit mine.py:make --rule adam --lr 0.1 --epochs 30 --out r").code == 0
    result = record.read(tmp_path / "r").result or {}
    assert result["validation_loss"] < 0.5  # from about 1.5: its own loss, and the model learns
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = descend("fit --resume ../r")
    assert said.code == 0, said.err
    assert "the limit of 30 epochs" in said.out
    (tmp_path / "new.csv").write_text("x\n0.5\n-0.5\n")
    said = descend("predict ../r ../new.csv")
    assert said.code == 0, said.err
    half, minus = (float(line) for line in said.out.splitlines()[1:])
    assert half == pytest.approx(1.5, abs=0.3)
    assert minus == pytest.approx(-1.5, abs=0.3)


def test_predictions_of_classes_are_those_of_the_model(descend: Command, tmp_path: Path) -> None:
    rows = [f"{i % 10},{(3 * i) % 7},{'red' if i % 10 > 4 else 'blue'}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,colour", *rows]) + "\n")
    assert descend("fit t.csv --target colour --epochs 60 --lr 0.01 --out r").code == 0
    (tmp_path / "new.csv").write_text("b,a\n1,0\n2,9\n")  # in another order, without the label
    said = descend("predict r new.csv --out p.csv")
    assert (said.code, said.out) == (0, ""), said.err
    assert "2 predictions in p.csv" in said.err
    with (tmp_path / "p.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["prediction"] for row in found] == ["blue", "red"]
    for row in found:
        shares = {name: float(row[f"probability_{name}"]) for name in ("blue", "red")}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
        assert shares[row["prediction"]] > 0.5
    (tmp_path / "bad.csv").write_text("b\n1\n")
    said = descend("predict r bad.csv")
    assert said.code == 3
    assert "'a'" in said.err


def test_predictions_of_numbers_are_in_their_own_unit(descend: Command, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{1000 + 50 * i}\n" for i in range(100)))
    assert descend("fit t.csv --target y --model linear --rule adam --lr 0.05 --epochs 150 --out r").code == 0
    (tmp_path / "new.csv").write_text("x\n10\n90\n")
    said = descend("predict r new.csv")
    header, *values = said.out.splitlines()
    assert header == "prediction"
    assert [float(v) for v in values] == pytest.approx([1500, 5500], rel=0.02)

    best = tmp_path / "r" / "best.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in load_file(best).items()}, best)
    constant = [float(line) for line in descend("predict r new.csv").out.splitlines()[1:]]
    assert constant[0] == constant[1] == pytest.approx(3475, rel=0.1)  # the mean of the training part
    assert descend("predict r new.csv --last").out == said.out


def test_minimize_says_where_it_came_to(descend: Command, tmp_path: Path) -> None:
    said = descend(["minimize", "x**2 + 10*y**2", "--start", "3,1", "--lr", "0.05", "--out", "m"])
    assert said.code == 0
    assert said.out.startswith("stopped: ")
    assert "x = " in said.out
    assert "y = " in said.out
    surface = record.read(tmp_path / "m").surface or {}
    assert surface["path"][0]["x"] == [3.0, 1.0]
    assert descend("minimize --config m/config.toml --out again").code == 0
    assert same_files(
        tmp_path / "m", tmp_path / "again", "history.jsonl", "final.safetensors", "surface.json"
    )


def test_reports_side_by_side(descend: Command, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert descend(f"{SHORT} --out {name}").code == 0
    said = descend("report one two --out both.html")
    assert (said.code, said.out) == (0, "both.html\n")
    assert "two" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_a_failing_report_does_not_cost_the_run(descend: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "write", fail)
    said = descend(SHORT)
    assert said.code == 0
    assert "note: the report could not be written: no ink" in said.err
    assert "report.html" not in said.out


def test_rules_and_show(descend: Command) -> None:
    rows = {line.split()[0]: line for line in descend("rules").out.splitlines()}
    assert "lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08" in rows["adam"]
    assert "Kingma" in rows["adam"]
    shown = descend("show adam").out
    assert "m_hat = m / (1 - beta1**t)" in shown
    assert "back end torch" in shown


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    ("line", "code"), [("rules", 0), (SHORT, 0), (f"{SHORT} --rule gradient_descent --lr 1e30", 4)]
)
def test_a_reader_that_goes_changes_nothing(
    line: str, code: int, descend: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken())
    assert main(line.split()) == code


def test_a_sigterm_saves_and_the_resumed_run_is_the_whole_one(descend: Command, tmp_path: Path) -> None:
    line = ["fit", "digits", "--model", "softmax", "--epochs", "400", "--patience", "1000", "--seed", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "descend.cli", *line, "--out", "cut"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    history = tmp_path / "cut" / "history.jsonl"
    deadline = time.monotonic() + 60
    while not (history.exists() and history.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert out.startswith("interrupted: SIGTERM")
    assert "descend fit --resume cut" in out
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        said = descend("fit --resume cut")
        assert said.code == 0, said.err
        assert "not exact" not in said.err
        assert descend([*line, "--out", "whole"]).code == 0
    finally:
        torch.set_num_threads(threads)
    assert same_files(
        tmp_path / "cut", tmp_path / "whole", "history.jsonl", "final.safetensors", "best.safetensors"
    )
