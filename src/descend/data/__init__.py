"""Data: tables, arrays, images and Datasets, checked, split and encoded; and the batches of an epoch."""

from __future__ import annotations

from . import batches
from .batches import sample_seed
from .encode import decode, encode, probabilities
from .load import load, reload
from .named import names
from .sampled import DatasetSource, LoaderSource
from .sources import Data, Source, TensorSource

__all__ = [
    "Data",
    "DatasetSource",
    "LoaderSource",
    "Source",
    "TensorSource",
    "batches",
    "decode",
    "encode",
    "load",
    "names",
    "probabilities",
    "reload",
    "sample_seed",
]
