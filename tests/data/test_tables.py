from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from descend.data import Data, TensorSource, encode, load, reload
from descend.errors import DataError, UsageError


def frame(n: int = 60, seed: int = 0) -> pd.DataFrame:
    random = np.random.RandomState(seed)
    return pd.DataFrame(
        {
            "size": random.normal(50, 10, n),
            "rooms": random.randint(1, 6, n),
            "town": random.choice(["Bath", "York", "Ely"], n),
            "garden": random.rand(n) < 0.5,
            "built": pd.Timestamp("1990-01-01") + pd.to_timedelta(random.randint(0, 9000, n), unit="D"),
            "price": random.normal(300, 50, n),
        }
    )


def tensors(data: Data) -> TensorSource:
    assert isinstance(data.train, TensorSource)
    return data.train


def column(**cells: list[Any]) -> Data:
    n = len(next(iter(cells.values())))
    return load(pd.DataFrame({**cells, "y": np.linspace(0, 1, n)}), target="y", validation=0)


def test_columns_are_typed_and_named() -> None:
    data = load(frame(), target="price")
    assert data.features == ["size", "rooms", "town=Bath", "town=Ely", "town=York", "garden", "built"]
    assert (data.task, data.outputs, data.input_shape, data.classes) == ("regression", 1, (7,), None)
    assert (len(data.train), len(data.validation or ())) == (48, 12)
    assert "column 'built' holds dates: taken as days since 1970-01-01" in data.notices


def test_numbers_are_standardised_on_the_training_part_only() -> None:
    table = frame()
    data = load(table, target="price", seed=3)
    inputs = tensors(data).inputs.double()
    numbers = inputs[:, [0, 1, 5, 6]]
    assert torch.allclose(numbers.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(numbers.std(0, correction=0), torch.ones(4, dtype=torch.float64), atol=1e-6)
    assert set(inputs[:, 2:5].reshape(-1).tolist()) == {0.0, 1.0}
    assert torch.allclose(tensors(data).targets.mean(), torch.tensor(0.0), atol=1e-6)
    # The held-out rows are far off in size: had they had a say, the recipe's mean would show it.
    shifted = table.copy()
    everything = encode(data.recipe, table)
    held = [
        i
        for i, row in enumerate(everything)
        if not any(torch.equal(row, other) for other in tensors(data).inputs)
    ]
    assert len(held) == 12
    shifted.loc[held, "size"] += 1e6
    assert load(shifted, target="price", seed=3).recipe["columns"] == data.recipe["columns"]


def test_standardise_false_leaves_numbers_as_they_are() -> None:
    data = load(frame(), target="price", standardise=False, validation=0)
    assert torch.equal(
        tensors(data).inputs[:, 0], torch.tensor(frame()["size"].to_numpy(), dtype=torch.float32)
    )
    assert torch.equal(
        tensors(data).targets[:, 0], torch.tensor(frame()["price"].to_numpy(), dtype=torch.float32)
    )


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["no", "yes"] * 10, "binary", ["no", "yes"]),
        ([True, False] * 10, "binary", ["False", "True"]),
        ([0, 1] * 10, "binary", ["0", "1"]),
        ([0.0, 1.0] * 10, "binary", ["0", "1"]),
        ([1, 2, 5, 2, 1] * 4, "classification", ["1", "2", "5"]),
        (["a", "b", "c", "d"] * 5, "classification", ["a", "b", "c", "d"]),
        (list(range(20)), "regression", None),
        ([2, 4, 6, 8], "regression", None),
        ([0.5, 1.5] * 10, "regression", None),
    ],
)
def test_the_task_is_found_from_the_target(values: list[Any], task: str, classes: list[str] | None) -> None:
    data = load(pd.DataFrame({"x": np.arange(len(values)) ** 2, "y": values}), target="y", validation=0)
    assert (data.task, data.classes) == (task, classes)
    assert tensors(data).targets.dtype == (torch.int64 if task == "classification" else torch.float32)
    assert tensors(data).targets.shape == ((len(values), 1) if task == "regression" else (len(values),))


