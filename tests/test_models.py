from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from descend import models
from descend.data import Data, TensorSource, batches, load
from descend.errors import UsageError


def data(shape: tuple[int, ...], task: str, n: int = 30) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, *shape, generator=generator)
    y = {
        "regression": torch.randn(n, 2, generator=generator),
        "binary": torch.arange(n) % 2,
        "classification": torch.arange(n) % 5,
    }[task]
    return load((x, y))


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in model.parameters()]


@pytest.mark.parametrize("task", ["regression", "binary", "classification"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("linear", (7,)), ("mlp", (7,)), ("mlp", (3, 8, 8)), ("cnn", (3, 8, 8)), ("cnn", (9, 5))],
)
def test_models_fit_the_data_and_their_loss(name: str, shape: tuple[int, ...], task: str) -> None:
    set_ = data(shape, task)
    model = models.build(name, set_)
    models.check(model, set_)
    inputs, targets = set_.train.batch(torch.arange(10), 0)
    loss, _ = models.loss_for(set_.task)
    value = loss(model(inputs), targets)
    assert value.shape == ()
    value.backward()
    assert all(p.grad is not None for p in model.parameters())
    metrics = models.metrics_for(set_.task)
    assert set(metrics) == ({"rmse", "r2"} if task == "regression" else {"accuracy"})
    assert all(np.isfinite(metric(model(inputs).detach(), targets)) for metric in metrics.values())


def test_the_options_shape_the_model() -> None:
    set_ = data((1, 28, 28), "classification")
    assert shapes(models.build("mlp", set_, hidden=(20, 10)))[::2] == [(20, 784), (10, 20), (5, 10)]
    assert shapes(models.build("cnn", set_, channels=(4, 8), hidden=16))[::2] == [
        (4, 1, 3, 3),
        (8, 4, 3, 3),
        (16, 8 * 7 * 7),
        (5, 16),
    ]
    kinds = [type(m) for m in models.build("mlp", set_, activation="tanh", dropout=0.5).modules()]
    assert nn.Tanh in kinds
    assert nn.Dropout in kinds
    assert shapes(models.build("linear", data((3, 2), "binary"))) == [(1, 6), (1,)]


