"""`minimize`: functions, surfaces and expressions; their minima, their paths, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from descend import UsageError, minimize, record
from descend.descent import surfaces
from descend.descent.objectives import FunctionObjective
from descend.descent.points import problem
from descend.descent.rates import default_rate, largest_curvature


@pytest.mark.parametrize("name", surfaces.names())
def test_the_known_minima(name: str) -> None:
    surface = surfaces.get(name)
    for minimum in surface.minima:
        point = torch.tensor(minimum, dtype=torch.float64, requires_grad=True)
        value = surface(point)
        assert value.item() == pytest.approx(surface.lowest, abs=1e-12)
        if name != "ackley":  # it has a kink there
            (gradient,) = torch.autograd.grad(value, point)
            assert float(gradient.norm()) < 1e-5
    low = torch.tensor([[a for a, _ in surface.window], [b for _, b in surface.window]], dtype=torch.float64)
    grid = low[0] + (low[1] - low[0]) * torch.rand(4000, len(surface.start), dtype=torch.float64)
    assert float(surface(grid).min()) >= surface.lowest


@pytest.mark.parametrize("name", [n for n in surfaces.names() if n not in ("saddle", "rosenbrock")])
@pytest.mark.parametrize("rule", ["torch.optim.SGD", "torch.optim.Adam"])
def test_the_default_rate_makes_way(name: str, rule: str) -> None:
    found = minimize(name, rule=rule)
    start = float(surfaces.get(name)(torch.tensor(surfaces.get(name).start)))
    assert found.value < start
    assert found.reason == "converged" or found.value < 1e-3


def test_rosenbrock() -> None:
    found = minimize("rosenbrock", [-1.2, 1.0], rule="torch.optim.Adam", lr=0.05, steps=5000)
    assert found.reason == "converged"
    assert isinstance(found.point, torch.Tensor)
    assert found.point.tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    assert found.path[0] == {"step": 0, "x": [-1.2, 1.0]}
    assert len(found.path) <= 1000


def test_gradient_descent_by_hand() -> None:
    found = minimize("x**2 + 10*y**2", [3.0, 1.0], rule="torch.optim.SGD", lr=0.04, steps=5, tolerance=None)
    x, y = 3.0, 1.0
    for _ in range(5):
        x, y = x - 0.04 * 2 * x, y - 0.04 * 20 * y
    assert isinstance(found.point, dict)
    assert found.point["x"].item() == pytest.approx(x, rel=1e-14)
    assert found.point["y"].item() == pytest.approx(y, rel=1e-14)
    assert found.value == pytest.approx(x**2 + 10 * y**2, rel=1e-14)
    assert found.reason == "step_limit"


def test_forms_of_the_start() -> None:
    assert minimize(lambda x: (x - 2) ** 2, 0.0).point.item() == pytest.approx(2.0, abs=1e-6)
    pair = minimize(
        lambda a, b: (a - 1).square().sum() + (b + 1).square().sum(), (torch.zeros(2), torch.zeros(1, 3))
    )
    assert isinstance(pair.point, tuple)
    assert [part.shape for part in pair.point] == [(2,), (1, 3)]
    named = minimize(lambda *, half, w: half**2 + (w - half - 1) ** 2, {"w": 5.0, "half": 1.0})
    assert isinstance(named.point, dict)
    assert named.point["w"].item() == pytest.approx(1.0, abs=1e-5)
    single = minimize(lambda x: (x**2).sum(), torch.ones(3, dtype=torch.float32))
    assert isinstance(single.point, torch.Tensor)
    assert single.point.dtype == torch.float32


def test_maximize_climbs() -> None:
    found = minimize("4 - (x - 1)**2", [0.0], maximize=True)
    assert (found.reason, round(found.value, 9)) == ("converged", 4.0)
    found = minimize("4 - (x - 1)**2", [0.0], maximize=True, target_loss=3.9)
    assert found.reason == "target"
    assert 3.9 <= found.value < 4


def test_target_and_patience() -> None:
    found = minimize("quadratic", target_loss=0.5)
    assert found.reason == "target"
    assert found.value <= 0.5
    stuck = minimize(lambda x: x.abs().sum(), [1.0], rule="torch.optim.SGD", lr=0.3, patience=10)
    assert stuck.reason == "no_progress"
    assert stuck.best_value < stuck.value
    assert isinstance(stuck.best_point, torch.Tensor)
    assert abs(stuck.best_point.item()) == pytest.approx(stuck.best_value)


def test_already_there() -> None:
    found = minimize("booth", [1.0, 3.0])
    assert (found.reason, found.steps, found.value) == ("converged", 0, 0.0)


@pytest.mark.parametrize(
    ("function", "start", "axes"), [("(x - 3)**2", [0.0], 1), ("himmelblau", None, 2), ("saddle", None, 2)]
)
def test_the_surface_file(function: str, start, axes: int, tmp_path: Path) -> None:
    found = minimize(function, start, out=tmp_path / "run")
    run = record.read(tmp_path / "run")
    assert run.data is None
    surface = run.surface
    assert surface is not None
    assert surface["names"] == ["x", "y"][:axes]
    assert len(surface["axes"]) == axes
    path = surface["path"]
    assert path[0]["step"] == 0
    assert path[-1]["step"] == found.steps
    if found.reason == "converged":
        for place, axis in enumerate(surface["axes"]):
            assert all(axis[0] <= point["x"][place] <= axis[-1] for point in path)
        assert max(map(abs, path[-1]["gradient"])) <= 1e-6
    values = torch.tensor(surface["loss"])
    assert list(values.shape) == [len(axis) for axis in reversed(surface["axes"])]
    assert bool(torch.isfinite(values).all())
    if axes == 2:
        x, y = surface["axes"][0][7], surface["axes"][1][30]
        assert surface["loss"][30][7] == pytest.approx(
            float(surfaces.get(function)(torch.tensor([x, y]).double()))
        )


def test_the_surface_of_a_climb_has_its_own_sign(tmp_path: Path) -> None:
    minimize("4 - (x - 1)**2", [0.0], maximize=True, out=tmp_path / "run")
    surface = record.read(tmp_path / "run").surface
    assert surface is not None
    assert max(surface["loss"]) == pytest.approx(4.0, abs=1e-3)
    assert surface["path"][0]["loss"] == 3.0
    assert surface["path"][0]["gradient"] == [2.0]


def test_a_long_path_is_thinned() -> None:
    found = minimize("rosenbrock", rule="torch.optim.Adam", lr=0.01, steps=3000, tolerance=None)
    assert 500 <= len(found.path) <= 1001
    assert found.path[0]["step"] == 0


def test_the_configuration_runs_it_again(tmp_path: Path) -> None:
    minimize("x**2 + 10*y**2", [3, 1], out=tmp_path / "a", rule="adam", steps=50)
    config = record.read(tmp_path / "a").config
    assert config["problem"] == {
        "function": "x**2 + 10*y**2",
        "start": [3.0, 1.0],
        "maximize": False,
        "form": "names",
    }
    assert config["rule"]["name"] == "adam"
    rate = next(choice for choice in config["choices"] if choice["what"] == "learning rate")
    assert rate["value"] == config["rule"]["lr"]


def test_the_largest_curvature() -> None:
    asked = problem("quadratic", None)
    objective = FunctionObjective(asked.module)
    assert largest_curvature(objective, list(asked.module.parameters())) == pytest.approx(20.0)
    rate, why = default_rate("torch.optim.SGD", {}, objective)
    assert rate == 0.025
    assert "curvature" in why
    rate, why = default_rate("torch.optim.Adam", {}, objective)
    assert rate == pytest.approx(0.45)
    assert "length of a step" in why
    assert default_rate("torch.optim.LBFGS", {}, objective) == (None, "")


def test_the_largest_curvature_of_many_numbers() -> None:
    scales = torch.linspace(0.1, 7.0, 60, dtype=torch.float64)
    asked = problem(lambda x: (0.5 * scales * x**2).sum(), torch.ones(60))
    found = largest_curvature(FunctionObjective(asked.module), list(asked.module.parameters()))
    assert found == pytest.approx(7.0, rel=0.05)


def test_a_slope_without_curvature() -> None:
    asked = problem(lambda x: x.abs().sum(), [4.0, 0.5])
    rate, why = default_rate("torch.optim.SGD", {}, FunctionObjective(asked.module))
    assert rate == pytest.approx(0.4 / math.sqrt(2), rel=0.05)
    assert "no curvature" in why


@pytest.mark.parametrize(
    ("function", "start", "says"),
    [
        ("rosenbrok", None, "did you mean 'rosenbrock'"),
        ("rosenbrock", [1.0], "takes a point of 2 numbers"),
        ("x**2 + y", None, "needs a start"),
        ("x**2 + y", [1.0], "give 2 numbers"),
        ("x**2", {"z": 1.0}, "is a function of x"),
        ("x**2", ["a"], "give numbers"),
        ("1/x", [0.0], "at the start"),
        (lambda x: x, [1.0, 2.0], "must give one floating-point number"),
        (lambda x: 3.0, [1.0], "must give one floating-point number"),
        (lambda x: torch.tensor(1.0), [1.0], "does not depend on its point"),
        (lambda x: x.undefined, [1.0], "undefined"),
        (lambda x: x.sum(), None, "give x0"),
        (lambda x: x.sum(), [math.nan], "finite numbers"),
        (17, [1.0], "cannot be descended"),
    ],
)
def test_refused_before_the_first_step(function, start, says: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, AttributeError), match=says):
        minimize(function, start, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
