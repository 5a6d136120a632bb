from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from descend.data import TensorSource, decode, encode, load
from descend.data.images import read_idx
from descend.errors import DataError, UsageError

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (40, 6, 5), dtype=np.uint8)
DIGITS = (np.arange(40) % 4).astype(np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(PIXELS[:30]))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(DIGITS[:30])))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS[30:])))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(DIGITS[30:]))
    return tmp_path


def test_idx_files_with_the_official_split(mnist: Path) -> None:
    data = load(mnist)
    assert (data.task, data.input_shape, data.outputs, data.notices) == ("classification", (1, 6, 5), 4, [])
    assert isinstance(data.train, TensorSource)
    assert isinstance(data.validation, TensorSource)
    assert (len(data.train), len(data.validation)) == (30, 10)
    assert data.validation.targets.tolist() == DIGITS[30:].tolist()
    wide = PIXELS[:30].astype(np.float64)
    expected = (PIXELS[30:] - wide.mean()) / wide.std()
    assert np.allclose(data.validation.inputs[:, 0].numpy(), expected, atol=1e-5)


def test_a_share_splits_the_training_part_itself(mnist: Path) -> None:
    assert [
        len(part or ())
        for part in (load(mnist, validation=0.5).train, load(mnist, validation=0.5).validation)
    ] == [15, 15]
    assert len(load(mnist / "t10k-images-idx3-ubyte.gz").train) == 8
    assert len(load(mnist, validation=mnist / "train-images-idx3-ubyte").validation or ()) == 30


def test_idx_types(tmp_path: Path) -> None:
    path = tmp_path / "a.idx"
    path.write_bytes(struct.pack(">BBBBI", 0, 0, 13, 1, 2) + struct.pack(">2f", 1.5, -2.0))
    assert read_idx(path).tolist() == [1.5, -2.0]
    path.write_bytes(struct.pack(">BBBBI", 0, 0, 11, 1, 2) + struct.pack(">2h", 300, -2))
    assert read_idx(path).tolist() == [300, -2]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"PK\x03\x04", "no IDX file"),
        (b"\0\0\x08\x03\0\0", "ends within its header"),
        (idx(PIXELS)[:-1], "a torn file"),
        (idx(PIXELS) + b"\0", "a torn file"),
        (b"\x1f\x8b\x08\x00", "damaged gzip"),
    ],
)
def test_bad_idx_files(mnist: Path, raw: bytes, words: str) -> None:
    (mnist / "train-images-idx3-ubyte").write_bytes(raw)
    with pytest.raises(DataError, match=words):
        load(mnist)


def test_idx_labels_missing_or_too_few(mnist: Path) -> None:
    (mnist / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(DIGITS[:29])))
    with pytest.raises(DataError, match=r"has 30 images and .* 29 labels"):
        load(mnist)
    (mnist / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"with its labels file beside it"):
        load(mnist / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match=r"give the images file"):
        load(mnist / "t10k-labels-idx1-ubyte")
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"no labels beside them"):
        load(mnist)


def picture(path: Path, value: int, size: tuple[int, int] = (8, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    noise = np.random.RandomState(value).randint(0, 40, shape)
    Image.fromarray((noise + value).astype(np.uint8)).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(6):
        picture(tmp_path / "dark" / f"{k}.png", k)
        picture(tmp_path / "light" / f"{k}.JPG", 200 + k)
    (tmp_path / "dark" / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_per_class(folder: Path) -> None:
    data = load(folder)
    assert (data.task, data.classes, data.input_shape) == ("binary", ["dark", "light"], (3, 8, 10))
    assert isinstance(data.train, TensorSource)
    bright = data.train.inputs.mean((1, 2, 3)) > 0
    assert torch.equal(bright, data.train.targets.bool())


def test_sizes_and_modes_are_made_one(folder: Path) -> None:
    picture(folder / "dark" / "big.png", 3, (20, 30))
    picture(folder / "dark" / "grey.png", 3, mode="L")
    data = load(folder)
    assert data.input_shape == (3, 8, 10)
    assert data.notices == ["1 of 14 images had another size: scaled to 8×10"]
    assert load(folder, image_size=4).input_shape == (3, 4, 4)
    assert load(folder, image_size=(4, 6)).input_shape == (3, 4, 6)
    with pytest.raises(UsageError, match=r"image_size=0"):
        load(folder, image_size=0)


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    for k in range(4):
        picture(tmp_path / "a" / f"{k}.png", k, mode="L")
        Image.fromarray(np.full((8, 10), 40_000 + k, dtype=np.uint16)).save(tmp_path / "a" / f"deep{k}.png")
        picture(tmp_path / "b" / f"{k}.png", 200 + k, mode="L")
    data = load(tmp_path, standardise=False, validation=0)
    assert data.input_shape == (1, 8, 10)
    assert isinstance(data.train, TensorSource)
    assert 155 <= data.train.inputs[4].max() <= 156  # 40,000 of 65,535, on the scale to 255


def test_folders_of_their_own_for_train_and_test(tmp_path: Path) -> None:
    for part, n in (("train", 5), ("test", 2)):
        for k in range(n):
            picture(tmp_path / part / "dark" / f"{k}.png", k)
            picture(tmp_path / part / "light" / f"{k}.png", 200 + k)
    data = load(tmp_path)
    assert [len(data.train), len(data.validation or ())] == [10, 4]
    picture(tmp_path / "test" / "odd" / "0.png", 5)
    with pytest.raises(DataError, match=r"'odd' is not one of the classes dark, light"):
        load(tmp_path)


def test_bad_folders(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no images"):
        load(folder)
    (folder / "empty").rmdir()
    (folder / "dark" / "torn.png").write_bytes((folder / "dark" / "0.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"torn\.png cannot be read as an image"):
        load(folder)
    (folder / "dark" / "torn.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"torn\.png cannot be read as an image"):
        load(folder)


def test_images_that_would_not_fit_are_refused_before_they_are_read(folder: Path) -> None:
    with pytest.raises(DataError, match=r"need .* GiB; pass image_size="):
        load(folder, image_size=10_000)


def test_new_images_are_encoded_alike(folder: Path) -> None:
    data = load(folder, validation=0)
    assert isinstance(data.train, TensorSource)
    one = encode(data.recipe, folder / "light" / "3.JPG")
    assert torch.equal(one[0], data.train.inputs[6 + 3])
    assert encode(data.recipe, folder / "dark").shape == (6, 3, 8, 10)
    assert (
        decode(data.recipe, encode(data.recipe, folder).mean((1, 2, 3))).tolist()
        == ["dark"] * 6 + ["light"] * 6
    )
    with pytest.raises(DataError, match=r"does not exist"):
        encode(data.recipe, folder / "none.png")
