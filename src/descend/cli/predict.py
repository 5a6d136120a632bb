"""`descend predict RUN NEW`: new rows through the best weights of a run."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import StorageError, UsageError
from . import own, text
from .app import debug_option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..record import Run

_ROWS = 4096  # rows in one pass through the model


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("source", metavar="NEW")
@click.option("--out", type=click.Path(path_type=Path), help="The CSV file to write. [default: stdout]")
@click.option("--encoding", help="The encoding of NEW, where it is not that of the training file.")
@click.option("--last", is_flag=True, help="Use the last weights instead of the best ones.")
@debug_option
def command(run: Path, source: str, encoding: str | None, out: Path | None, last: bool) -> None:
    """Predict the rows of NEW, a file in the form that the run learnt from, with the weights of RUN.

    Writes CSV with a column `prediction` and, for classes, a column of probabilities for each. The rows are
    encoded as the run recorded it: the same columns, categories and standardisation.
    """
    import torch

    from .. import data as loading
    from .. import record

    read = record.read(run)
    about: dict[str, Any] = read.data or {}
    if "recipe" not in about:
        raise UsageError(f"{run} has no recorded data recipe, so that new rows cannot be encoded")
    model = _model(read, about, last)
    inputs = loading.encode(about["recipe"], source, encoding=encoding)
    with torch.inference_mode():
        outputs = torch.cat([model(part) for part in torch.split(inputs, _ROWS)])
    rows = _table(about, outputs)
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    try:
        with out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    except OSError as error:
        raise StorageError(f"--out {out} cannot be written: {error.strerror}") from None
    click.echo(f"{text.count(len(outputs), 'prediction')} in {out}", err=True)


def _model(run: Run, about: dict[str, Any], last: bool) -> nn.Module:
    """The model of a run, in evaluation mode, with its best or last weights."""
    import torch
    from safetensors.torch import load_file

    from .. import data as loading
    from .. import models

    path = run.path / ("final.safetensors" if last else "best.safetensors")
    if not path.is_file():
        raise StorageError(f"{path} is not there: the run has not ended; descend fit --resume {run.path}")
    chosen = dict(run.config["model"])
    name, source = str(chosen.pop("name")), str(run.config.get("data", {}).get("source", ""))
    chosen.pop("init", None)
    if own.is_own(source):
        model: nn.Module = own.make(source).model
    elif name in models.names():
        fields = ("name", "task", "outputs", "recipe", "fingerprint", "features", "classes")
        none = loading.TensorSource(torch.empty(0), torch.empty(0))
        data = loading.Data(
            train=none,
            validation=None,
            input_shape=tuple(about["input_shape"]),
            **{field: about[field] for field in fields},
        )
        model = models.build(name, data, **chosen)
    else:
        raise UsageError(
            f"the model of {run.path} was made in Python ({name}): load {path.name} into it there, with "
            "safetensors.torch.load_file"
        )
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:
        raise StorageError(f"{path} does not fit the model: {str(error).splitlines()[0]}") from error
    return model.eval()


def _table(about: dict[str, Any], outputs: Tensor) -> Iterator[list[object]]:
    """The header and the rows of the CSV."""
    from .. import data as loading

    predictions = loading.decode(about["recipe"], outputs)
    if about["task"] in ("binary", "classification"):
        classes = about["classes"] or range(outputs.shape[1])
        yield ["prediction", *(f"probability_{name}" for name in classes)]
        shares = loading.probabilities(about["recipe"], outputs)
        for label, row in zip(predictions.tolist(), shares.tolist(), strict=True):
            yield [label, *(f"{share:.6g}" for share in row)]
        return
    numbers = predictions.reshape(len(outputs), -1)
    width = numbers.shape[1]
    yield ["prediction"] if width == 1 else [f"prediction_{place + 1}" for place in range(width)]
    for row in numbers.tolist():
        yield [f"{value:.9g}" for value in row]
