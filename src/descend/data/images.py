"""Images: IDX files as MNIST has them, and folders with a folder per class."""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, UsageError
from .arrays import Arrays

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
HELD_OUT = ("validation", "valid", "val", "test")
MOST_BYTES = 8 << 30
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_NO_PILLOW = "reading images needs pillow: pip install 'descend[data]'"


def is_idx(path: Path) -> bool:
    """Whether a file is IDX by its name, such as `train-images-idx3-ubyte.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return "idx" in name and name.endswith(("ubyte", ".idx", "idx1", "idx3"))


def read_idx(path: Path) -> NDArray[Any]:
    """The array of an IDX file, gzipped or not.

    The format: two zero bytes, the type, the number of dimensions, their sizes, the values; all big-endian.

    Raises:
        DataError: the file is not IDX, or shorter or longer than its header says.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: damaged gzip file ({error})") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise DataError(
            f"{path} is no IDX file: it must start with two zero bytes and a type, not {raw[:4].hex()}"
        )
    dims = raw[3]
    start = 4 + 4 * dims
    if len(raw) < start:
        raise DataError(f"{path} ends within its header")
    shape = struct.unpack(f">{dims}I", raw[4:start])
    dtype = np.dtype(_IDX_TYPES[raw[2]])
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(raw) - start != wanted:
        raise DataError(
            f"{path} has {len(raw) - start} bytes of values where its header says {wanted}: a torn file"
        )
    array = np.frombuffer(raw, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _idx_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The (images, labels) pairs of a folder, training part first."""
    pairs: list[tuple[Path, Path]] = []
    for images in sorted(p for p in folder.iterdir() if is_idx(p) and "images" in p.name.lower()):
        labels = _labels_of(images)
        if labels is not None and not any(
            images.name.removesuffix(".gz") == p[0].name.removesuffix(".gz") for p in pairs
        ):
            pairs.append((images, labels))
    return sorted(pairs, key=lambda p: not p[0].name.lower().startswith("train"))


def _labels_of(images: Path) -> Path | None:
    bare = images.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    return next((p for p in (images.with_name(bare), images.with_name(bare + ".gz")) if p.exists()), None)


def has_idx(folder: Path) -> bool:
    """Whether a folder holds IDX images."""
    return any(is_idx(p) and "images" in p.name.lower() for p in folder.iterdir() if p.is_file())


def load_idx(path: Path, name: str, *, whole: bool) -> tuple[Arrays, Arrays | None]:
    """IDX images with their labels: of one file, or of a folder with its `train-` and `t10k-` files.

    The latter are the held-out part, unless the training part is wanted `whole`, to be split.

    Raises:
        DataError: labels missing, or not as many as images.
    """
    if path.is_dir():
        pairs = _idx_pairs(path)
        if not pairs:
            raise DataError(
                f"{path} has IDX images and no labels beside them (such as train-labels-idx1-ubyte)"
            )
    else:
        labels = _labels_of(path)
        if "images" not in path.name.lower() or labels is None:
            raise DataError(
                f"{path}: give the images file, with its labels file beside it (…-labels-idx1-ubyte)"
            )
        pairs = [(path, labels)]
    parts = [_idx_part(images, labels, name) for images, labels in pairs[:2]]
    held_out = parts[1] if len(parts) > 1 and not whole else None
    return parts[0], held_out


def _idx_part(images: Path, labels: Path, name: str) -> Arrays:
    pixels, numbers = read_idx(images), read_idx(labels)
    if len(pixels) != len(numbers):
        raise DataError(f"{images} has {len(pixels)} images and {labels} {len(numbers)} labels")
    return from_pixels(pixels, numbers, name)


def from_pixels(pixels: NDArray[Any], labels: NDArray[Any], name: str, **facts: Any) -> Arrays:
    """Images [N, H, W], [N, H, W, C] or rows, as channels first: [N, C, H, W]."""
    if len(pixels) == 0:
        raise DataError(f"{name} has no images: give at least one")
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(torch.get_default_dtype())
    tensor = (
        tensor[:, None]
        if tensor.dim() == 3
        else tensor.movedim(-1, 1).contiguous()
        if tensor.dim() == 4
        else tensor
    )
    return Arrays(name, "images", tensor, labels, target_name="the label", facts=facts)


def has_class_folders(folder: Path) -> bool:
    """Whether a folder holds folders with images."""
    return any(_images_in(sub) or any(map(_images_in, _folders(sub))) for sub in _folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def load_folder(
    folder: Path, name: str, size: tuple[int, int] | None, *, whole: bool
) -> tuple[Arrays, Arrays | None]:
    """A folder with a folder of images per class, or with such folders named `train` and `test` (or `val`).

    All images are scaled to one size: `size` (height, width), or else the most frequent size among them. They
    have one channel where all are grey, three otherwise; transparency is dropped.

    Raises:
        DataError: a damaged image, an empty class, images that would not fit in memory.
    """
    subs = _folders(folder)
    train = next((s for s in subs if s.name == "train"), None)
    if train is None:
        return _read_classes(folder, name, size, None), None
    arrays = _read_classes(train, name, size, None)
    held = next((s for wanted in HELD_OUT for s in subs if s.name == wanted), None)
    if held is None or whole:
        return arrays, None
    height, width = arrays.inputs.shape[2:]
    return arrays, _read_classes(held, f"{name} ({held.name})", (height, width), arrays.facts["mode"])


def _read_classes(folder: Path, name: str, size: tuple[int, int] | None, mode: str | None) -> Arrays:
    classes = [(sub.name, _images_in(sub)) for sub in _folders(folder)]
    for label, files in classes:
        if not files:
            raise DataError(
                f"{folder / label} has no images ({', '.join(SUFFIXES)}): fill or remove the folder"
            )
    paths = [p for _, files in classes for p in files]
    labels = np.array([label for label, files in classes for _ in files])
    sizes, modes = _survey(paths)
    most = Counter(sizes).most_common(1)[0][0]
    chosen = size or most
    mode = mode or ("L" if modes <= {"1", "L", "I;16", "I"} else "RGB")
    wanted = len(paths) * chosen[0] * chosen[1] * (1 if mode == "L" else 3) * 4
    if wanted > MOST_BYTES:
        raise DataError(
            f"{folder}: {len(paths)} images of {chosen[0]}×{chosen[1]} need {wanted / 2**30:.1f} GiB; "
            "pass image_size=… (--image-size), such as 64"
        )
    pixels = np.stack([read_image(p, chosen, mode) for p in paths])
    arrays = from_pixels(pixels, labels, name, mode=mode)
    odd = sum(s != chosen for s in sizes)
    if odd:
        arrays.notices.append(
            f"{odd} of {len(paths)} images had another size: scaled to {chosen[0]}×{chosen[1]}"
        )
    return arrays


def _survey(paths: list[Path]) -> tuple[list[tuple[int, int]], set[str]]:
    try:
        from PIL import Image
    except ImportError:
        raise UsageError(_NO_PILLOW) from None
    sizes, modes = [], set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.append((image.height, image.width))
                modes.add(image.mode)
        except OSError as error:
            raise DataError(f"{path} cannot be read as an image: {error}") from None
    return sizes, modes


def read_image(path: Path, size: tuple[int, int], mode: str) -> NDArray[np.uint8]:
    """One image as uint8 [H, W] ("L") or [H, W, 3] ("RGB"), scaled to `size` (height, width) bilinearly."""
    try:
        from PIL import Image
    except ImportError:
        raise UsageError(_NO_PILLOW) from None
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits, which `convert` would clip
                grey = (np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8)
                converted = Image.fromarray(grey).convert(mode)
            else:
                converted = image.convert(mode)
            if (converted.height, converted.width) != size:
                converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(converted, dtype=np.uint8)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


def read_new(path: Path, recipe: dict[str, Any]) -> Tensor:
    """New images, [N, C, H, W], of an IDX file, an image, or a folder of images in the order of names."""
    if path.is_file() and is_idx(path):
        pixels: NDArray[Any] = read_idx(path)
    else:
        files = (
            [path]
            if path.is_file()
            else [*_images_in(path), *(p for sub in _folders(path) for p in _images_in(sub))]
        )
        if not files:
            raise DataError(f"{path} has no images ({', '.join(SUFFIXES)})")
        channels, height, width = recipe["shape"]
        mode = "L" if channels == 1 else "RGB"
        pixels = np.stack([read_image(p, (height, width), mode) for p in files])
    return from_pixels(pixels, np.zeros(len(pixels)), str(path)).inputs
