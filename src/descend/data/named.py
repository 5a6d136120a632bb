"""Data by name: what scikit-learn brings along, and what it can fetch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from . import images, tables
from .arrays import Arrays, finish
from .options import Options
from .sources import Data

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
FETCHED = {"mnist": "mnist_784", "fashion_mnist": "Fashion-MNIST", "adult": "adult"}
FOLDER_VARIABLE = "DESCEND_DATA"
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it


def names() -> list[str]:
    """The names that `load` knows, bundled ones first.

    >>> names()[:2]
    ['breast_cancer', 'diabetes']
    """
    return [*BUNDLED, *FETCHED]


def load_named(name: str, options: Options) -> Data:
    """A set by its name.

    Raises:
        UsageError: scikit-learn is not installed, or a target was named that is not the set's.
        DataError: the set must be fetched and cannot be.
    """
    try:
        import sklearn.datasets as sets
    except ImportError:
        raise UsageError(f"{name!r} comes with scikit-learn: pip install 'descend[data]'") from None
    if name == "digits":
        bunch = sets.load_digits()
        arrays = images.from_pixels(bunch.images, bunch.target, name)
        arrays.features = list(bunch.feature_names)
        return _finish(arrays, None, options)
    if name in BUNDLED:
        return _bundled_table(getattr(sets, f"load_{name}")(as_frame=True), name, options)
    if name == "adult":
        return _adult(sets.fetch_openml, options)
    return _image_set(name, sets.fetch_openml, options)


def _finish(arrays: Arrays, held_out: Arrays | None, options: Options) -> Data:
    return finish(arrays, options, held_out, standardise=options.standardise is not False)


def _bundled_table(bunch: Any, name: str, options: Options) -> Data:
    frame = bunch.frame
    if "target_names" in bunch:
        frame["target"] = np.asarray(bunch.target_names)[bunch.target.to_numpy()]
    return tables.load_table(frame, name, _with_target(options, "target"))


def _with_target(options: Options, target: str) -> Options:
    from dataclasses import replace

    return replace(options, target=options.target or target)


def _local(name: str, *endings: str) -> Path | None:
    """A set's own file or folder in the folder that DESCEND_DATA names."""
    folder = os.environ.get(FOLDER_VARIABLE)
    found = (Path(folder) / f"{name}{ending}" for ending in endings) if folder else iter(())
    return next((p for p in found if p.exists()), None)


def _fetch(fetch: Callable[..., Any], name: str, wanted: str) -> Any:
    try:
        with warnings.catch_warnings():  # of a first attempt that failed: the error below says more
            warnings.simplefilter("ignore")
            return fetch(
                FETCHED[name],
                version=2 if name == "adult" else 1,
                as_frame=name == "adult",
                n_retries=1,
                delay=0.1,
            )
    except Exception as error:
        raise DataError(
            f"{name!r} could not be fetched from openml.org ({type(error).__name__}: {error}). "
            f"Without a network: run sklearn.datasets.fetch_openml({FETCHED[name]!r}) where there is one "
            f"and copy ~/scikit_learn_data, or put {wanted} into a folder and set {FOLDER_VARIABLE} to it"
        ) from None


def _adult(fetch: Callable[..., Any], options: Options) -> Data:
    local = _local("adult", ".csv", ".parquet", ".parquet.brotli")
    if local:
        frame, where = tables.read(local, options.encoding)
        target = next(
            (c for c in ("income", "class", "target") if c in frame.columns), str(frame.columns[-1])
        )
        return tables.load_table(frame, "adult", _with_target(options, target), where=where)
    bunch = _fetch(fetch, "adult", "adult.csv (with a header, the target last)")
    return tables.load_table(bunch.frame, "adult", _with_target(options, "class"))


def _image_set(name: str, fetch: Callable[..., Any], options: Options) -> Data:
    folder = _local(name, "") or _local(name.replace("_", "-"), "")
    if folder is None and name == "fashion_mnist" and FASHION_FOLDER.is_dir():
        folder = FASHION_FOLDER
    if folder:
        return _finish(*images.load_idx(folder, name, whole=not options.own_split), options)
    bunch = _fetch(fetch, name, f"a folder {name} with the four IDX files (train-images-idx3-ubyte.gz, …)")
    pixels = np.asarray(bunch.data, dtype=np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(bunch.target).astype(np.int64)
    held_out = None
    if options.own_split and len(pixels) == 70_000:  # the official split: the last 10,000 are the test set
        held_out = images.from_pixels(pixels[60_000:], labels[60_000:], name)
        pixels, labels = pixels[:60_000], labels[:60_000]
    return _finish(images.from_pixels(pixels, labels, name), held_out, options)
