"""Columns of a table: their types found, and their encoding as numbers fitted on the training part.

The rules, each recorded in the recipe:

- number: standardised; a missing value becomes the training part's median.
- category (text): a column of 0 and 1 per value; with more than 64 values, the 64 most frequent have a column
  each and the rest share one. A missing value, or one not seen in training, sets none of them.
- date: days since 1970-01-01, then as a number.
- dropped: constant columns, columns without values, row numbers, and text of which more than half is
  different in every row (names, keys).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    import pandas as pd

TYPES = ("number", "category", "date", "drop")
MOST_VALUES = 64
FAR = 20  # deviations from the mean that are worth a notice
ROW_NUMBER_NAMES = {"", "id", "index", "row", "rowid", "rownames", "unnamed: 0"}
Where = Callable[[int], str]
Floats = NDArray[np.float64]


def numbers(series: pd.Series[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """A column as float64 with NaN for missing values, and a mask of the values that are no numbers."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_numeric_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(series), dtype=bool)
    text = series.astype("object").map(
        lambda v: {"true": 1, "false": 0}.get(str(v).lower(), v), na_action="ignore"
    )
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return values, np.isnan(values) & series.notna().to_numpy()


def days(series: pd.Series[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """A column of dates as days since 1970-01-01, and a mask of the values that are no dates."""
    import pandas as pd

    times = series
    if not pd.api.types.is_datetime64_any_dtype(series.dtype):
        times = pd.to_datetime(series.astype("object"), format="ISO8601", errors="coerce", utc=True)
    values = times.to_numpy(dtype="datetime64[ns]", na_value=np.datetime64("NaT"))
    result = (values - np.datetime64(0, "ns")) / np.timedelta64(1, "D")
    return result, np.isnan(result) & series.notna().to_numpy()


def texts(series: pd.Series[Any]) -> NDArray[np.object_]:
    """A column as text, with None for missing values."""
    values = [None if missing else str(v).strip() for v, missing in zip(series, series.isna(), strict=True)]
    return np.array(values, dtype=object)


def find_type(series: pd.Series[Any], name: str, where: Where) -> tuple[str, str]:
    """The type of a column and, for a dropped one, the reason.

    Raises:
        DataError: some text in a column of numbers, or dates, or a column that holds lists.
    """
    import pandas as pd

    known = series.notna().to_numpy()
    if not known.any():
        return "drop", "it has no values"
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return "date", ""
    if pd.api.types.is_numeric_dtype(series.dtype) or pd.api.types.is_bool_dtype(series.dtype):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        if name.strip().lower() in ROW_NUMBER_NAMES and len(values) > 2 and np.all(np.diff(values) == 1):
            return "drop", "it numbers the rows"
        return "number", ""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "category", ""
    first = series[known].iloc[0]
    if isinstance(first, (list, dict, np.ndarray)):
        raise DataError(f"column {name!r} holds lists; give each number a column of its own, or drop it")
    values, bad = numbers(series)
    if not bad.any():
        return "number", ""
    if bad.sum() < known.sum() / 2:
        _refuse(series, bad, name, where, "number")
    _, bad = days(series)
    if bad.sum() < known.sum() / 2:
        if bad.any():
            _refuse(series, bad, name, where, "date")
        return "date", ""
    distinct = series.nunique()
    if distinct > 20 and distinct > known.sum() / 2:
        return "drop", f"it is text with {distinct} different values in {int(known.sum())} rows"
    return "category", ""


def _refuse(series: pd.Series[Any], bad: NDArray[np.bool_], name: str, where: Where, kind: str) -> None:
    i = int(np.flatnonzero(bad)[0])
    more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
    raise DataError(
        f"column {name!r}, {where(i)}: {str(series.iloc[i])!r} is no {kind} in a column of {kind}s{more}; "
        f"mend it, leave it empty for a missing value, or say types={{{name!r}: 'category'}} to take the "
        "column as text"
    )


def check_types(types: dict[str, str] | None, columns: list[str]) -> dict[str, str]:
    """The user's types, checked.

    Raises:
        UsageError: an unknown type.
        DataError: an unknown column.
    """
    for name, kind in (types or {}).items():
        if name not in columns:
            raise DataError(
                f"types: there is no column {name!r}{nearest(name, columns)}; there are {', '.join(columns)}"
            )
        if kind not in TYPES:
            raise UsageError(f"types: {kind!r} for column {name!r}; choose one of {', '.join(TYPES)}")
    return dict(types or {})


def fit(
    frame: pd.DataFrame, train: NDArray[np.int64], types: dict[str, str], standardise: bool, where: Where
) -> tuple[list[dict[str, Any]], list[str]]:
    """The recipe of each column, fitted on the rows `train`, and notices. Types are found on all rows."""
    recipes, notices = [], []
    for name in frame.columns:
        kind, why = (types[name], "as asked") if name in types else find_type(frame[name], name, where)
        recipe = _fit_column(frame[name], name, kind, why, train, standardise, where)
        recipes.append(recipe)
        notices += _notices(frame[name], recipe, name in types)
    if all(recipe["type"] == "drop" for recipe in recipes):
        raise DataError(
            "no column is left to learn from: " + "; ".join(notices or ["the target is the only one"])
        )
    return recipes, notices


def _fit_column(
    series: pd.Series[Any],
    name: str,
    kind: str,
    why: str,
    train: NDArray[np.int64],
    standardise: bool,
    where: Where,
) -> dict[str, Any]:
    if kind == "drop":
        return {"name": name, "type": "drop", "why": why}
    if kind == "category":
        values = texts(series.iloc[train])
        found, counts = np.unique(values[values != None].astype(str), return_counts=True)  # noqa: E711
        if len(found) == 0:
            return {"name": name, "type": "drop", "why": "it has no values in the training part"}
        if len(found) == 1 and not any(v is None for v in values):
            return {"name": name, "type": "drop", "why": "it is constant"}
        kept = sorted(found[np.argsort(-counts, kind="stable")[:MOST_VALUES]].tolist())
        return {
            "name": name,
            "type": "category",
            "values": kept,
            "rest": len(found) > MOST_VALUES,
            "distinct": len(found),
        }
    numeric, bad = (days if kind == "date" else numbers)(series)
    if bad.any():
        _refuse(series, bad, name, where, kind)
    if np.isinf(numeric).any():
        i = int(np.flatnonzero(np.isinf(numeric))[0])
        raise DataError(f"column {name!r}, {where(i)}: the value is infinite; mend it or leave it empty")
    known = numeric[train][~np.isnan(numeric[train])]
    if len(known) == 0:
        return {"name": name, "type": "drop", "why": "it has no values in the training part"}
    if known.min() == known.max():
        return {"name": name, "type": "drop", "why": "it is constant"}
    fill = float(np.median(known))
    filled = np.where(np.isnan(numeric[train]), fill, numeric[train])
    mean, std = float(filled.mean()), float(filled.std())
    if not standardise:
        return {"name": name, "type": kind, "mean": 0.0, "std": 1.0, "fill": fill}
    far = float(np.abs(filled - mean).max()) / std
    recipe = {"name": name, "type": kind, "mean": mean, "std": std, "fill": fill}
    return {**recipe, "far": far} if far > FAR else recipe


def _notices(series: pd.Series[Any], recipe: dict[str, Any], asked: bool) -> list[str]:
    name, kind = recipe["name"], recipe["type"]
    if kind == "drop":
        return [] if asked else [f"column {name!r} is left out: {recipe['why']}"]
    notices = []
    missing = int(series.isna().sum())
    if missing and kind == "category":
        notices.append(
            f"column {name!r} misses {missing} of {len(series)} values: they set none of its columns"
        )
    elif missing:
        notices.append(
            f"column {name!r} misses {missing} of {len(series)} values: filled with the median "
            f"{recipe['fill']:g}"
        )
    if kind == "date":
        notices.append(f"column {name!r} holds dates: taken as days since 1970-01-01")
    if "far" in recipe:
        notices.append(
            f"column {name!r} has a value {recipe['far']:.0f} deviations from its mean: "
            "an outlier can upset training"
        )
    if recipe.get("rest"):
        notices.append(
            f"column {name!r} has {recipe['distinct']} values: the {MOST_VALUES} most frequent "
            "have a column each, the rest share one"
        )
    return notices


def feature_names(recipes: list[dict[str, Any]]) -> list[str]:
    """The names of the encoded columns, such as `age` and `city=Paris`."""
    names: list[str] = []
    for recipe in recipes:
        if recipe["type"] == "category":
            names += [f"{recipe['name']}={value}" for value in recipe["values"]]
            names += [f"{recipe['name']}=(other)"] if recipe["rest"] else []
        elif recipe["type"] != "drop":
            names.append(recipe["name"])
    return names


def encode(recipes: list[dict[str, Any]], frame: pd.DataFrame, where: Where) -> NDArray[np.float32]:
    """Rows as float32 [N, features] by the recipes of their columns.

    Raises:
        DataError: a column is missing, or holds what its type does not allow.
    """
    result = np.zeros((len(frame), len(feature_names(recipes))), dtype=np.float32)
    place = 0
    for recipe in recipes:
        name, kind = recipe["name"], recipe["type"]
        if kind == "drop":
            continue
        if name not in frame.columns:
            given = [str(column) for column in frame.columns]
            raise DataError(
                f"there is no column {name!r}{nearest(name, given)}; the columns given are {', '.join(given)}"
            )
        if kind == "category":
            width = len(recipe["values"]) + recipe["rest"]
            _encode_category(recipe, texts(frame[name]), result[:, place : place + width])
            place += width
            continue
        values, bad = (days if kind == "date" else numbers)(frame[name])
        if bad.any():
            _refuse(frame[name], bad, name, where, kind)
        filled = np.where(np.isnan(values), recipe["fill"], values)
        result[:, place] = (filled - recipe["mean"]) / recipe["std"]
        place += 1
    return result


def _encode_category(recipe: dict[str, Any], values: NDArray[np.object_], out: NDArray[np.float32]) -> None:
    number = {value: k for k, value in enumerate(recipe["values"])}
    rest = len(number) if recipe["rest"] else -1
    found = np.array([-1 if v is None else number.get(v, rest) for v in values], dtype=np.int64)
    rows = np.flatnonzero(found >= 0)
    out[rows, found[rows]] = 1.0
