"""A Table as a table of Arrow or pandas: numbers as they are, names once each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.errors import FentryError

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from fentry.tracing.table import Numbers, Table


class Labels(NamedTuple):
    """A column of names: place[i] is the place of the i-th among the distinct `names`, int32[n]."""

    names: list[str]
    place: Numbers


def to_arrow(table: Table) -> pyarrow.Table:
    """int64 time_ns, uint16 cpu, uint32 tid, dictionary<int32, string> comm, function, module,
    uint64 ip; and parent, parent_ip as those, where records have parents.

    What was lost is in the schema's metadata. Raises FentryError without pyarrow.
    """
    arrow = _needed("pyarrow")

    def column(values: NDArray[np.generic] | Labels) -> Any:
        if isinstance(values, Labels):
            return arrow.DictionaryArray.from_arrays(
                arrow.array(values.place), arrow.array(values.names, arrow.string())
            )
        return arrow.array(values)

    columns = {name: column(values) for name, values in _columns(table)}
    told = {"clock": "CLOCK_MONOTONIC" if table.has_time else "records before on the CPU"}
    told |= {name: str(count) for name, count in table.lost._asdict().items()}
    return arrow.table(columns).replace_schema_metadata(told)


def to_pandas(table: Table) -> pandas.DataFrame:
    """The columns of to_arrow(), names as categories. What was lost is in `attrs`.

    Raises FentryError without pandas.
    """
    pandas = _needed("pandas")

    def column(values: NDArray[np.generic] | Labels) -> Any:
        if isinstance(values, Labels):
            return pandas.Categorical.from_codes(values.place, categories=values.names)
        return values

    frame = pandas.DataFrame({name: column(values) for name, values in _columns(table)})
    frame.attrs.update(table.lost._asdict())
    return frame


def _columns(table: Table) -> Iterator[tuple[str, NDArray[np.generic] | Labels]]:
    names = [function.name for function in table.functions]
    modules = [function.module for function in table.functions]
    yield "time_ns", table.time_ns
    yield "cpu", table.cpu
    yield "tid", table.tid
    yield "comm", _distinct(*table.comm_labels())
    yield "function", _distinct(names, table.function_id)
    yield "module", _distinct(modules, table.function_id)
    yield "ip", table.ip
    if table.parent_id is not None and table.parent_ip is not None:
        yield "parent", _distinct(names, table.parent_id)
        yield "parent_ip", table.parent_ip


def _distinct(names: list[str], place: Numbers) -> Labels:
    # Several functions, or threads, may have one name.
    first: dict[str, int] = {}
    number = [first.setdefault(name, len(first)) for name in names]
    return Labels(list(first), np.array(number, np.int32)[place])


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FentryError(
            f"this needs {name}", cause=str(error), remedy="pip install 'fentry[analysis]'"
        ) from error
