"""Apache Parquet: a row for each call, for DuckDB, Spark, pandas and the like.

Columns: time_ns (int64, CLOCK_MONOTONIC; without times `count`, the records before on the same
CPU), cpu, tid, comm, ip, function, module (empty where it is not known), and where there are
parents parent_ip and parent.  Texts are dictionary encoded, times DELTA_BINARY_PACKED (Apache
Parquet, Encodings.md), all pages zstd.  The metadata of the schema has a key `fentry`: JSON with
meta (META of the trace), losses of each CPU, and clock_pairs, which are moments as [monotonic_ns,
realtime_ns].
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fentry.errors import FentryError
from fentry.events.columns import Events, concatenate
from fentry.formats.exports import Source
from fentry.formats.id_cache import IdCache, Ids, Values
from fentry.formats.task_names import TaskNames
from fentry.formats.tracefile_payloads import encode_json
from fentry.formats.tracefile_reader import TraceReader

ROWS_AT_ONCE = 1 << 17
"""Rows of a row group: 8 MB before they are encoded, and about what DuckDB makes them (122,880)."""


def write(source: Source, out: Path) -> None:
    """Write a Parquet file. Raises FentryError where pyarrow is not installed."""
    arrow, parquet = _import("pyarrow"), _import("pyarrow.parquet")
    rows = _Rows(source, arrow)
    with parquet.ParquetWriter(
        out,
        rows.schema,
        compression="zstd",
        use_dictionary=[name for name in rows.schema.names if name != rows.time],
        write_statistics=rows.numbers,
        column_encoding={rows.time: "DELTA_BINARY_PACKED"},
    ) as writer:
        for events in _groups(source.selected.merged()):
            writer.write_batch(rows.of(events), row_group_size=ROWS_AT_ONCE)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FentryError(
            "cannot write Parquet",
            cause="the package pyarrow is not installed",
            remedy="pip install fentry[analysis]",
        ) from error


def _groups(batches: Iterator[Events]) -> Iterator[Events]:
    # the same events, ROWS_AT_ONCE at a time
    held, nr_held = list[Events](), 0
    for events in batches:
        held.append(events)
        nr_held += len(events)
        while nr_held >= ROWS_AT_ONCE:
            joined = concatenate(held)
            yield joined.take(slice(0, ROWS_AT_ONCE))
            held, nr_held = [joined.take(slice(ROWS_AT_ONCE, None))], nr_held - ROWS_AT_ONCE
    if nr_held:
        yield concatenate(held)


class _Rows:
    # Events as record batches of one schema.

    def __init__(self, source: Source, arrow: Any) -> None:
        self._arrow = arrow
        self._symbols = source.symbols
        self._comms = _Comms(source.tasks)
        self._has_parent = source.trace.meta.record_bytes == 24
        self.time = "time_ns" if source.trace.has_time else "count"
        texts = arrow.dictionary(arrow.int32(), arrow.string())
        types = {
            self.time: arrow.int64(),
            "cpu": arrow.uint16(),
            "tid": arrow.uint32(),
            "comm": texts,
            "ip": arrow.uint64(),
            "function": texts,
            "module": texts,
        }
        if self._has_parent:
            types |= {"parent_ip": arrow.uint64(), "parent": texts}
        # to find the least and the greatest text of a group costs more than to write all texts
        self.numbers = [name for name, kind in types.items() if kind != texts]
        fields = [arrow.field(name, kind, nullable=False) for name, kind in types.items()]
        self.schema = arrow.schema(fields, metadata={"fentry": _metadata(source.trace)})

    def of(self, events: Events) -> Any:
        """The rows of a group of events."""
        symbols = self._symbols
        symbols.forget_unknown()
        functions = symbols.of_ips(events.ip)
        columns = [
            events.time_ns,
            events.cpu,
            events.tid,
            self._dictionary(self._comms.of(events), self._comms.names),
            events.ip,
            self._dictionary(functions, symbols.names),
            self._dictionary(functions, symbols.modules),
        ]
        if self._has_parent:
            columns += self._parents(events)
        arrays = [self._arrow.array(column) for column in columns]
        return self._arrow.record_batch(arrays, schema=self.schema)

    def _parents(self, events: Events) -> list[Any]:
        # a damaged trace may have records without; 0 is no return address
        ips = events.parent_ip
        ips = np.zeros(len(events), np.uint64) if ips is None else ips
        return [ips, self._dictionary(self._symbols.of_returns(ips), self._symbols.names)]

    def _dictionary(self, ids: Ids, texts: Sequence[bytes]) -> Any:
        # a dictionary of what occurs, each text once
        used = np.zeros(len(texts), np.bool_)
        used[ids] = True
        codes = np.zeros(len(texts), np.int32)
        code_of: dict[str, int] = {}
        for place in np.flatnonzero(used).tolist():
            text = texts[place].decode("utf-8", "replace")
            codes[place] = code_of.setdefault(text, len(code_of))
        values = self._arrow.array(list(code_of), self._arrow.string())
        return self._arrow.DictionaryArray.from_arrays(codes[ids], values)


class _Comms:
    # The name of each event's thread, as an id that counts in `names`.

    def __init__(self, tasks: TaskNames) -> None:
        self.names = list[bytes]()
        self._ids: dict[bytes, int] = {}
        self._tasks = tasks
        self._cache = IdCache(self._search)

    def of(self, events: Events) -> Ids:
        return self._cache.of(self._tasks.keys(events))

    def _search(self, keys: Values) -> Ids:
        comms = [self._tasks.unpack(key)[0] for key in keys.tolist()]
        for comm in comms:
            if comm not in self._ids:
                self._ids[comm] = len(self.names)
                self.names.append(comm)
        return np.array([self._ids[comm] for comm in comms], np.intp)


def _metadata(trace: TraceReader) -> bytes:
    return encode_json(
        {
            "meta": dataclasses.asdict(trace.meta),
            "losses": [cpu._asdict() for cpu in trace.losses],
            "clock_pairs": [[pair.monotonic_ns, pair.realtime_ns] for pair in trace.clock.pairs],
        }
    )
