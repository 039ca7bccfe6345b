"""Columns as a table of Arrow or pandas: numbers as they are, names once each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.errors import FentryError

if TYPE_CHECKING:
    import pandas
    import pyarrow

Numbers = NDArray[np.int32]


class Labels(NamedTuple):
    """A column of names: place[i] is the place of the i-th among the distinct `names`, int32[n]."""

    names: list[str]
    place: Numbers


Columns = Mapping[str, NDArray[np.generic] | Labels]


def distinct(names: Sequence[str], place: Numbers) -> Labels:
    """A column of those names that are in it; some of `names` may be the same."""
    used = np.flatnonzero(np.bincount(place, minlength=len(names))).tolist()
    first: dict[str, int] = {}
    number = np.zeros(len(names), np.int32)
    for one in used:
        number[one] = first.setdefault(names[one], len(first))
    return Labels(list(first), number[place])


def to_arrow(columns: Columns, told: Mapping[str, str]) -> pyarrow.Table:
    """Names become dictionary<int32, string>; `told` is the metadata of the schema. Raises
    FentryError without pyarrow."""
    arrow = _needed("pyarrow")

    def column(values: NDArray[np.generic] | Labels) -> Any:
        if isinstance(values, Labels):
            return arrow.DictionaryArray.from_arrays(
                arrow.array(values.place), arrow.array(values.names, arrow.string())
            )
        return arrow.array(values)

    made = {name: column(values) for name, values in columns.items()}
    return arrow.table(made).replace_schema_metadata(dict(told))


def to_pandas(columns: Columns, told: Mapping[str, int]) -> pandas.DataFrame:
    """Names become categories; `told` is in `attrs`. Raises FentryError without pandas."""
    pandas = _needed("pandas")

    def column(values: NDArray[np.generic] | Labels) -> Any:
        if isinstance(values, Labels):
            return pandas.Categorical.from_codes(values.place, categories=values.names)
        return values

    frame = pandas.DataFrame({name: column(values) for name, values in columns.items()})
    frame.attrs.update(told)
    return frame


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FentryError(
            f"this needs {name}", cause=str(error), remedy="pip install 'fentry[analysis]'"
        ) from error
