"""The benchmark scripts run end to end; what their smoke runs print has the structure of the real tables."""

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def smoke(script: str, out: Path, *options: str) -> str:
    """The report of a smoke run, as written to its file; it must equal what was printed."""
    result = subprocess.run(
        [sys.executable, str(FOLDER / script), "--smoke", "--out", str(out), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    written = out.read_text(encoding="utf-8")
    assert written == result.stdout
    return written


def tables(report: str) -> list[list[list[str]]]:
    """All tables of a report as rows of cells, the head first, the ruler left out."""
    found: list[list[list[str]]] = []
    inside = False
    for line in report.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            if not line.startswith("|---"):
                found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        inside = line.startswith("|")
    for one in found:
        assert len({len(row) for row in one}) == 1, one
    return found


@pytest.fixture(scope="module")
def step_report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return smoke("step.py", tmp_path_factory.mktemp("step") / "step.md", "--threads", "1")


def test_step_has_a_row_for_every_contender_even_when_it_is_missing(step_report: str) -> None:
    bare, between, *_ = tables(step_report)
    for rows in (bare, between):
        assert rows[0] == ["", "9k in 6", "300 × 32", "1M", "16M"]
        named = {row[0]: row[1:] for row in rows[1:]}
        assert {"descend", "torch fused", "torch foreach", "torch for-loop", "torch.compile"} < set(named)
        assert {"HeavyBall AdamW", "DeepSpeed CPUAdam", "optax.adam, jit"} < set(named)
        for name, cells in named.items():
            for cell in cells:
                assert cell.startswith("– ") or " (" in cell, (name, cell)
                assert cell != "– ", f"{name} is missing without a reason"


def test_step_times_passes_bandwidth_and_every_rule(step_report: str) -> None:
    _, _, passes, memory, rules, targets = tables(step_report)
    assert {row[0] for row in passes[1:]} >= {"descend", "torch fused"}
    assert all("1.00×" in cell for row in passes if row[0] == "torch fused" for cell in row[1:])
    assert [row[0] for row in memory[1:]] == [
        "descend",
        "descend, no arithmetic",
        "torch.add(out=)",
        "torch fused",
    ]
    assert [row[0] for row in rules[1:]][:2] == ["Adam", "AdamW"]
    assert len(rules) > 10
    assert targets[0] == ["target", "asked", "measured", "verdict"]
    asked = {row[0].split(",")[0]: row[1] for row in targets[1:]}
    assert asked["Adam against its loads and stores"] == "≥ 0.9×"
    assert {row[3] for row in targets[1:]} <= {"pass", "miss", "undecided: disturbed"}


def test_startup_reports_cold_warm_and_import(tmp_path: Path) -> None:
    times, imports, targets = tables(smoke("startup.py", tmp_path / "startup.md"))
    assert [row[0] for row in times[1:]] == ["adam", "torch.optim.Adam"]
    assert imports[0] == ["import torch", "import descend"]
    assert [row[1] for row in targets[1:]] == ["< 2 s", "< 0.6 s", "< 0.3 s"]


def test_transformer_trains_the_same_curve_with_one_word_changed(tmp_path: Path) -> None:
    report = smoke("transformer.py", tmp_path / "transformer.md")
    shares, curve = tables(report)
    assert [row[0] for row in shares[1:]] == [
        "torch.optim.AdamW",
        "descend.AdamW",
        "torch.optim.AdamW(fused=True)",
    ]
    assert float(curve[-1][1]) < float(curve[1][1])
    for _, theirs, ours, _ in curve[1:]:
        assert abs(float(theirs) - float(ours)) < 5e-4  # rounding alone, over 30 steps, gave less than 1e-4
    assert report.rstrip().endswith(": the same curve.")


def test_the_ceiling_has_a_row_for_every_rule_without_a_fused_path(tmp_path: Path) -> None:
    found, *two_passes = tables(smoke("ceiling.py", tmp_path / "ceiling.md"))
    assert [row[0] for row in found[1:]] == [
        "RMSprop",
        "RMSprop, centred, momentum",
        "Adamax",
        "NAdam",
        "RAdam",
        "Adadelta",
        "ASGD",
    ]
    for row in found[1:]:
        assert row[1].endswith(("(foreach)", "(for-loop)"))
        assert all(cell.endswith("×") for cell in row[2:])
    for each in two_passes:
        assert [row[0] for row in each[1:]] == ["lamb", "clip_global_norm, adamw"]
        assert all(cell.endswith("×") for row in each[1:] for cell in row[3:5])
        assert [row[5][-1] for row in each[1:]] == ["–", "×"]


def test_apart_judges_the_bars_that_are_against_one_other(tmp_path: Path) -> None:
    (found,) = tables(smoke("apart.py", tmp_path / "apart.md", "--sizes", "16M", "--threads", "1"))
    whole = "clip_global_norm, adamw, 16M, "
    assert [row[0] for row in found[1:]] == [
        "clip_value, adamw, cautious_unscaled, ema_weights, 16M, in times of our AdamW",
        "adamw, cautious, 16M, in times of our AdamW",
        f"{whole}in times of our AdamW",
        f"{whole}against torch: clip_grad_norm_, fused AdamW",
        "lamb, 16M, in times of our AdamW",
    ]
    assert all("× (" in row[2] and row[3] for row in found[1:])


def test_kinds_has_a_row_for_every_rule_and_size_and_judges_the_bars(tmp_path: Path) -> None:
    chain = "clip_global_norm, adamw"
    options = ["--threads", "1", "--only", "lion", "adafactor", chain, "muon"]
    found = tables(smoke("kinds.py", tmp_path / "kinds.md", *options))
    bars, lion, adafactor, clipped, muon, first = found
    for rows in (lion, adafactor, clipped, muon):
        assert rows[0][:6] == ["rule", "size", "ours", "in AdamW's", "best peer", "over ours"]
        assert all(" (" in row[2] and "× (" in row[3] for row in rows[1:])
    for rows in (lion, adafactor, clipped):
        assert [row[1] for row in rows[1:]] == ["300 × 32", "100 of 256 × 256", "1M", "1M, swept", "16M"]
    assert [row[1] for row in muon[1:]][-2:] == ["64 of 64 × 64", "150 of 32 × 32"]
    for row in adafactor[1:]:
        named = f"{row[4]} {row[6]}"
        assert all(peer in named for peer in ("torch foreach", "torch for-loop", "optax, jit"))
        assert "– left out of a smoke run" in row[6]
    asked = {row[0].split(", against")[0].split(", in times")[0] + row[1][0]: row[1] for row in bars[1:]}
    assert asked["clip_global_norm, adamw, 16M≤"] == "≤ 1.25×"
    assert asked["clip_global_norm, adamw, 16M≥"] == "≥ 1.3×"
    assert asked["clip_global_norm, adamw, 1M, swept≤"] == "≤ 1.25×"
    assert asked["lion, 300 × 32≥"] == "≥ 1×"
    assert asked["muon, 2048 × 2048≥"] == "≥ 0.95×"
    verdicts = {"reached", "not reached", "undecided: disturbed", "not measured"}
    assert {row[3] for row in bars[1:]} <= verdicts
    assert [row[0] for row in first[1:]] == ["adamw, descend"]


def test_a_process_that_ends_meanwhile_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = runpy.run_path(str(FOLDER / "_timing.py"))

    def ended(path: Path) -> list[str]:
        raise FileNotFoundError(path)

    assert timing["_others"]() >= 0
    monkeypatch.setattr("os.listdir", ended)
    assert timing["_others"]() == 0


def test_a_bar_is_reached_on_its_own_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    kinds = runpy.run_path(str(FOLDER / "kinds.py"))
    times = {"descend": [2.0] * 5, "descend AdamW": [1.0] * 5, "slow": [9.0] * 5, "quick": [3.0] * 5}
    measured = kinds["Measured"](times, rounds=5, kept=5)

    def verdict(against: str, limit: float) -> str:
        case = kinds["Case"]("lamb", "reduction", "1M", measured, 1)
        return str(kinds["judged"](kinds["Bar"]("lamb", ("1M",), against, limit), case)[3])

    assert verdict("descend AdamW", 2.0) == "reached"
    assert verdict("descend AdamW", 1.9) == "not reached"
    assert verdict(kinds["BEST"], 1.5) == "reached"
    assert verdict(kinds["BEST"], 1.6) == "not reached"
    assert verdict("slow", 4.5) == "reached"
    assert verdict("absent", 0.1) == "not measured"
    measured.disturbed = 1
    assert verdict("descend AdamW", 2.0) == "undecided: disturbed"


def test_rounds_in_which_others_ran_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = runpy.run_path(str(FOLDER / "_timing.py"))
    shares = iter([0.5, 0.0, 0.0, 0.031] + [1.0, 1.0] * 3 + [0.029] * 10_000)  # two a round
    monkeypatch.setattr(timing["Disturbance"], "share", lambda self: next(shares))
    contenders = [timing["Contender"](name, lambda: time.sleep(0.001)) for name in "ab"]
    found = timing["rounds"](contenders, 0.0, 0.001)
    assert (found.rounds, found.kept, found.disturbed) == (5, 5, 5)
    shares = iter([0.5, 0.0, 0.0, 0.031] + [1.0, 1.0] * 3 + [0.029] * 10_000)
    found = timing["rounds"](contenders, 0.5, 0.001)  # has patience until five were quiet
    assert found.kept == len(found.step["a"]) == found.rounds - 5
    assert found.disturbed == 0


def test_measurements_of_several_layouts_are_joined_round_by_round() -> None:
    timing = runpy.run_path(str(FOLDER / "_timing.py"))
    parts = [timing["Measured"]({"a": [k, k + 1.0]}, {"a": [0.0, 0.0]}, 3, 2, 1) for k in (1.0, 5.0)]
    whole = timing["joined"](parts)
    assert whole == timing["Measured"]({"a": [1.0, 2.0, 5.0, 6.0]}, {"a": [0.0] * 4}, 6, 4, 2)