def test_the_task_can_be_said() -> None:
    table = pd.DataFrame({"x": range(20), "y": [1, 2, 3, 4] * 5})
    assert load(table, target="y").task == "classification"
    assert load(table, target="y", task="regression").task == "regression"
    with pytest.raises(UsageError, match=r"task='binary' needs two classes; column 'y' has 4"):
        load(table, target="y", task="binary")
    with pytest.raises(UsageError, match=r"choose one of regression, binary"):
        load(table, target="y", task="classify")
    with pytest.raises(DataError, match=r"holds text, for which task='regression' has no use"):
        load(pd.DataFrame({"x": range(4), "y": list("abab")}), target="y", task="regression")


def test_classes_are_stratified_over_the_parts() -> None:
    data = load(pd.DataFrame({"x": range(100), "y": ["rare"] * 10 + ["usual"] * 90}), target="y")
    assert isinstance(data.validation, TensorSource)
    assert data.validation.targets.sum() == 18
    assert tensors(data).targets.sum() == 72


def test_missing_values_take_the_training_median_or_set_no_category() -> None:
    data = column(size=[1.0, 2.0, np.nan, 3.0, 10.0], town=["a", None, "b", "a", "b"])
    scaled = tensors(data).inputs
    recipe = data.recipe["columns"][0]
    assert recipe["fill"] == 2.5
    assert scaled[2, 0] == pytest.approx((2.5 - recipe["mean"]) / recipe["std"])
    assert scaled[1, 1:].tolist() == [0.0, 0.0]
    assert data.notices == [
        "column 'size' misses 1 of 5 values: filled with the median 2.5",
        "column 'town' misses 1 of 5 values: they set none of its columns",
    ]


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("flat", [7] * 30, "it is constant"),
        ("flat", ["x"] * 30, "it is constant"),
        ("void", [None] * 30, "it has no values"),
        ("id", list(range(100, 130)), "it numbers the rows"),
        ("who", [f"name {i}" for i in range(30)], "it is text with 30 different values in 30 rows"),
    ],
)
def test_columns_that_say_nothing_are_left_out_with_a_notice(name: str, values: list[Any], why: str) -> None:
    data = column(**{name: values, "x": [float(i % 7) for i in range(30)]})
    assert data.features == ["x"]
    assert f"column {name!r} is left out: {why}" in data.notices


def test_a_category_of_many_values_keeps_the_frequent_ones() -> None:
    values = [f"v{i:03d}" for i in range(100)] * 2 + ["v000"] * 10 + ["v099"] * 10 + ["v050"] * 200
    data = column(c=values)
    assert len(data.features) == 65
    assert data.features[-1] == "c=(other)"
    assert {"c=v000", "c=v099", "c=v050"} <= set(data.features)
    assert tensors(data).inputs.sum(1).tolist() == [1.0] * len(values)
    assert any("has 100 values: the 64 most frequent" in notice for notice in data.notices)


def test_types_can_be_said() -> None:
    table = pd.DataFrame({"zip": [10115, 20095, 10115, 80331] * 5, "when": range(20), "y": np.arange(20) / 7})
    data = load(table, target="y", types={"zip": "category", "when": "drop"})
    assert data.features == ["zip=10115", "zip=20095", "zip=80331"]
    assert data.notices == []
    with pytest.raises(DataError, match=r"no column 'zipp'.*did you mean 'zip'"):
        load(table, target="y", types={"zipp": "category"})
    with pytest.raises(UsageError, match=r"choose one of number, category, date, drop"):
        load(table, target="y", types={"zip": "code"})


def test_an_outlier_is_told_of() -> None:
    data = column(x=[*([0.0, 1.0] * 1000), 1e4])
    assert any("deviations from its mean" in notice for notice in data.notices)


