"""A folder as `uftrace record` makes it: info, task.txt, sid-*.map, MODULE.sym, TID.dat a thread.

Source: the readers of uftrace v0.13: utils/data-file.c (task.txt, header), cmds/info.c (lines of
info), utils/session.c (maps), utils/symbol.c (.sym), and struct uftrace_file_header and struct
uftrace_record of uftrace.h. What of it is ours to choose: docs/formats/uftrace.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Events
from fentry.formats.exports import Source, need_times
from fentry.formats.symbol_names import SymbolNames, printable
from fentry.formats.tracefile_payloads import Json, Module, TraceMeta

RECORD = np.dtype([("time", "<u8"), ("word", "<u8")])
"""word: type in bits 0-1, `more` in 2, magic in 3-5, depth in 6-15, the address in 16-63."""

_RECORD_MAGIC = 5 << 3
_ADDRESS_SHIFT = 16
_HEADER = struct.Struct("<8sIHBBQQHHI")
_MAGIC = b"Ftrace!\0"
_VERSION = 4
_LITTLE_ENDIAN = 1  # ELFDATA2LSB
_64_BIT = 2  # ELFCLASS64
_MAX_STACK = 1024
_SESSION = "0123456789abcdef"
_STACK = b"7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n"
"""Any of x86-64: uftrace concludes from it where the kernel's addresses begin."""
_LONGEST_LINE = 1000  # uftrace reads a line of info into PATH_MAX bytes
_LONGEST_NAME = 200  # and a suffix: NAME_MAX is 255
_NOBODY = 1 << 22  # above every thread number


class _Type(IntEnum):
    ENTRY = 0
    EXIT = 1


class _Feature(IntFlag):
    TASK_SESSION = 1 << 1
    SYM_REL_ADDR = 1 << 5
    MAX_STACK = 1 << 6


class _Info(IntFlag):
    EXE_NAME = 1 << 0
    CMDLINE = 1 << 3
    CPUINFO = 1 << 4
    OSINFO = 1 << 6
    TASKINFO = 1 << 7
    VERSION = 1 << 13


class _Mapping(NamedTuple):
    # A range of addresses with the name uftrace knows it by, and the ids of its symbols.
    base: int
    end: int
    path: bytes
    ids: NDArray[np.intp]

    @property
    def file(self) -> bytes:
        return self.path.rpartition(b"/")[2] + b".sym"


def write(source: Source, out: Path) -> None:
    """Make a folder that uftrace replay, report and dump read with -d.

    Each call is an entry and an exit at the same time at depth 0: when it ended is not known.
    Raises BadInput without times.
    """
    need_times(source, "uftrace")
    out.mkdir(mode=0o700)  # as the trace: it holds addresses and names
    first_ns: dict[int, int] = {}
    for events in source.selected.merged():
        for tid, part in _by_thread(events):
            first_ns[tid] = min(int(part.time_ns.min()), first_ns.get(tid, 1 << 63))
            with (out / f"{tid}.dat").open("ab") as file:
                file.write(_records(part))
    trace = source.trace
    pid = trace.meta.pid or min(first_ns, default=_NOBODY)
    first_ns.setdefault(pid, min(first_ns.values(), default=0))
    exe = _word(trace.meta.exe) or b"unknown"
    (out / "info").write_bytes(_info(trace.meta, exe, sorted(first_ns)))
    (out / "task.txt").write_bytes(_tasks(pid, exe, first_ns, trace.events))
    mappings = _mappings(source.symbols, trace.modules)
    lines = [_map_line(one) for one in mappings]
    (out / f"sid-{_SESSION}.map").write_bytes(b"".join([*lines, _STACK]))
    for one in mappings:
        path = out / one.file.decode("utf-8", "surrogateescape")
        path.write_bytes(_symbol_file(source.symbols, one))


def _by_thread(events: Events) -> Iterator[tuple[int, Events]]:
    if not len(events):
        return
    order = np.argsort(events.tid, kind="stable")
    tids, firsts = np.unique(events.tid[order], return_index=True)
    for tid, which in zip(tids.tolist(), np.split(order, firsts[1:]), strict=True):
        # a damaged record may have thread 0, which uftrace does not take
        yield tid or _NOBODY, events.take(which)


def _records(events: Events) -> bytes:
    records = np.empty((len(events), 2), RECORD)
    records["time"] = events.time_ns[:, None]
    addresses = events.ip << np.uint64(_ADDRESS_SHIFT) | np.uint64(_RECORD_MAGIC)
    for kind in _Type:
        records["word"][:, kind] = addresses | np.uint64(kind)
    return records.tobytes()


