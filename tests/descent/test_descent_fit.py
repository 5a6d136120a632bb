"""`fit`: against a loop written by hand, by names and with objects, and what it refuses at the start."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from small_runs import Noisy, jitter, tensors
from torch import nn
from torch.nn import functional as F

from descend import DataError, UsageError, fit, record
from descend import data as loading
from descend.data.batches import batches
from descend.descent import prepare, run


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(6, 3)


def by_hand(
    model: nn.Module, optimizer: torch.optim.Optimizer, size: int, epochs: int, seed: int
) -> list[float]:
    """The textbook's loop on the same batches; the mean loss of each epoch."""
    source = loading.load(tensors(), seed=seed).train
    means = []
    for epoch in range(epochs):
        total = 0.0
        for indices in batches(seed, epoch, len(source), size):
            inputs, targets = source.batch(indices, epoch)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)
        means.append(total / len(source))
    return means


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 32),
        (lambda p: torch.optim.Adam(p, lr=0.01), 64),
        (lambda p: torch.optim.SGD(p, lr=0.1), 184),
        (lambda p: torch.optim.SGD(p, lr=0.02), 1),
    ],
    ids=["momentum", "adam", "full", "single"],
)
def test_equals_the_loop_by_hand_to_the_bit(make, size: int) -> None:
    ours, theirs = linear(), linear()
    expected = by_hand(theirs, make(theirs.parameters()), size, 4, seed=3)
    result = fit(ours, tensors(), rule=make, batch=size, epochs=4, seed=3)
    assert result.loss == expected[-1]
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_rule_of_ours_by_name() -> None:
    result = fit(linear(), tensors(), rule="adam", lr=0.01, hypers={"beta1": 0.8}, epochs=5)
    expected = linear()
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01, betas=(0.8, 0.999))
    by_hand(expected, optimizer, 64, 5, seed=0)
    for one, other in zip(result.model.parameters(), expected.parameters(), strict=True):
        # torch contracts to fused multiply-adds, the formula does not: a few units in the last place a step
        assert torch.allclose(one, other, rtol=2e-5, atol=2e-6)


def test_accumulated_batches_equal_one_large_batch() -> None:
    whole = fit(linear(), tensors(), rule=lambda p: torch.optim.SGD(p, lr=0.1), batch=75, epochs=3)
    parts = fit(
        linear(), tensors(), rule=lambda p: torch.optim.SGD(p, lr=0.1), batch=25, accumulate=3, epochs=3
    )
    assert whole.steps == parts.steps == 9  # 184 samples: two full windows, and a last one of 25 and 9
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_plain_loop() -> None:
    descent = prepare("softmax", "iris", epochs=3, seed=1)
    kinds = [event.kind for event in descent]
    assert kinds[0] == "start"
    assert kinds[-1] == "stop"
    assert kinds.count("epoch") == 3
    assert descent.result is not None
    assert descent.result.reason == "epoch_limit"
    with pytest.raises(UsageError, match="runs once"):
        next(iter(descent))


def test_events_tell_what_happened() -> None:
    events = []
    result = fit("softmax", "iris", epochs=4, listener=events.append, lr=0.05)
    last = next(event for event in reversed(events) if event.kind == "epoch")
    assert (last.step, last.total_steps, last.epoch, last.total_epochs) == (8, 8, 4.0, 4)
    assert last.validation_loss == result.validation_loss
    assert last.metrics == result.metrics
    assert last.lr == 0.05
    assert events[-1].message == result.explanation


def test_the_directory_holds_everything(tmp_path: Path) -> None:
    import safetensors.torch

    result = fit(
        "mlp", "iris", out=tmp_path / "run", epochs=5, schedule="cosine", model_options={"hidden": 4}
    )
    found = record.read(tmp_path / "run")
    assert found.config["rule"]["name"] == "adam"
    assert found.config["schedule"]["lr"] == "cosine(0.001, total=10, end=0.0)"
    assert found.config["batch"]["taken"] == 64
    assert found.config["stop"] == {"epochs": 5}
    assert {choice["what"] for choice in found.config["choices"]} == {
        "batch size",
        "initialiser",
        "learning rate",
    }
    assert found.data is not None
    assert found.data["classes"] == ["setosa", "versicolor", "virginica"]
    assert found.result is not None
    assert found.result["metrics"] == result.metrics
    assert found.result["best"]["validation_loss"] == result.best["validation_loss"]
    assert [row["step"] for row in found.history] == list(range(1, 11))
    assert all("grad_norm" in row and "loss" in row and "lr" in row for row in found.history)
    assert [row["epoch"] for row in found.history if "validation_loss" in row] == [1, 2, 3, 4, 5]
    weights = safetensors.torch.load_file(tmp_path / "run" / "final.safetensors")
    assert weights.keys() == result.model.state_dict().keys()
    assert all(torch.equal(weights[key], value) for key, value in result.model.state_dict().items())
    best = safetensors.torch.load_file(tmp_path / "run" / "best.safetensors")
    assert all(torch.equal(best[key], value) for key, value in result.best_weights.items())


