from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from descend.data import Data, TensorSource, load
from descend.errors import DataError, UsageError

RANDOM = np.random.RandomState(0)
X = RANDOM.normal(size=(50, 4)).astype(np.float32)
NUMBERS = RANDOM.normal(size=50).astype(np.float32)
LABELS = np.arange(50) % 3


def train(data: Data) -> TensorSource:
    assert isinstance(data.train, TensorSource)
    return data.train


def test_tensors_are_taken_as_they_are() -> None:
    x, y = torch.from_numpy(X), torch.from_numpy(NUMBERS)
    data = load((x, y), validation=0)
    assert train(data).inputs.data_ptr() == x.data_ptr()
    assert torch.equal(train(data).targets, y[:, None])
    assert (data.name, data.task, data.outputs, data.notices) == ("tensors", "regression", 1, [])


def test_standardise_scales_both_on_the_training_part() -> None:
    data = load((X * 7 + 300, NUMBERS * 5 + 9), standardise=True)
    for part in (train(data).inputs, train(data).targets):
        assert torch.allclose(part.mean(0), torch.zeros(part.shape[1]), atol=1e-5)
        assert torch.allclose(part.std(0, correction=0), torch.ones(part.shape[1]), atol=1e-5)
    images = load(
        (RANDOM.rand(20, 3, 5, 5) * [[[[9]], [[99]], [[1]]]], LABELS[:20]), standardise=True, validation=0
    )
    assert torch.allclose(train(images).inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(train(images).inputs.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_inputs_far_from_one_bring_a_notice() -> None:
    assert any("standardise=True scales them" in n for n in load((X * 1000, NUMBERS)).notices)
    assert load((X * 1000, NUMBERS), standardise=False).notices == []


@pytest.mark.parametrize(
    ("inputs", "notice"),
    [
        (X.astype(np.float64), "the inputs were float64: converted to float32"),
        (X.astype(np.float16), "the inputs were float16: converted to float32"),
        (torch.from_numpy(X).bfloat16(), "the inputs were bfloat16: converted to float32"),
        ((X * 10).astype(np.int64), "the inputs were int64: converted to float32"),
        ((X * 10 + 50).astype(">u2"), "the inputs were int32: converted to float32"),
        (X > 0, "the inputs were bool: converted to float32"),
        (X.astype(object), "the inputs were Python objects: converted to numbers"),
        (X.tolist(), "the inputs were float64: converted to float32"),
    ],
    ids=lambda v: "" if not isinstance(v, str) else v[11:30],
)
def test_inputs_of_other_types_are_converted_with_a_notice(inputs: Any, notice: str) -> None:
    data = load((inputs, NUMBERS))
    assert train(data).inputs.dtype == torch.float32
    assert notice in data.notices


def test_the_default_type_of_torch_is_kept() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        data = load((X.astype(np.float64), NUMBERS.astype(np.float64)))
        assert (train(data).inputs.dtype, train(data).targets.dtype, data.notices) == (torch.float64,) * 2 + (
            [],
        )
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_column_is_a_feature_and_a_column_of_targets_is_one_target() -> None:
    flat, tall = (load((X[:, 0], y), validation=0) for y in (NUMBERS, NUMBERS[:, None]))
    assert flat.input_shape == (1,)
    assert train(flat).targets.shape == train(tall).targets.shape == (50, 1)
    assert load((X, LABELS[:, None])).task == "classification"
    assert load((X, X[:, :2])).outputs == 2


@pytest.mark.parametrize(
    ("y", "task", "classes"),
    [
        (LABELS, "classification", ["0", "1", "2"]),
        (LABELS.astype(np.uint8), "classification", ["0", "1", "2"]),
        (LABELS % 2, "binary", ["0", "1"]),
        (LABELS % 2 * 2 - 1, "binary", ["-1", "1"]),
        (LABELS % 2 == 1, "binary", ["False", "True"]),
        ((LABELS % 2).astype(np.float32), "binary", ["0", "1"]),
        (np.array(["a", "b", "c"])[LABELS], "classification", ["a", "b", "c"]),
        (np.array(["a", "b", "c"], dtype=object)[LABELS], "classification", ["a", "b", "c"]),
        (np.eye(3)[LABELS], "classification", ["0", "1", "2"]),
        (np.arange(50), "regression", None),
        (NUMBERS, "regression", None),
    ],
)
def test_the_task_is_found_from_the_targets(y: Any, task: str, classes: list[str] | None) -> None:
    data = load((X, y))
    assert (data.task, data.classes) == (task, classes)
    assert data.outputs == (1 if task != "classification" else 3)


def test_labels_with_gaps_are_numbered_anew_with_a_notice() -> None:
    data = load((X, LABELS * 5 + 1), validation=0)
    assert train(data).targets.tolist() == LABELS.tolist()
    assert any("numbered anew: 1 → 0, 6 → 1, 11 → 2" in n for n in data.notices)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X[:49], NUMBERS, r"49 inputs \[49, 4\] and 50 targets \[50\]"),
        (X[:0], NUMBERS[:0], "has no samples"),
        (X[:, :0], NUMBERS, "no number in a sample"),
        (X[:1], NUMBERS[:1], "single sample"),
        (X.astype(np.complex64), NUMBERS, r"complex \(torch.complex64\)"),
        (X, NUMBERS.astype(np.complex64), "the target is complex"),
        (np.array([["a", "b"]] * 50), NUMBERS, "of type <U1: give numbers"),
        ([[1, 2], [3, "x"]], [1.0, 2.0], "give numbers"),
        (
            np.array([[1, 2], [3, "x"]], dtype=object),
            [1.0, 2.0],
            "the inputs, row 2, column 2: 'x' is not a number",
        ),
        ([[1, 2], [3]], [1.0, 2.0], "no regular shape"),
        (np.where(X[3, 2] == X, np.nan, X), NUMBERS, "the inputs, row 4, column 3: the value is nan"),
        (np.where(X[3, 2] == X, np.inf, X), NUMBERS, "row 4, column 3: the value is inf"),
        (X, np.where(NUMBERS[7] == NUMBERS, np.nan, NUMBERS), "the target, row 8: the target is nan"),
        (X, LABELS - 1, "row 1: label -1 is out of range; labels are whole numbers from 0"),
        (X, np.zeros(50, dtype=int), "a single class, '0'"),
        (X, np.float32(3), "the target is a single value"),
        (np.float32(3), NUMBERS, "single number"),
    ],
)
def test_bad_arrays_are_refused(x: Any, y: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load((x, y))


def test_one_sample_can_be_learnt_from_when_nothing_is_held_out() -> None:
    data = load((torch.tensor([[1.0]]), torch.tensor([2.0])), validation=0)
    assert (len(data.train), data.validation) == (1, None)


def test_a_held_out_pair_of_its_own() -> None:
    data = load((X[:40], LABELS[:40]), validation=(X[40:], LABELS[40:]))
    assert (len(data.train), len(data.validation or ())) == (40, 10)
    with pytest.raises(
        DataError, match=r"held-out inputs have the shape \[3\] a sample, the training inputs \[4\]"
    ):
        load((X[:40], LABELS[:40]), validation=(X[40:, :3], LABELS[40:]))
    with pytest.raises(DataError, match=r"row 1: '6' is not one of the classes 0, 1, 2"):
        load((X[:40], LABELS[:40]), validation=(X[40:], LABELS[40:] + 5))


def test_custom_targets_stay_as_they_are() -> None:
    data = load((X, LABELS[:, None] * 1.0), task="custom", validation=0)
    assert (data.task, train(data).targets.shape) == ("custom", (50, 1))


def test_augmentation_is_a_function_of_seed_epoch_and_index() -> None:
    def shake(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + torch.rand(x.shape, generator=generator)

    data = load((X, NUMBERS), transform=shake, seed=1)
    source = train(data)
    assert not source.gatherable
    rows = torch.tensor([3, 9, 4])
    first = source.batch(rows, 2)[0]
    torch.rand(7)
    assert torch.equal(source.batch(rows.flip(0), 2)[0].flip(0), first)
    assert not torch.equal(source.batch(rows, 3)[0], first)
    assert isinstance(data.validation, TensorSource)
    assert data.validation.gatherable


@pytest.mark.parametrize("names", [("X", "y"), ("inputs", "targets"), ("X_train", "y_train")])
def test_npz(tmp_path: Path, names: tuple[str, str]) -> None:
    np.savez(tmp_path / "t.npz", **{names[0]: X, names[1]: LABELS, "extra": X})
    data = load(tmp_path / "t.npz")
    assert (data.task, len(data.train), data.input_shape) == ("classification", 40, (4,))
    assert torch.allclose(train(data).inputs.mean(0), torch.zeros(4), atol=1e-6)


def test_npz_with_a_held_out_part(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "t.npz", X_train=X[:40], y_train=LABELS[:40], X_test=X[40:], y_test=LABELS[40:]
    )
    assert len(load(tmp_path / "t.npz").validation or ()) == 10
    assert len(load(tmp_path / "t.npz", validation=0.5).validation or ()) == 20
    np.savez(tmp_path / "held.npz", X=X[:5], y=LABELS[:5])
    assert len(load(tmp_path / "t.npz", validation=tmp_path / "held.npz").validation or ()) == 5


def test_bad_npz_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "names.npz", features=X, answers=LABELS)
    with pytest.raises(DataError, match=r"holds features, answers.*name the arrays X and y"):
        load(tmp_path / "names.npz")
    np.savez(tmp_path / "objects.npz", X=np.array([{}], dtype=object), y=LABELS[:1])
    with pytest.raises(DataError, match=r"save plain arrays"):
        load(tmp_path / "objects.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "names.npz").read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        load(tmp_path / "torn.npz")


def test_the_fingerprint_follows_content_and_split() -> None:
    other = X.copy()
    other[7, 1] = np.nextafter(other[7, 1], np.float32(9))
    prints = {
        load((x, LABELS), seed=s, validation=v).fingerprint
        for x, s, v in [(X, 0, 0.2), (other, 0, 0.2), (X, 1, 0.2), (X, 0, 0.3)]
    }
    assert len(prints) == 4
    assert load((torch.from_numpy(X), LABELS), validation=0.2).fingerprint in prints
    flat = np.arange(48, dtype=np.float32)
    shapes = [flat.reshape(12, 4), flat.reshape(12, 2, 2), flat.reshape(12, 1, 4)]
    assert len({load((x, LABELS[:12])).fingerprint for x in shapes}) == 3


@pytest.mark.parametrize("source", [42, None, [X], (X, LABELS, X), {"X": X}])
def test_what_cannot_be_loaded_is_refused_with_what_can(source: Any) -> None:
    with pytest.raises(UsageError, match=r"cannot be loaded: give a \.csv.*a pair \(X, y\)"):
        load(source)


def test_data_is_given_back_and_seeds_are_whole_numbers() -> None:
    data = load((X, LABELS))
    assert load(data) is data
    with pytest.raises(UsageError, match=r"seed='a': give a whole number"):
        load((X, LABELS), seed="a")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"validation='half'"):
        load((X, LABELS), validation="half")
    assert len(load((X, LABELS), validation="0.5").validation or ()) == 25


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("a,y\n1,2\n")
    with pytest.raises(DataError, match=r"neither a file nor a name.*did you mean 'prices.csv'"):
        load(tmp_path / "price.csv", target="y")
    with pytest.raises(DataError, match=r"neither a file nor a name.*did you mean 'digits'"):
        load("digit")
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(DataError, match=r"ending that is not known \(.docx\)"):
        load(tmp_path / "notes.docx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is a folder without images"):
        load(tmp_path / "empty")
