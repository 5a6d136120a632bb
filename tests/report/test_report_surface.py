from __future__ import annotations

import base64
import math
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import content, descent_1d, descent_2d, fit_run, visible

import descend.report
from descend.report import surface
from descend.report.read import read


def pixels(address: str) -> np.ndarray:
    """The palette places of the shading, top row first."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, width + 1)
    assert raw[:, 0].tolist() == [0] + [2] * (height - 1)
    return np.cumsum(raw[:, 1:], axis=0, dtype=np.uint8)


def points(d: str) -> list[np.ndarray]:
    """The vertices of each piece of an SVG path of relative lines."""
    found = []
    for piece in d.split("M")[1:]:
        start, _, moves = piece.partition("l")
        numbers = [int(each) for each in re.findall(r"-?\d+", start + " " + moves)]
        found.append(np.cumsum(np.asarray(numbers).reshape(-1, 2), axis=0))
    return found


def test_contour_lines_lie_where_the_loss_has_their_level(tmp_path: Path) -> None:
    run = read(descent_2d(tmp_path / "run", wide=2.0))
    figure: Any = surface.figure([(0, run)])
    assert figure["dims"] == 2
    assert figure["window"] == [-2.0, 2.0, -2.0, 2.0]
    (grid,) = figure["grids"]
    assert len(grid["lines"]) == surface.LINES
    levels = [line["level"] for line in grid["lines"]]
    assert levels == sorted(levels)
    for line in grid["lines"][4:]:
        at = np.concatenate(points(line["d"])) / grid["units"] * 4 - 2
        loss = at[:, 0] ** 2 + 10 * at[:, 1] ** 2
        # 61 grid points a side interpolate 10 y² to 0.011; levels are written in 3 digits, places in 1/500.
        assert np.abs(loss - line["level"]).max() < 0.012 + 0.005 * line["level"] + 40 * 0.002


def test_the_shading_is_deepest_where_the_loss_is_lowest(tmp_path: Path) -> None:
    x, y = np.linspace(0, 4, 41), np.linspace(0, 2, 21)
    loss = (x[None, :] - 3) ** 2 + (y[:, None] - 0.5) ** 2
    loss[20, 0] = math.nan
    run = descent_2d(
        tmp_path / "run",
        surface={"names": ["a", "b"], "axes": [x.tolist(), y.tolist()], "loss": loss.tolist(), "path": []},
    )
    figure: Any = surface.figure([(0, read(run))])
    shade = pixels(figure["grids"][0]["shade"])
    assert shade.shape == (21, 41)
    row, column = np.unravel_index(shade.argmax(), shade.shape)
    assert (20 - row, column) == (5, 30)
    assert shade[0, 0] == 0
    assert figure["paths"] == []


def test_without_contourpy_the_shading_stays_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "contourpy", None)
    page = descend.report.write(descent_2d(tmp_path / "run"))
    (figure,) = content(page)["surfaces"]
    assert figure["grids"][0]["lines"] == []
    assert figure["grids"][0]["shade"].startswith("data:image/png")
    assert "contour lines need contourpy, which is not installed here" in visible(page)


def test_one_parameter_gives_the_curve_and_a_slope_for_every_step(tmp_path: Path) -> None:
    page = descend.report.write(descent_1d(tmp_path / "run", lr=0.03))
    (figure,) = content(page)["surfaces"]
    assert figure["dims"] == 1
    assert len(figure["curve"]["x"]) == len(figure["curve"]["y"]) == 201
    (path,) = figure["paths"]
    assert path["step"] == {"from": 0.0, "by": 1.0, "n": 26}
    for (x,), loss, (slope,) in zip(path["x"], path["loss"], path["gradient"], strict=True):
        assert loss == pytest.approx((x * x - 1) ** 2 + 0.3 * x, abs=1e-4)
        assert slope == pytest.approx(4 * x * (x * x - 1) + 0.3, abs=1e-3)
    assert "The loss over x , and the way down" in visible(page)


def test_runs_of_one_problem_share_a_surface(tmp_path: Path) -> None:
    same = [descent_2d(tmp_path / "a"), descent_2d(tmp_path / "b", momentum=0.7, lr=0.05, wide=1.0)]
    (figure,) = content(descend.report.write(same))["surfaces"]
    assert [path["run"] for path in figure["paths"]] == [0, 1]
    assert [grid["window"][1] for grid in figure["grids"]] == [2.5, 1.0]
    assert figure["window"] == [-2.5, 2.5, -2.5, 2.5]
    other = descent_1d(tmp_path / "c")
    two = content(descend.report.write([*same, other]))["surfaces"]
    assert [[path["run"] for path in figure["paths"]] for figure in two] == [[0, 1], [2]]


def test_curves_of_one_parameter_are_joined(tmp_path: Path) -> None:
    def run(name: str, low: float, high: float) -> Path:
        axis = np.linspace(low, high, 11)
        line = {"names": ["w"], "axes": [axis.tolist()], "loss": (axis**2).tolist(), "path": []}
        return fit_run(tmp_path / name, surface=line)

    (figure,) = content(descend.report.write([run("a", 0, 1), run("b", 0.5, 3)]))["surfaces"]
    xs = figure["curve"]["x"]
    assert xs == sorted(set(xs))
    assert (xs[0], xs[-1]) == (0, 3)


def test_other_data_is_another_surface(tmp_path: Path) -> None:
    line = {"names": ["w"], "axes": [[0, 1]], "loss": [0, 1], "path": []}
    runs = [
        fit_run(tmp_path / name, surface=line, data={"name": "d", "fingerprint": name}) for name in ("a", "b")
    ]
    assert len(content(descend.report.write(runs))["surfaces"]) == 2


def test_a_long_path_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    page = descend.report.write(descent_2d(tmp_path / "run", steps=5000, lr=0.01))
    (path,) = content(page)["surfaces"][0]["paths"]
    assert len(path["step"]) == surface.POINTS
    assert path["step"][:200] == list(range(200))
    assert path["step"][-1] == 5000
    assert "600 of the 5,001 recorded points of the path are drawn" in visible(page)


def test_a_path_that_leaves_every_bound_can_be_drawn(tmp_path: Path) -> None:
    page = descend.report.write(descent_2d(tmp_path / "run", lr=5.0, steps=200))
    (path,) = content(page)["surfaces"][0]["paths"]
    assert path["x"][0] == [-2, 1.6]
    assert [None, None] in path["x"] or max(abs(x) for x, _ in path["x"]) > 1e100


def test_a_surface_without_a_grid_is_left_out(tmp_path: Path) -> None:
    bare = {"names": ["x", "y"], "path": [{"step": 0, "x": [0, 0], "loss": 1.0, "gradient": [0, 0]}]}
    page = descend.report.write(descent_2d(tmp_path / "run", surface=bare))
    assert content(page)["surfaces"] == []


def test_a_flat_surface_has_no_lines(tmp_path: Path) -> None:
    flat = {"names": ["x", "y"], "axes": [[0, 1], [0, 1]], "loss": [[2, 2], [2, 2]], "path": []}
    (figure,) = content(descend.report.write(descent_2d(tmp_path / "run", surface=flat)))["surfaces"]
    assert figure["grids"][0]["lines"] == []


def test_thinned_lines_stay_on_the_curve() -> None:
    angle = np.linspace(0, 2 * math.pi, 2000)
    circle = 1000 + 900 * np.column_stack((np.cos(angle), np.sin(angle)))
    (kept,) = points(surface._line(circle))
    assert len(kept) < 200
    middles = (kept[1:] + kept[:-1]) / 2
    # 0.7 for what was dropped, and half a unit in each direction for rounding.
    assert np.abs(np.hypot(*(middles - 1000).T) - 900).max() < 0.7 + math.sqrt(0.5)


def own_line(path: Path, low: float, high: float, scale: float) -> Path:
    axis = np.linspace(low, high, 61)
    line = {"names": ["x"], "axes": [axis.tolist()], "loss": (scale * axis**2).tolist(), "path": []}
    run = descent_1d(path, surface=line)
    config = (run / "config.toml").read_text()
    assert "(x**2 - 1)**2 + 0.3*x" in config
    (run / "config.toml").write_text(config.replace("(x**2 - 1)**2 + 0.3*x", "own:f"))
    return run


def test_functions_of_one_name_share_a_surface_only_if_they_agree_on_it(tmp_path: Path) -> None:
    same = [own_line(tmp_path / "a", -2, 2, 1.0), own_line(tmp_path / "b", -1.1, 3.3, 1.0)]
    other, apart = own_line(tmp_path / "c", -2, 2, 1.3), own_line(tmp_path / "d", 5, 6, 1.0)
    assert len(content(descend.report.write(same))["surfaces"]) == 1
    assert len(content(descend.report.write([same[0], other]))["surfaces"]) == 2
    assert len(content(descend.report.write([same[0], apart]))["surfaces"]) == 2


def test_climbing_is_called_the_way_up(tmp_path: Path) -> None:
    run = descent_1d(tmp_path / "run")
    assert "and the way down" in visible(descend.report.write(run))
    config = (run / "config.toml").read_text().replace("[problem]", "[problem]\nmaximize = true")
    (run / "config.toml").write_text(config)
    assert "and the way up" in visible(descend.report.write(run))


def test_a_loss_over_a_part_of_the_samples_says_so(tmp_path: Path) -> None:
    line = {"names": ["w"], "axes": [[0, 1]], "loss": [0, 1], "path": [], "samples": 2000}
    text = visible(descend.report.write(fit_run(tmp_path / "run", surface=line)))
    assert "The loss is that of the first 2,000 training samples." in text


def test_a_coarse_grid_is_refined_without_error_where_the_loss_is_a_parabola() -> None:
    x, y = np.linspace(-1, 2, 7), np.linspace(0, 1, 5)
    z = 3 * x[None, :] ** 2 - x[None, :] * y[:, None] + y[:, None] ** 2
    u, v, w = surface._refined(x, y, z, -10.0)
    assert np.allclose(u, np.linspace(-1, 2, 19))
    assert np.allclose(v, np.linspace(0, 1, 13))
    assert np.allclose(w, 3 * u[None, :] ** 2 - u[None, :] * v[:, None] + v[:, None] ** 2)
    z[2, 3] = math.nan
    assert surface._refined(x, y, z, -10.0)[2] is z


def test_walls_that_no_path_climbed_are_cut_off(tmp_path: Path) -> None:
    (figure,) = content(descend.report.write(descent_1d(tmp_path / "run", lr=0.03)))["surfaces"]
    low, high = figure["window"][2:]
    assert high - low == pytest.approx(1.25 * (9.6 - low))
    assert max(figure["curve"]["y"]) > high


def test_the_scale_begins_at_the_lowest_loss_that_a_path_reached(tmp_path: Path) -> None:
    (figure,) = content(descend.report.write(descent_2d(tmp_path / "run", wide=2.3, steps=5)))["surfaces"]
    assert figure["scale"][0] == 0
    axis = [-3.0, -1.0, 1.0, 3.0]
    coarse = {
        "names": ["x", "y"],
        "axes": [axis, axis],
        "loss": [[x * x + y * y for x in axis] for y in axis],
        "path": [{"step": 0, "x": [0.5, 0.5], "loss": 0.5}, {"step": 1, "x": [9.0, 9.0], "loss": -7.0}],
    }
    (figure,) = content(descend.report.write(descent_2d(tmp_path / "coarse", surface=coarse)))["surfaces"]
    assert figure["scale"][0] == 0.5