@pytest.mark.parametrize(
    ("name", "task", "options", "words"),
    [
        ("mpl", "binary", {}, "no model 'mpl'.*did you mean 'mlp'.*linear, logistic, softmax, mlp, cnn"),
        ("mlp", "binary", {"hiden": 3}, "no option 'hiden'.*did you mean 'hidden'"),
        ("linear", "binary", {"hidden": 3}, "its options: it has none"),
        ("mlp", "binary", {"hidden": 0}, r"hidden=\[0\]: give whole numbers from 1"),
        ("mlp", "binary", {"activation": "rel"}, "activation='rel' is not known.*did you mean 'relu'"),
        ("mlp", "binary", {"dropout": 1}, "from 0 to below 1"),
        ("cnn", "binary", {}, r"shape \[7\]: use 'mlp'"),
        ("logistic", "classification", {}, "for two classes; the task is 'classification': use 'softmax'"),
        ("logistic", "regression", {}, "use 'linear' or 'mlp'"),
        ("softmax", "binary", {}, "use 'logistic'"),
    ],
)
def test_models_that_cannot_be_built(name: str, task: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        models.build(name, data((7,), task), **options)


def test_building_is_seeded_and_leaves_the_global_generator_alone() -> None:
    set_ = data((1, 8, 8), "classification")
    before = torch.get_rng_state()
    first, same, other = (models.build("cnn", set_, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_convex_models_start_at_zero_and_others_by_he() -> None:
    assert all(not p.any() for p in models.build("softmax", data((4,), "classification")).parameters())
    weight = next(models.build("mlp", data((400,), "binary")).parameters())
    assert float(weight.detach().square().mean()) == pytest.approx(2 / 400, rel=0.02)
    assert models.build("linear", data((4,), "binary"), init="xavier")[1].weight.any()  # type: ignore[index]


@pytest.mark.parametrize(
    ("shape", "name"),
    [((1, 8, 8), "cnn"), ((3, 32, 32), "cnn"), ((30,), "mlp"), ((1, 2, 2), "mlp"), ((5, 6), "mlp")],
)
def test_the_model_taken_unasked(shape: tuple[int, ...], name: str) -> None:
    set_ = data(shape, "binary")
    chosen, reason = models.default_for(set_)
    assert chosen == name
    assert reason
    models.check(models.build(chosen, set_), set_)


@pytest.mark.parametrize(
    ("samples", "batch", "epochs"),
    [(1438, 64, 44), (60_000, 64, 10), (120, 64, 400), (1000, 1000, 400), (64, 1, 16)],
)
def test_the_epochs_taken_unasked(samples: int, batch: int, epochs: int) -> None:
    taken, reason = models.default_epochs(samples, batch)
    assert taken == epochs
    assert f"{epochs} epochs" in reason


def test_losses_agree_with_their_formulas() -> None:
    outputs, targets = torch.tensor([[1.0], [-2.0], [0.5]]), torch.tensor([1.0, 0.0, 0.0])
    chance = 1 / (1 + np.exp(-outputs[:, 0].numpy()))
    expected = -np.mean([np.log(chance[0]), np.log(1 - chance[1]), np.log(1 - chance[2])])
    for form in (outputs, outputs[:, 0]):
        assert float(models.loss_for("binary")[0](form, targets)) == pytest.approx(expected, rel=1e-6)
    scores = torch.tensor([[1.0, 2.0, 0.0]])
    expected = -np.log(np.exp(2) / (np.exp(1) + np.exp(2) + 1))
    assert float(models.loss_for("classification")[0](scores, torch.tensor([1]))) == pytest.approx(
        expected, rel=1e-6
    )
    numbers = models.loss_for("regression")[0](torch.tensor([1.0, 3.0]), torch.tensor([[2.0], [5.0]]))
    assert float(numbers) == 2.5


def test_n_outputs_against_n_by_1_targets_are_not_broadcast() -> None:
    n = 50
    outputs, targets = torch.randn(n), torch.randn(n, 1)
    assert float(models.mse(outputs, targets)) == pytest.approx(
        float(((outputs - targets[:, 0]) ** 2).mean()), rel=1e-6
    )
    assert models.metrics_for("regression")["rmse"](outputs, targets) == pytest.approx(
        float(models.mse(outputs, targets)) ** 0.5, rel=1e-6
    )


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "words"),
    [
        ("regression", torch.zeros(4, 2), torch.zeros(4, 1), r"gives \[4, 2\] and the targets are \[4, 1\]"),
        ("binary", torch.zeros(4, 2), torch.zeros(4), r"gives \[4, 2\] and the targets are \[4\]"),
        ("classification", torch.zeros(4), torch.zeros(4, dtype=torch.int64), r"outputs \[N, classes\]"),
    ],
)
def test_shapes_that_do_not_match_are_explained(
    task: str, outputs: Tensor, targets: Tensor, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        models.loss_for(task)[0](outputs, targets)


def test_a_custom_task_has_no_loss_of_its_own() -> None:
    with pytest.raises(UsageError, match=r"'custom' has no loss of its own"):
        models.loss_for("custom")
    assert models.metrics_for("custom") == {}


def test_metrics() -> None:
    accuracy = models.metrics_for("classification")["accuracy"]
    assert accuracy(torch.tensor([[2.0, 1], [0, 1], [3, 1]]), torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    binary = models.metrics_for("binary")["accuracy"]
    assert binary(torch.tensor([0.2, -0.2, 0.8, -3.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])) == 0.75
    recipe = {"target": {"std": [10.0]}}
    outputs, targets = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.3], [1.4]])
    metrics = models.metrics_for("regression", recipe)
    assert metrics["rmse"](outputs, targets) == pytest.approx(10 * (0.125**0.5), rel=1e-5)
    assert metrics["r2"](outputs, targets) == pytest.approx(1 - 0.25 / (2 * 0.55**2), rel=1e-5)
    assert np.isnan(metrics["r2"](outputs, torch.ones(2, 1)))


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        (Fixed(), "binary", "Fixed has no parameters"),
        (nn.Linear(7, 1).requires_grad_(False), "binary", "no parameter of Linear needs a gradient"),
        (nn.Linear(6, 1), "binary", r"does not take inputs of shape \[2, 7\]"),
        (nn.Linear(7, 2), "binary", r"gives \[2, 2\] and the targets are \[2\]"),
        (
            nn.Linear(7, 4),
            "classification",
            "there are 5 classes, 0 to 4, and the model has 4 outputs; give it 5",
        ),
        (nn.Linear(7, 3), "regression", r"gives \[2, 3\] and the targets are \[2, 2\]"),
    ],
)
def test_a_model_that_does_not_fit_is_told_of_before_the_first_step(
    model: nn.Module, task: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        models.check(model, data((7,), task))


def test_checking_leaves_no_trace() -> None:
    model = nn.Sequential(nn.BatchNorm1d(7), nn.Dropout(0.5), nn.Linear(7, 1))
    model[0].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    models.check(model, data((7,), "binary"))
    assert [m.training for m in model] == [False, True, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    models.check(nn.Linear(7, 9), data((7,), "binary"), loss=lambda outputs, targets: outputs.sum())


def held_out(set_: Data, name: str, epochs: int, seed: int = 0) -> float:
    """The held-out metric after a plain loop with torch's Adam at its default rate and batches of 64."""
    assert isinstance(set_.train, TensorSource)
    assert isinstance(set_.validation, TensorSource)
    model = models.build(name, set_, seed=seed)
    loss, _ = models.loss_for(set_.task)
    adam = torch.optim.Adam(model.parameters())
    for epoch in range(epochs):
        for rows in batches.batches(seed, epoch, len(set_.train), 64):
            adam.zero_grad()
            loss(model(set_.train.inputs[rows]), set_.train.targets[rows]).backward()
            adam.step()
    with torch.no_grad():
        outputs = model(set_.validation.inputs)
    metrics = models.metrics_for(set_.task, set_.recipe)
    return metrics.get("accuracy", metrics.get("r2", models.accuracy))(outputs, set_.validation.targets)


@pytest.mark.parametrize(
    ("name", "model", "epochs", "least"),
    # A third of the epochs taken unasked; the least is three points under what was measured.
    [
        ("digits", "cnn", 15, 0.95),
        ("breast_cancer", "mlp", 40, 0.94),
        ("wine", "mlp", 110, 0.94),
        ("diabetes", "mlp", 55, 0.2),
    ],
)
def test_the_models_learn_the_bundled_sets(name: str, model: str, epochs: int, least: float) -> None:
    assert held_out(load(name), model, epochs) >= least
