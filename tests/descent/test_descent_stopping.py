"""Each reason to stop, and what happens when a value is not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from small_runs import tensors
from torch import nn

from descend import data as loading
from descend import fit, minimize, record
from descend.descent import Stop, prepare, run
from descend.descent.guards import FiniteCheck


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def sgd(lr: float):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


def test_step_limit_in_the_middle_of_an_epoch() -> None:
    result = fit(linear(), tensors(), steps=7)
    assert (result.reason, result.steps) == ("step_limit", 7)
    assert result.epochs == pytest.approx(7 / 3)
    assert result.history[-1]["step"] == 7
    assert result.validation_loss == result.history[-1]["validation_loss"]  # evaluated at the very end


def test_the_first_limit_counts() -> None:
    assert fit(linear(), tensors(), steps=100, epochs=2).reason == "epoch_limit"
    assert fit(linear(), tensors(), steps=3, epochs=2).reason == "step_limit"


def test_time_limit() -> None:
    result = fit(linear(), tensors(), minutes=0.2 / 60)
    assert result.reason == "time_limit"
    assert 0.2 <= result.seconds < 5


def test_the_clock_is_monotonic(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert fit(linear(), tensors(), epochs=1, minutes=60).reason == "epoch_limit"


def test_target() -> None:
    result = fit(linear(), tensors(), rule=sgd(0.5), epochs=100, target_loss="accuracy >= 0.6")
    assert result.reason == "target"
    assert result.metrics["accuracy"] >= 0.6
    assert result.epochs < 100
    assert "validation_accuracy" in result.explanation
    result = fit(linear(), tensors(), rule=sgd(0.5), epochs=100, target_loss=0.9)
    assert result.reason == "target"
    assert result.validation_loss is not None
    assert result.validation_loss <= 0.9


def test_no_progress_is_not_converged() -> None:
    result = fit(linear(), tensors(), rule=sgd(0.0), patience=3, epochs=50)
    assert (result.reason, result.epochs) == ("no_progress", 4.0)
    assert "held-out loss" in result.explanation
    result = fit(linear(), tensors(), rule=sgd(0.0), patience=3, epochs=50, validation=0, batch="full")
    assert result.reason == "no_progress"
    assert "training loss" in result.explanation


def test_patience_in_steps() -> None:
    assert prepare(linear(), tensors(), epochs=9, patience="7 steps").stop.patience == 3


def test_converged_means_the_full_gradient() -> None:
    data = loading.load(tensors(), validation=0)
    result = fit(linear(), data, rule=sgd(1.0), batch="full", epochs=3000, tolerance=1e-3)
    assert result.reason == "converged"
    inputs, targets = data.train.inputs, data.train.targets
    loss = torch.nn.functional.cross_entropy(result.model(inputs), targets)
    gradients = torch.autograd.grad(loss, list(result.model.parameters()))
    assert float(torch.nn.utils.get_total_norm(gradients)) <= 1.001e-3
    # a mini-batch whose own gradient vanishes does not count
    assert fit(linear(), tensors(), rule=sgd(0.1), batch=1, epochs=1, tolerance=1e-3).reason == "epoch_limit"


def test_converged_looks_past_dropout() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.9))
    result = fit(model, tensors(), rule=sgd(0.0), epochs=3, tolerance=1e9)
    assert (result.reason, result.epochs) == ("converged", 1.0)
    assert model.training
    assert model[1].training
    data = loading.load(tensors())
    norm = prepare(model, data, epochs=1).objective.full_gradient_norm()
    model.eval()
    loss = torch.nn.functional.cross_entropy(model(data.train.inputs), data.train.targets)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert norm == pytest.approx(float(torch.nn.utils.get_total_norm(gradients)), rel=1e-5)


def test_a_loss_that_rises_is_remarked_upon() -> None:
    x = torch.linspace(-1, 1, 32).reshape(-1, 1)
    model = nn.Linear(1, 1)
    result = fit(model, (x, 2 * x), rule=sgd(1.05), batch="full", epochs=40, validation=0)
    assert result.reason == "epoch_limit"
    assert "learning rate is probably too high" in result.explanation


class Poisoned(nn.Module):
    """Linear, until it has been called a number of times in training."""

    def __init__(self, calls: int, what: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 3)
        self.calls, self.what = calls, what

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls -= 1
            if self.calls == 0:
                if self.what == "loss":
                    return self.linear(x) * math.nan
                # finite values with an infinite slope: the root at 0
                return self.linear(x) + (self.linear.weight.sum() * 0.0).sqrt()
        return self.linear(x)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_diverged_names_step_and_samples_and_leaves_the_weights(what: str, tmp_path: Path) -> None:
    result = fit(
        Poisoned(9, what), tensors(), rule=sgd(0.1), epochs=50, out=tmp_path / "run", log_every=2, seed=4
    )
    expected = fit(Poisoned(-1, what), tensors(), rule=sgd(0.1), steps=8, seed=4)
    assert result.reason == "diverged"
    assert result.steps == 8
    for one, other in zip(result.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(one, other)
    found = result.diverged
    assert found is not None
    assert (found["what"], found["step"], found["epoch"], found["batch"]) == (what, 9, 3, 3)
    from descend.data.batches import batches

    samples = list(batches(4, 2, 184, 64))[2].tolist()
    assert found["samples"] == samples[:64]
    assert found["batch_size"] == len(samples)
    assert f"{what} became" in result.explanation
    run_read = record.read(tmp_path / "run")
    assert run_read.result is not None
    assert run_read.result["reason"] == "diverged"
    for name in ("final", "best"):
        assert (tmp_path / "run" / f"{name}.safetensors").exists()
    assert result.best["validation_loss"] is not None
    assert all(torch.isfinite(value).all() for value in result.best_weights.values())


def test_bad_data_are_told_from_a_bad_rate() -> None:
    x, y = tensors()
    data = loading.load((x, y))
    data.train.inputs[50, 2] = math.inf
    result = fit(linear(), data, epochs=3)
    assert result.diverged is not None
    assert result.diverged["what"] == "data"
    assert 50 in result.diverged["samples"]


@pytest.mark.parametrize("rule", ["torch.optim.SGD", "torch.optim.Adam", "adam", "gradient_descent"])
@pytest.mark.parametrize("lr", [1e10, 1e30])
def test_an_absurd_rate_diverges(rule: str, lr: float) -> None:
    x, _ = tensors()
    y = x.sum(1, keepdim=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    result = fit(model, (x, y), rule=rule, lr=lr, epochs=30)
    assert result.reason == "diverged"
    assert all(torch.isfinite(value).all() for value in result.best_weights.values())


def test_an_update_that_overflows_is_found_at_the_end() -> None:
    x, y = tensors()
    result = fit(linear(), (100 * x, y), rule=sgd(3.4e38), steps=1)
    assert result.reason == "diverged"
    assert result.diverged is not None
    assert result.diverged["what"] == "parameters"


def test_slow_divergence_is_never_converged() -> None:
    x = torch.linspace(-1, 1, 32).reshape(-1, 1)
    model = nn.Linear(1, 1)
    result = fit(model, (x, 2 * x), rule=sgd(4.0), batch="full", epochs=100_000, validation=0, tolerance=1e-6)
    assert result.reason == "diverged"
    assert "exploded" in result.explanation


def test_a_closure_that_meets_a_nan_puts_the_weights_back() -> None:
    result = fit(Poisoned(2, "loss"), tensors(), rule="torch.optim.LBFGS", batch="full", epochs=5)
    assert result.reason == "diverged"
    fresh = Poisoned(2, "loss")
    for one, other in zip(result.model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_the_check_of_gradients(dtype: torch.dtype) -> None:
    parameters = [torch.zeros(5, dtype=dtype, requires_grad=True) for _ in range(3)]
    check = FiniteCheck(parameters)
    for p in parameters[:2]:
        p.grad = torch.randn(5).to(dtype)
    before = [p.grad.clone() for p in parameters[:2]]
    assert check()
    assert all(torch.equal(p.grad, old) for p, old in zip(parameters, before, strict=False))
    for bad in (math.nan, math.inf, -math.inf):
        parameters[1].grad[3] = bad
        assert not check()
    parameters[1].grad[3] = 0.0
    assert check()


def test_sparse_gradients() -> None:
    table = nn.Embedding(10, 3, sparse=True)
    table(torch.tensor([1, 4])).sum().backward()
    check = FiniteCheck(list(table.parameters()))
    assert check()
    table.weight.grad._values()[0, 0] = math.nan
    assert not check()


def test_a_function_without_a_bottom_diverges() -> None:
    found = minimize("saddle")
    assert found.reason == "diverged"
    assert "bound" in found.explanation


def test_stop_refuses() -> None:
    from descend import UsageError

    for bad in (
        {"steps": 0},
        {"epochs": True},
        {"tolerance": -1.0},
        {"minutes": math.inf},
        {"patience": 1.5},
    ):
        with pytest.raises(UsageError):
            Stop(**bad)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(prepare(linear(), tensors(), epochs=2, out=tmp_path / "run"))
    assert capfd.readouterr() == ("", "")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["reason"] == "epoch_limit"
