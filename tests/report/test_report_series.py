from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from report_runs import content, fit_run, visible

from descend.report import series
from descend.report.read import read


def unpacked(packed: object) -> np.ndarray:
    if isinstance(packed, dict):
        return packed["from"] + packed["by"] * np.arange(packed["n"])
    return np.asarray(packed, dtype=float)


def test_extremes_keep_every_spike() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=10_007)
    spikes = random.choice(len(values), 40, replace=False)
    values[spikes[:20]] += 50
    values[spikes[20:]] -= 50
    kept = series.extremes(values, 200)
    assert set(spikes.tolist()) <= set(kept.tolist()) or len(set(spikes // 50)) < 40
    assert values[kept].max() == values.max()
    assert values[kept].min() == values.min()
    assert {0, len(values) - 1} <= set(kept.tolist())
    assert len(kept) <= 2 * 200 + 2
    for start in range(0, 10_000, 1000):
        inside = kept[(kept >= start) & (kept < start + 1000)]
        assert values[inside].max() == values[start : start + 1000].max()


def test_extremes_keep_the_borders_of_what_is_finite() -> None:
    values = np.ones(5000)
    values[1234:1300] = np.nan
    values[4000:] = np.inf
    kept = set(series.extremes(values, 10).tolist())
    assert {1233, 1234, 1299, 1300, 3999, 4000, 4999} <= kept


def test_a_long_record_is_thinned_and_the_page_says_so(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).normal(1.0, 0.01, 30_000)
    losses[17_321], losses[3_003] = 40.0, -2.0
    history = [
        {"step": k, "epoch": k / 100, "loss": float(loss), "lr": 0.1} for k, loss in enumerate(losses, 1)
    ]
    for k in range(1000, 30_001, 1000):
        history[k - 1]["validation_loss"] = k / 1000
    run = fit_run(tmp_path / "run", history=history)
    drawn = series.drawn(read(run), ("loss", "lr", "validation_loss"))
    steps, values = unpacked(drawn["step"]), drawn["series"]["loss"]["v"]
    assert len(steps) == len(values) < 1500
    assert dict(zip(steps.tolist(), values, strict=True))[17_322] == 40
    assert dict(zip(steps.tolist(), values, strict=True))[3_004] == -2
    held = drawn["series"]["validation_loss"]
    assert [steps[place] for place in held["i"]] == list(range(1000, 30_001, 1000))
    assert held["v"] == list(range(1, 31))
    assert drawn["means"]["series"]["loss"][0] == pytest.approx(losses[:100].mean(), rel=1e-4)
    assert drawn["means"]["step"][0] == 50.5
    import descend.report

    page = descend.report.write(run)
    assert "30,000 lines are on record. Drawn are, of each of 300 equal stretches" in visible(page)
    assert page.stat().st_size < 220_000
    assert content(page)["runs"][0]["of"] == 30_000


def test_a_short_record_is_drawn_whole(digits: Path) -> None:
    drawn = series.drawn(read(digits), ("loss", "validation_loss"))
    assert drawn["means"] is None
    assert list(drawn["series"]) == ["loss", "validation_loss"]
    assert drawn["of"] == 0
    assert drawn["step"] == {"from": 1.0, "by": 1.0, "n": 1150}
    assert np.allclose(unpacked(drawn["epoch"]), np.arange(1, 1151) / 23)
    assert len(drawn["series"]["loss"]["v"]) == 1150
    assert len(drawn["series"]["validation_loss"]["v"]) == 50


def test_steps_that_are_no_progression_are_listed(tmp_path: Path) -> None:
    history = [{"step": step, "loss": 1.0} for step in (1, 2, 3, 10, 20)]
    drawn = series.drawn(read(fit_run(tmp_path / "run", history=history)), ("loss",))
    assert drawn["step"] == [1, 2, 3, 10, 20]
    assert drawn["epoch"] is None


def test_a_logarithmic_scale_is_taken_where_it_shows_more() -> None:
    assert series.wants_log(np.asarray([1.0, 0.001, math.nan, math.inf]))
    assert not series.wants_log(np.asarray([1.0, 0.5]))
    assert not series.wants_log(np.asarray([1.0, 0.0, 1e-9]))
    assert not series.wants_log(np.asarray([math.nan]))