def _info(meta: TraceMeta, exe: bytes, tids: Sequence[int]) -> bytes:
    features = _Feature.TASK_SESSION | _Feature.SYM_REL_ADDR | _Feature.MAX_STACK
    kinds = (
        _Info.EXE_NAME | _Info.CMDLINE | _Info.CPUINFO | _Info.OSINFO | _Info.TASKINFO
        | _Info.VERSION
    )  # fmt: skip
    header = _HEADER.pack(
        _MAGIC, _VERSION, _HEADER.size, _LITTLE_ENDIAN, _64_BIT, features, kinds, _MAX_STACK, 0, 0
    )
    lines = [
        b"exename:" + exe,
        b"cmdline:" + _text(" ".join(meta.command_line)),
        b"cpuinfo:lines=2",
        b"cpuinfo:nr_cpus=%d / %d (online/possible)" % (meta.nr_cpus, meta.nr_cpus),
        b"cpuinfo:desc=x86-64",
        b"osinfo:lines=2",
        b"osinfo:kernel=Linux " + _text(meta.kernel),
        b"osinfo:hostname=" + _text(meta.host),
        b"taskinfo:lines=2",
        b"taskinfo:nr_tid=%d" % len(tids),
        b"taskinfo:tids=" + b",".join(b"%d" % tid for tid in tids),
        b"uftrace_version:fentry " + _text(meta.fentry_version),
    ]
    return header + b"\n".join(lines) + b"\n"


def _tasks(
    pid: int, exe: bytes, first_ns: dict[int, int], events: Sequence[dict[str, Json]]
) -> bytes:
    # The process, then children that were forked, then every other thread as one of the process.
    start = min(first_ns.values())
    lines = [
        b'SESS timestamp=%s pid=%d sid=%s exename="%s"'
        % (_seconds(start), pid, _SESSION.encode(), exe),
        b"TASK timestamp=%s tid=%d pid=%d" % (_seconds(start), pid, pid),
    ]
    known = {pid}
    for event in events:
        child, parent = event.get("pid"), event.get("parent")
        if event.get("kind") != "fork" or not isinstance(child, int):
            continue
        if child in first_ns and child not in known:
            by = parent if isinstance(parent, int) and parent in known else pid
            when = _seconds(first_ns[child])
            lines.append(b"FORK timestamp=%s pid=%d ppid=%d" % (when, child, by))
            known.add(child)
    for tid in sorted(first_ns.keys() - known):
        when = _seconds(first_ns[tid])
        lines.append(b"TASK timestamp=%s tid=%d pid=%d" % (when, tid, pid))
    return b"\n".join(lines) + b"\n"


def _mappings(symbols: SymbolNames, modules: Sequence[Module]) -> list[_Mapping]:
    # uftrace looks for the first line that contains an address, so of two files that were in one
    # place the one seen last comes first. Files without a symbol are left out: uftrace would look
    # for their symbols on this machine. All that is in no file comes last.
    left = np.arange(symbols.nr_symbols)
    found, taken = [], set[bytes]()
    for module in reversed(modules):
        if not 0 <= module.base < module.end < 1 << 64:
            continue
        starts = symbols.starts[left]
        inside = (starts >= np.uint64(module.base)) & (starts < np.uint64(module.end))
        if inside.any():
            path = _unique(_word(module.path).strip(b"[]") or b"unknown", taken)
            found.append(_Mapping(module.base, module.end, path, left[inside]))
            left = left[~inside]
    if len(left):
        first, last = left[0], left[-1]
        end = int(symbols.starts[last]) + int(symbols.sizes[last])
        path = _unique(b"unknown", taken)
        found.append(_Mapping(int(symbols.starts[first]), end, path, left))
    return found


def _unique(path: bytes, taken: set[bytes]) -> bytes:
    # Symbols are in a file named by the last part of a path; two mappings need two.
    folder, slash, name = path.rpartition(b"/")
    name = name[-_LONGEST_NAME:]
    number, tried = 1, name
    while tried in taken or not tried:
        number += 1
        tried = b"%s~%d" % (name, number)
    taken.add(tried)
    return folder + slash + tried


def _map_line(one: _Mapping) -> bytes:
    return b"%x-%x r-xp 00000000 00:00 0 %s\n" % (one.base, one.end, one.path)


def _symbol_file(symbols: SymbolNames, one: _Mapping) -> bytes:
    # Names as they are in the file of the program: uftrace demangles them itself. A symbol reaches
    # up to the next line, so one that says `end` follows where no other symbol does. (Sizes have a
    # column of their own since v0.14, which v0.13 cannot read.)
    starts = symbols.starts[one.ids] - np.uint64(one.base)
    ends = starts + symbols.sizes[one.ids]
    is_free = np.append(ends[:-1] < starts[1:], True)
    columns = zip(starts.tolist(), ends.tolist(), is_free.tolist(), one.ids.tolist(), strict=True)
    lines = [b"# symbols: %d\n# path name: %s\n" % (len(starts), one.path)]
    for start, end, free, number in columns:
        lines.append(b"%016x T %s\n" % (start, symbols.names[number] or b"?"))
        if free:
            lines.append(b"%016x ? __sym_end\n" % end)
    return b"".join(lines)


def _seconds(time_ns: int) -> bytes:
    return b"%d.%09d" % divmod(time_ns, 1_000_000_000)


def _word(path: str) -> bytes:
    # uftrace reads paths with sscanf, for which a blank ends them
    word = "_".join(path.split()).replace('"', "?")
    return printable(word.encode("utf-8", "surrogateescape"))[-_LONGEST_LINE:]


def _text(value: str) -> bytes:
    return printable(value.encode("utf-8", "surrogateescape"))[:_LONGEST_LINE]