def test_the_best_weights_are_those_of_the_lowest_loss() -> None:
    result = fit("mlp", "wine", lr=0.05, epochs=30, seed=2)
    assert result.best["step"] < result.steps
    data = loading.load("wine", seed=2)
    result.model.load_state_dict(result.best_weights)
    with torch.no_grad():
        outputs = result.model(data.validation.inputs)
        loss = F.cross_entropy(outputs, data.validation.targets)
    assert float(loss) == pytest.approx(result.best["validation_loss"], rel=1e-6)


def test_modes_and_buffers() -> None:
    model = Noisy()
    model.body[1].eval()  # a frozen normalisation stays frozen
    before = model.body[1].running_mean.clone()
    fit(model, loading.load(tensors(), transform=jitter), epochs=2)
    assert torch.equal(model.body[1].running_mean, before)
    assert model.training
    assert not model.body[1].training


def test_schedules_reach_the_optimizer() -> None:
    rows = fit(
        linear(),
        tensors(),
        rule=lambda p: torch.optim.SGD(
            [{"params": [x], "lr": 0.1 * (k + 1)} for k, x in enumerate(p)], momentum=0.5
        ),
        schedule={"lr": "polynomial(end=0.02)", "momentum": "constant(0.7)"},
        epochs=2,
        log_every=1,
    )
    assert rows.history[0]["lr"] == pytest.approx(0.1)
    assert rows.history[-1]["lr"] == pytest.approx(0.1 - 0.08 * 5 / 6)
    assert rows.history[-1]["momentum"] == 0.7


def test_groups_keep_their_ratio() -> None:
    held: list[torch.optim.Optimizer] = []

    def make(parameters):
        groups = [{"params": [p], "lr": 0.1 * (k + 1)} for k, p in enumerate(parameters)]
        held.append(torch.optim.SGD(groups))
        return held[0]

    fit(linear(), tensors(), rule=make, schedule="constant(0.03)", steps=1)
    assert [group["lr"] for group in held[0].param_groups] == pytest.approx([0.03, 0.06])


def test_betas_are_scheduled_by_their_own_names() -> None:
    descent = prepare(
        linear(), tensors(), rule="torch.optim.Adam", schedule={"beta1": "constant(0.5)"}, steps=1
    )
    run(descent)
    assert descent.optimizer.param_groups[0]["betas"] == (0.5, 0.999)


def test_torchs_schedulers() -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

    result = fit(
        linear(),
        tensors(),
        rule="torch.optim.SGD",
        lr=0.1,
        schedule=lambda o: StepLR(o, 2, 0.5),
        steps=6,
        log_every=1,
    )
    assert [row["lr"] for row in result.history] == pytest.approx([0.1, 0.05, 0.05, 0.025, 0.025, 0.0125])
    result = fit(
        linear(),
        tensors(),
        rule="torch.optim.SGD",
        lr=0.0,
        schedule=lambda o: ReduceLROnPlateau(o, patience=0, min_lr=-1.0),
        epochs=3,
    )
    assert result.reason == "epoch_limit"


def test_an_optimizer_that_needs_a_closure() -> None:
    result = fit(linear(), tensors(), rule="torch.optim.LBFGS", lr=0.5, batch="full", epochs=20)
    start = fit(linear(), tensors(), rule="torch.optim.SGD", lr=0.0, batch="full", epochs=1)
    assert result.loss < 0.75 * start.loss


def test_clipping_bounds_the_step() -> None:
    model, before = linear(), linear()
    fit(model, tensors(), rule="torch.optim.SGD", lr=1.0, clip_norm=0.01, steps=1)
    moved = [p - q for p, q in zip(model.parameters(), before.parameters(), strict=True)]
    assert float(torch.nn.utils.get_total_norm([m.detach() for m in moved])) == pytest.approx(0.01, rel=1e-3)


