from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from sklearn.utils import Bunch
from test_images import DIGITS, PIXELS, idx

from descend.data import TensorSource, encode, load, named, names, reload
from descend.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("name", "task", "shape", "outputs", "samples"),
    [
        ("digits", "classification", (1, 8, 8), 10, 1797),
        ("breast_cancer", "binary", (30,), 1, 569),
        ("diabetes", "regression", (10,), 1, 442),
        ("iris", "classification", (4,), 3, 150),
        ("wine", "classification", (13,), 3, 178),
    ],
)
def test_bundled_sets(name: str, task: str, shape: tuple[int, ...], outputs: int, samples: int) -> None:
    data = load(name)
    assert (data.name, data.task, data.input_shape, data.outputs) == (name, task, shape, outputs)
    assert len(data.train) + len(data.validation or ()) == samples
    assert data.notices == []
    assert isinstance(data.train, TensorSource)
    assert abs(float(data.train.inputs.mean())) < 1e-5
    assert reload(data.recipe).fingerprint == data.fingerprint


def test_classes_have_their_names() -> None:
    assert load("breast_cancer").classes == ["benign", "malignant"]
    assert load("iris").classes == ["setosa", "versicolor", "virginica"]
    assert load("digits").classes == list("0123456789")


def test_digits_are_scaled_as_one_channel() -> None:
    data = load("digits")
    assert isinstance(data.train, TensorSource)
    assert float(data.train.inputs.std(correction=0)) == pytest.approx(1, abs=1e-5)
    table = sklearn.datasets.load_digits(as_frame=True).frame
    rows = encode(data.recipe, table.to_numpy()[:5, :64])
    assert rows.shape == (5, 1, 8, 8)
    mean, std = data.recipe["scale"]["mean"][0], data.recipe["scale"]["std"][0]
    assert float(rows[0, 0, 0, 2]) == pytest.approx((5 - mean) / std, abs=1e-6)


def test_new_digits_come_from_a_table(tmp_path: Path) -> None:
    data = load("digits")
    table = sklearn.datasets.load_digits(as_frame=True).frame.iloc[:5]
    table.to_csv(tmp_path / "named.csv", index=False)
    table.iloc[:, :64].set_axis([f"c{k}" for k in range(64)], axis=1).to_csv(
        tmp_path / "wide.csv", index=False
    )
    by_name, by_place = (encode(data.recipe, tmp_path / f"{n}.csv") for n in ("named", "wide"))
    assert torch.equal(by_name, by_place)
    table.iloc[:, :60].set_axis([f"c{k}" for k in range(60)], axis=1).to_csv(
        tmp_path / "few.csv", index=False
    )
    with pytest.raises(
        DataError, match=r"the rows have the shape \[60\]; the model was trained on \[1, 8, 8\]"
    ):
        encode(data.recipe, tmp_path / "few.csv")


@pytest.mark.parametrize("name", ["mnist", "adult"])
def test_without_a_network_the_error_says_how_to_get_it(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fail)
    monkeypatch.setenv(named.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(
        DataError, match=r"could not be fetched.*no route to host.*fetch_openml.*DESCEND_DATA"
    ):
        load(name)


def test_a_set_in_the_users_folder_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(named.FOLDER_VARIABLE, str(tmp_path))
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(idx(PIXELS))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(DIGITS))
    assert load("mnist").input_shape == (1, 6, 5)
    table = pd.DataFrame({"age": range(20), "income": ["<=50K", ">50K"] * 10})
    table.to_csv(tmp_path / "adult.csv", index=False)
    assert load("adult").classes == ["<=50K", ">50K"]


def test_what_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(named.FOLDER_VARIABLE, raising=False)

    def fetch(name: str, **options: Any) -> Bunch:
        if name == "adult":
            return Bunch(frame=pd.DataFrame({"age": range(20), "class": ["<=50K", ">50K"] * 10}))
        return Bunch(
            data=np.zeros((30, 784)) + np.arange(30)[:, None], target=np.array(list("012") * 10, dtype=object)
        )

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    assert (load("mnist").input_shape, load("mnist").classes) == ((1, 28, 28), ["0", "1", "2"])
    assert load("adult").task == "binary"


def test_a_set_cannot_take_a_target_that_it_has_not() -> None:
    with pytest.raises(DataError, match=r"no column 'alcohl'.*did you mean 'alcohol'"):
        load("wine", target="alcohl")
    assert load("wine", target="alcohol").task == "regression"
    with pytest.raises(UsageError, match=r"give the share to hold out"):
        load("iris", validation="other.csv")


def test_the_names() -> None:
    assert names() == [
        "breast_cancer",
        "diabetes",
        "digits",
        "iris",
        "wine",
        "mnist",
        "fashion_mnist",
        "adult",
    ]
