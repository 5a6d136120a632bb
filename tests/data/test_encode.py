from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_tables import frame
from test_text import CHINESE

from descend.data import TensorSource, decode, encode, load, probabilities
from descend.errors import DataError, UsageError


def test_the_training_rows_are_encoded_as_they_were(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    data = load(tmp_path / "t.csv", target="price", validation=0)
    assert isinstance(data.train, TensorSource)
    for source in (tmp_path / "t.csv", str(tmp_path / "t.csv"), frame(), frame().drop(columns="price")):
        assert torch.equal(encode(data.recipe, source), data.train.inputs)
    assert torch.equal(encode(data.recipe, frame().iloc[3:5]), data.train.inputs[3:5])
    shuffled = frame()[["town", "price", "built", "garden", "rooms", "size"]]
    assert torch.equal(encode(data.recipe, shuffled), data.train.inputs)


def test_gaps_and_unseen_categories_in_new_rows() -> None:
    data = load(frame(), target="price", validation=0)
    row = {"size": [None], "rooms": [3], "town": ["Rome"], "garden": [True], "built": ["2001-02-03"]}
    encoded = encode(data.recipe, row)[0]
    size = data.recipe["columns"][0]
    assert encoded[0] == pytest.approx((size["fill"] - size["mean"]) / size["std"], abs=1e-6)
    assert encoded[2:5].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="rooms"), r"no column 'rooms'; the columns given are size, town"),
        (lambda t: t.rename(columns={"rooms": "room"}), r"no column 'rooms'.*did you mean 'room'\?"),
        (lambda t: t.assign(size="large"), r"column 'size', row 1: 'large' is no number .*\(and 59 more\)"),
        (lambda t: t.assign(built="soon"), r"column 'built', row 1: 'soon' is no date"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change: Any, words: str) -> None:
    recipe = load(frame(), target="price").recipe
    with pytest.raises(DataError, match=words):
        encode(recipe, change(frame()))


def test_a_new_file_is_read_in_the_training_files_encoding(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(CHINESE.encode("gb18030"))
    (tmp_path / "new.csv").write_bytes("姓名,年龄,城市\n赵敏,33,上海\n".encode("gb18030"))
    (tmp_path / "other.csv").write_text("姓名,年龄,城市\n赵敏,33,上海\n", encoding="utf-8")
    data = load(tmp_path / "train.csv", target="收入", encoding="gb18030", validation=0)
    new = encode(data.recipe, tmp_path / "new.csv")
    assert new[0, data.features.index("城市=上海")] == 1
    assert torch.equal(encode(data.recipe, tmp_path / "other.csv", encoding="utf-8"), new)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 5, 9] * 5, [5, 9, 3]),
        (["c", "a", "b"] * 5, ["b", "c", "a"]),
    ],
)
def test_labels_come_back_as_they_stood(values: list[Any], expected: list[Any]) -> None:
    data = load(pd.DataFrame({"x": range(15), "y": values}), target="y")
    found = decode(data.recipe, torch.tensor([[0.0, 3, 1], [0, 1, 2], [5, 2, 3]]))
    assert found.tolist() == expected


def test_labels_of_two_classes() -> None:
    outputs = torch.tensor([[2.0], [-1.0]])
    for values, expected in [
        ([1, 0], [1, 0]),
        ([True, False], [True, False]),
        ([-1, 1], [1, -1]),
        (["n", "y"], ["y", "n"]),
    ]:
        data = load((torch.rand(20, 2), np.array(values * 10)))
        assert decode(data.recipe, outputs).tolist() == expected
        assert decode(data.recipe, outputs.flatten()).tolist() == expected
        assert np.allclose(probabilities(data.recipe, outputs).sum(1), 1)


def test_numbers_come_back_in_their_own_unit() -> None:
    table = frame()
    data = load(table, target="price", validation=0)
    assert isinstance(data.train, TensorSource)
    assert np.allclose(decode(data.recipe, data.train.targets), table["price"], rtol=1e-6)
    several = load((torch.rand(20, 2), torch.rand(20, 3) * 9), standardise=True, validation=0)
    assert isinstance(several.train, TensorSource)
    assert decode(several.recipe, several.train.targets).shape == (20, 3)
    with pytest.raises(UsageError, match=r"probabilities are for classes"):
        probabilities(data.recipe, data.train.targets)


def test_arrays_are_scaled_as_in_training(tmp_path: Path) -> None:
    x = np.random.RandomState(0).normal(5, 3, (30, 4)).astype(np.float32)
    np.savez(tmp_path / "t.npz", X=x, y=x[:, 0])
    np.save(tmp_path / "new.npy", x)
    data = load(tmp_path / "t.npz", validation=0)
    assert isinstance(data.train, TensorSource)
    for source in (x, torch.from_numpy(x), tmp_path / "t.npz", tmp_path / "new.npy", (x, x[:, 0])):
        assert torch.equal(encode(data.recipe, source), data.train.inputs)
    with pytest.raises(DataError, match=r"the rows have the shape \[3\]; the model was trained on \[4\]"):
        encode(data.recipe, x[:, :3])


def test_a_recipe_that_cannot_encode_says_so() -> None:
    with pytest.raises(UsageError, match=r"recipe of kind 'loader'"):
        encode({"kind": "loader"}, None)
    with pytest.raises(DataError, match=r"trained on a table: give a file or a frame, not list"):
        encode(load(frame(), target="price").recipe, [1, 2])
    with pytest.raises(DataError, match=r"does not exist"):
        encode(load(frame(), target="price").recipe, "nowhere.csv")