def csv(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("a,y\n1,2\n2,\n3,4\n", "y", r"column 'y', row 2 \(line 3\): the label is missing"),
        (
            "a,y\n1,x\n2,NA\n3,\n",
            "y",
            r"column 'y', row 2 \(line 3\): the label is missing \(NaN\) \(and 1 more\)",
        ),
        ("a,y\n1,2\n2,inf\n3,4\n", "y", r"column 'y', row 2 .*the target is inf"),
        ("a,y\n1,2\n2,3\ntwo,4\n5,7\n", "y", r"column 'a', row 3 \(line 4\): 'two' is no number"),
        ("a,y\n1,2\n2,3\n4,four\n5,7\n", "y", r"column 'y', row 3 \(line 4\): 'four' is no number"),
        ('a,y\n1,"2"\n"2\n",3\n"two\n",4\n5,7\n', "y", r"column 'a', row 3 \(line 5\)"),
        ("a,y\n1,2\ninf,3\n4,5\n", "y", r"column 'a', row 2 \(line 3\): the value is infinite"),
        (
            "a,y\n2020-01-01,2\n2020-02-30,3\n2020-03-01,4\n",
            "y",
            r"column 'a', row 2 .*'2020-02-30' is no date",
        ),
        ("size,y\n1,2\n2,3\n", "sise", r"no column 'sise'.*did you mean 'size'\?\); the columns are size, y"),
        ("a,y\n1,x\n2,x\n3,x\n", "y", r"column 'y' has a single class, 'x'"),
        (
            "a,y\n1,2\n1,3\n1,4\n",
            "y",
            r"no column is left to learn from: column 'a' is left out: it is constant",
        ),
        ("y\n1\n2\n3\n", "y", r"no column is left to learn from"),
        ("a,y\n1,2\n", "y", r"single sample, which cannot be split"),
    ],
)
def test_bad_tables_are_refused_by_row_and_column(tmp_path: Path, text: str, target: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(csv(tmp_path, text), target=target)


def test_a_text_target_that_names_rows_is_no_label() -> None:
    with pytest.raises(DataError, match=r"30 different values in 30 rows, too many classes"):
        load(pd.DataFrame({"x": range(30), "y": [f"n{i}" for i in range(30)]}), target="y")


def test_no_target_lists_the_columns(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name the column to predict with target=.*the columns are a, y"):
        load(csv(tmp_path, "a,y\n1,2\n2,3\n"))


def test_parquet_and_csv_give_the_same(tmp_path: Path) -> None:
    table = frame()
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    columnar, text = (load(tmp_path / name, target="price") for name in ("t.parquet", "t.csv"))
    assert columnar.features == text.features
    assert torch.equal(tensors(columnar).inputs, tensors(text).inputs)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"cannot be read as Parquet"):
        load(tmp_path / "bad.parquet", target="price")


def test_parquet_types_of_their_own(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "grade": pd.Categorical(["a", "b", "a", None] * 5),
            "count": pd.array([1, 2, None, 5] * 5, dtype="Int64"),
            "on": pd.array([True, None, False, True] * 5, dtype="boolean"),
            "y": np.arange(20) / 3,
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    data = load(tmp_path / "t.parquet", target="y", validation=0)
    assert data.features == ["grade=a", "grade=b", "count", "on"]
    nested = pd.DataFrame({"v": [[1, 2]] * 20, "y": np.arange(20) / 3})
    with pytest.raises(DataError, match=r"column 'v' holds lists"):
        load(nested, target="y")


def test_a_held_out_table_of_its_own(tmp_path: Path) -> None:
    frame(seed=1).to_csv(tmp_path / "train.csv", index=False)
    frame(20, seed=2).drop(columns="rooms").assign(rooms=3).to_csv(tmp_path / "test.csv", index=False)
    data = load(tmp_path / "train.csv", target="price", validation=tmp_path / "test.csv")
    assert (len(data.train), len(data.validation or ())) == (60, 20)
    labelled = pd.DataFrame({"x": range(6), "y": list("ababab")})
    with pytest.raises(DataError, match=r"row 2: 'c' is not one of the classes a, b"):
        load(labelled, target="y", validation=pd.DataFrame({"x": [1, 2], "y": ["a", "c"]}))


def test_the_recipe_is_json_and_loads_the_same_again(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    data = load(tmp_path / "t.csv", target="price", seed=4, validation=0.3, types={"rooms": "category"})
    again = reload(json.loads(json.dumps(data.recipe)))
    assert again.fingerprint == data.fingerprint
    assert torch.equal(tensors(again).inputs, tensors(data).inputs)
    assert again.recipe == data.recipe
    with pytest.raises(DataError, match=r"given in memory"):
        reload(load(frame(), target="price").recipe)


def test_the_fingerprint_follows_content_seed_and_share() -> None:
    table = frame()
    changed = table.copy()
    changed.loc[5, "size"] += 1e-9
    prints = {
        load(t, target="price", seed=s, validation=v).fingerprint
        for t, s, v in [(table, 0, 0.2), (changed, 0, 0.2), (table, 1, 0.2), (table, 0, 0.3)]
    }
    assert len(prints) == 4
    assert load(table.copy(), target="price").fingerprint == load(table, target="price").fingerprint
