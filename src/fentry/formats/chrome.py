"""Chrome's trace event format, the JSON object form: instant events, one track a thread.

Source: "Trace Event Format" of the Chromium project: `ph` "i" is an instant event, `s` "t" one of a
thread, `ts` counts microseconds, "M" is metadata.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fentry.events.columns import Events
from fentry.formats.exports import Source, need_times

_AT_ONCE = 65536


def write(source: Source, out: Path) -> None:
    """Write a file that chrome://tracing and ui.perfetto.dev open.

    Raises BadInput without times.
    """
    need_times(source, "chrome")
    pid = source.trace.meta.pid
    threads: set[int] = set()
    with out.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
        file.write(_metadata("process_name", pid, 0, source.trace.meta.exe))
        for events in source.selected.merged():
            for start in range(0, len(events), _AT_ONCE):
                part = events.take(slice(start, start + _AT_ONCE))
                for tid in np.unique(part.tid).tolist():
                    if tid not in threads:
                        threads.add(tid)
                        first = part.take(part.tid == tid).take(slice(0, 1))
                        comm = source.tasks.unpack(int(source.tasks.keys(first)[0]))[0]
                        name = comm.decode(errors="replace")
                        file.write(",\n" + _metadata("thread_name", pid, tid, name))
                file.write("".join(_lines(source, part, pid)))
        file.write("\n]}\n")


def _metadata(kind: str, pid: int, tid: int, name: str) -> str:
    return json.dumps({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}})


def _lines(source: Source, events: Events, pid: int) -> list[str]:
    source.symbols.forget_unknown()
    functions = source.symbols.of_ips(events.ip).tolist()
    names = _quoted(source, functions)
    micros, nanos = np.divmod(events.time_ns, 1000)
    columns = zip(functions, events.tid.tolist(), micros.tolist(), nanos.tolist(), strict=True)
    lines = [
        f',\n{{"ph":"i","s":"t","pid":{pid},"tid":{tid},"ts":{micro}.{nano:03},"name":{names[name]}'
        for name, tid, micro, nano in columns
    ]
    if events.parent_ip is None:
        return [line + "}" for line in lines]
    parents = source.symbols.of_returns(events.parent_ip).tolist()
    names = _quoted(source, parents)
    return [
        f'{line},"args":{{"parent":{names[parent]}}}}}'
        for line, parent in zip(lines, parents, strict=True)
    ]


def _quoted(source: Source, ids: list[int]) -> dict[int, str]:
    return {one: json.dumps(source.symbols.names[one].decode(errors="replace")) for one in set(ids)}