def test_a_model_of_two_parameters_leaves_its_surface(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 40).reshape(-1, 1)
    y = 2.0 * x + 0.5
    result = fit(
        nn.Linear(1, 1), (x, y), rule="torch.optim.SGD", lr=0.3, epochs=12, out=tmp_path / "run", validation=0
    )
    surface = record.read(tmp_path / "run").surface
    assert surface is not None
    assert surface["names"] == ["weight", "bias"]
    assert len(surface["axes"]) == 2
    assert len(surface["loss"]) == len(surface["axes"][1])
    assert len(surface["loss"][0]) == len(surface["axes"][0])
    last = surface["path"][-1]
    assert last["step"] == result.steps
    assert last["x"] == [result.model.weight.item(), result.model.bias.item()]
    assert last["loss"] < 0.01 < surface["path"][0]["loss"]
    # the grid holds the same function: its lowest point is next to the solution
    rows = torch.tensor(surface["loss"])
    row, column = divmod(int(rows.argmin()), rows.shape[1])
    assert surface["axes"][0][column] == pytest.approx(2.0, abs=0.1)
    assert surface["axes"][1][row] == pytest.approx(0.5, abs=0.1)


def test_choices_are_recorded_with_reasons(tmp_path: Path) -> None:
    fit(None, "iris", out=tmp_path / "run", minutes=0.001)
    choices = {c["what"]: c for c in record.read(tmp_path / "run").config["choices"]}
    assert choices["model"]["value"] == "mlp"
    assert all(choice["why"] for choice in choices.values())


def test_defaults_reach_the_limit_of_the_digits_in_time() -> None:
    descent = prepare(None, "digits")
    assert descent.stop.epochs is not None
    assert descent.total_steps is not None
    assert descent.total_steps < 3000


class Boundless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def frozen() -> nn.Module:
    return linear().requires_grad_(False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": -1}, "finite number from 0"),
        ({"lr": math.nan}, "finite number from 0"),
        ({"lr": "fast"}, "finite number from 0"),
        ({"rule": "adm"}, "did you mean 'adam'"),
        ({"rule": "torch.optim.Adaam"}, "no optimizer of this name"),
        ({"rule": 3}, "give a name"),
        ({"hypers": {"beta3": 0.9}}, "beta3"),
        ({"model": Boundless()}, "no parameters"),
        ({"model": frozen()}, "needs a gradient"),
        ({"model": nn.Linear(5, 3)}, "does not take inputs"),
        ({"model": "mpl"}, "did you mean 'mlp'"),
        ({"epochs": 0}, "from 1"),
        ({"epochs": 2.5}, "from 1"),
        ({"minutes": -1}, "not negative"),
        ({"patience": "soon"}, "number of epochs"),
        ({"target_loss": "accuracy above 3"}, "give a loss"),
        ({"target_loss": "validation_acuracy >= 0.9"}, "did you mean 'validation_accuracy'"),
        ({"batch": 0}, "batch=0"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"clip_norm": 0}, "above 0"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"schedule": {"momentun": "cosine"}}, "no such number"),
        ({"schedule": "cosine", "epochs": None, "minutes": 1}, "needs the number of steps"),
        ({"seed": "x"}, "whole number"),
        ({"loss": lambda o, t: o}, "must give one number"),
        ({"loss": lambda o, t: F.mse_loss(o, t.float())}, "the loss does not take"),
        ({"model_options": {"hidden": 3}}, "models by name"),
        ({"checkpoint_every": "often"}, "checkpoint every"),
    ],
)
def test_refused_before_the_first_step(change: dict, says: str, tmp_path: Path) -> None:
    options = {"model": linear(), "data": tensors(), "epochs": 1, "out": tmp_path / "run", **change}
    with pytest.raises(UsageError, match=says):
        fit(**options)
    assert not (tmp_path / "run").exists()


def test_an_optimizer_of_other_parameters_is_refused() -> None:
    with pytest.raises(UsageError, match="not the model's"):
        fit(linear(), tensors(), rule=torch.optim.SGD(linear().parameters(), lr=0.1))
    model = linear()
    with pytest.raises(UsageError, match="brings its own"):
        fit(model, tensors(), rule=torch.optim.SGD(model.parameters(), lr=0.1), lr=0.2)


def test_a_batch_larger_than_the_set_is_clipped_with_a_notice() -> None:
    messages = []
    result = fit(linear(), tensors(), batch=1000, epochs=1, listener=lambda e: messages.append(e.message))
    assert result.steps == 1
    assert any("clipped: 1000" in message for message in messages)
    assert any("clipped" in notice for notice in result.notices)


def test_a_source_that_changes_its_length_is_named() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    data = loading.load(DataLoader(TensorDataset(*tensors()), batch_size=32))
    data.train.batches = 9  # it has 8
    with pytest.raises(DataError, match="8 of 9 batches"):
        fit(linear(), data, epochs=1)


def test_history_is_strict_json(tmp_path: Path) -> None:
    fit(linear(), tensors(), rule="torch.optim.SGD", lr=1e30, epochs=2, out=tmp_path / "run")
    for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    json.loads((tmp_path / "run" / "result.json").read_text(), parse_constant=pytest.fail)
