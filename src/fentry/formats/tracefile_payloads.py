"""Payloads of the trace file's small sections: from Python values to bytes and back.

Pure functions: no file is touched here.  Every decode_ function raises ValueError (of which
UnicodeDecodeError and JSONDecodeError are kinds) when the bytes are not such a payload; sizes
are checked before anything is allocated by them.  Layouts: docs/formats/trace_file.md.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.events.clock import ClockPair
from fentry.formats import tracefile_layout as layout

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceMeta:
    """What was traced, where and how; the META section.

    clock         what records are dated by: "tsc" or "percpu-counter"
    tsc_hz        ticks of the tsc in a second, 0 if unknown
    stray_cpu     the number under which calls stand that are in the order of no CPU; -1 for none
    capacity      records in the ring of one CPU: with it a record's lap can be checked
    record_bytes  16, or 24 with parent_ip
    recording     names the recording, in all its files; empty if unknown
    part          which of its files this is, from 0 on
    """

    record_bytes: int
    capacity: int
    nr_cpus: int
    fentry_version: str = ""
    command_line: tuple[str, ...] = ()
    pid: int = 0
    exe: str = ""
    host: str = ""
    kernel: str = ""
    clock: str = "tsc"
    tsc_hz: int = 0
    stray_cpu: int = -1
    tracer: str = "function"
    filters: tuple[str, ...] = ()
    notrace: tuple[str, ...] = ()
    recording: str = ""
    part: int = 0


class Module(NamedTuple):
    """One file mapped in the target: [base, end) in its address space; build_id in hex."""

    path: str
    build_id: str
    base: int
    end: int


class Symbol(NamedTuple):
    """One function: [ip, ip + size_bytes) in the target's address space.

    module  position of its file in the trace's list of modules, counted from 0; -1 for none
    offset  the function's address inside its file's own numbering (what addr2line takes)
    """

    ip: int
    size_bytes: int
    name: str
    module: int = -1
    offset: int = 0


class Task(NamedTuple):
    """A thread and the name it had when looked at (CLOCK_MONOTONIC ns)."""

    tid: int
    comm: bytes
    seen_ns: int


class CpuLosses(NamedTuple):
    """Counts of one CPU since the file began, of the first file since tracing began.

    recorded        its records in the file
    dropped_events  refused because the ring was full
    overrun         overwritten before they were read
    incomplete      reserved and never committed
    """

    cpu: int
    recorded: int
    dropped_events: int
    overrun: int
    incomplete: int


def encode_json(value: Json) -> bytes:
    """UTF-8 JSON; a name that is not valid UTF-8 keeps its bytes as surrogate escapes."""
    return json.dumps(value, separators=(",", ":")).encode()


def decode_json_object(payload: bytes) -> dict[str, Json]:
    """The object in `payload`; ValueError for anything else, deep nesting included, and for texts
    that cannot be what they were made of: file names with bytes that are no UTF-8."""
    try:
        value = json.loads(payload)
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def encode_meta(meta: TraceMeta) -> bytes:
    """The META payload."""
    return encode_json(dataclasses.asdict(meta))


def decode_meta(payload: bytes) -> TraceMeta:
    """The META payload read back; fields that a newer fentry added are passed over."""
    value = decode_json_object(payload)
    known: dict[str, object] = {}
    for field in dataclasses.fields(TraceMeta):
        if field.name not in value:
            continue
        found = value[field.name]
        match field.type:
            case "int" if isinstance(found, int) and not isinstance(found, bool):
                known[field.name] = found
            case "str" if isinstance(found, str):
                known[field.name] = found
            case "tuple[str, ...]" if isinstance(found, list):
                known[field.name] = tuple(str(item) for item in found)
            case _:
                raise ValueError(f"{field.name} is not of type {field.type}")
    missing = {"record_bytes", "capacity", "nr_cpus"} - known.keys()
    if missing:
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    return TraceMeta(**known)  # type: ignore[arg-type]  # each was matched with its field's type


def encode_modules(modules: Iterable[Module]) -> bytes:
    """The MODULES payload."""
    return encode_json({"modules": [module._asdict() for module in modules]})


def decode_modules(payload: bytes) -> list[Module]:
    """The MODULES payload read back."""
    listed = decode_json_object(payload).get("modules")
    if not isinstance(listed, list):
        raise ValueError("lacks a list of modules")
    modules = []
    for item in listed:
        if not isinstance(item, dict):
            raise ValueError("a module is not an object")
        path, build_id = item.get("path"), item.get("build_id")
        base, end = item.get("base"), item.get("end")
        if not (isinstance(path, str) and isinstance(build_id, str)):
            raise ValueError("a module lacks path or build_id")
        if not (isinstance(base, int) and isinstance(end, int)):
            raise ValueError("a module lacks base or end")
        modules.append(Module(path, build_id, base, end))
    return modules


def encode_sites(keys: NDArray[np.uint32], ips: NDArray[np.uint64]) -> bytes:
    """The SITES payload: keys[i] stands for ips[i]."""
    entries = np.zeros(len(keys), layout.SITE_ENTRY)
    entries["key"] = keys
    entries["ip"] = ips
    return entries.tobytes()


def decode_sites(payload: bytes) -> NDArray[np.void]:
    """SITE_ENTRY[n]."""
    return _entries(payload, layout.SITE_ENTRY)


def encode_symbols(symbols: Sequence[Symbol]) -> bytes:
    """The SYMBOLS payload."""
    names = [symbol.name.encode("utf-8", "surrogateescape") for symbol in symbols]
    entries = np.zeros(len(symbols), layout.SYMBOL_ENTRY)
    entries["ip"] = [symbol.ip for symbol in symbols]
    entries["size_bytes"] = [symbol.size_bytes for symbol in symbols]
    entries["offset"] = [symbol.offset for symbol in symbols]
    entries["module"] = [
        layout.NO_MODULE if symbol.module < 0 else symbol.module for symbol in symbols
    ]
    lengths = np.array([len(name) for name in names], np.uint64)
    entries["name_bytes"] = lengths
    entries["name_offset"] = np.cumsum(lengths) - lengths
    blob = b"".join(names)
    head = np.array((len(symbols), len(blob)), layout.SYMBOLS_HEADER)
    return head.tobytes() + entries.tobytes() + blob


def decode_symbols(payload: bytes) -> tuple[NDArray[np.void], list[bytes]]:
    """SYMBOL_ENTRY[n] and the n names as bytes."""
    if len(payload) < layout.SYMBOLS_HEADER.itemsize:
        raise ValueError("shorter than its header")
    head = np.frombuffer(payload, layout.SYMBOLS_HEADER, 1)[0]
    count, names_bytes = int(head["count"]), int(head["names_bytes"])
    start = layout.SYMBOLS_HEADER.itemsize
    blob_start = start + count * layout.SYMBOL_ENTRY.itemsize
    if blob_start + names_bytes != len(payload):
        raise ValueError(f"{count} symbols and {names_bytes} bytes of names do not fill it")
    entries = np.frombuffer(payload, layout.SYMBOL_ENTRY, count, start)
    blob = payload[blob_start:]
    firsts = entries["name_offset"].tolist()
    lengths = entries["name_bytes"].tolist()
    if any(first + length > names_bytes for first, length in zip(firsts, lengths, strict=True)):
        raise ValueError("a name lies outside")
    names = [blob[first : first + length] for first, length in zip(firsts, lengths, strict=True)]
    return entries, names


def encode_tasks(tasks: Sequence[Task]) -> bytes:
    """The TASKS payload; a comm has at most 15 bytes (TASK_COMM_LEN, include/linux/sched.h)."""
    entries = np.zeros(len(tasks), layout.TASK_ENTRY)
    entries["tid"] = [task.tid for task in tasks]
    entries["seen_ns"] = [task.seen_ns for task in tasks]
    entries["comm"] = [task.comm[:15] for task in tasks]
    return entries.tobytes()


def decode_tasks(payload: bytes) -> list[Task]:
    """The TASKS payload read back."""
    entries = _entries(payload, layout.TASK_ENTRY)
    return [
        Task(int(entry["tid"]), bytes(entry["comm"]), int(entry["seen_ns"])) for entry in entries
    ]


def encode_clock(pairs: Sequence[ClockPair]) -> bytes:
    """The CLOCK payload."""
    return np.array(list(pairs), layout.CLOCK_ENTRY).tobytes()


def decode_clock(payload: bytes) -> list[ClockPair]:
    """The CLOCK payload read back."""
    return [ClockPair(*entry) for entry in _entries(payload, layout.CLOCK_ENTRY).tolist()]


def encode_losses(losses: Sequence[CpuLosses]) -> bytes:
    """The LOSSES payload."""
    entries = np.zeros(len(losses), layout.LOSSES_ENTRY)
    for name in CpuLosses._fields:
        entries[name] = [getattr(cpu, name) for cpu in losses]
    return entries.tobytes()


def decode_losses(payload: bytes) -> list[CpuLosses]:
    """The LOSSES payload read back."""
    entries = _entries(payload, layout.LOSSES_ENTRY)
    columns = [entries[name].tolist() for name in CpuLosses._fields]
    return [CpuLosses(*row) for row in zip(*columns, strict=True)]


def _entries(payload: bytes, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    if len(payload) % dtype.itemsize:
        raise ValueError(f"its size is no multiple of {dtype.itemsize} bytes")
    return np.frombuffer(payload, dtype)
