"""trace.dat, the file of trace-cmd and KernelShark, version 6, with one event: `function`.

Source: trace-cmd.dat.v6(5) (Documentation/trace-cmd/trace-cmd.dat.v6.5.txt of trace-cmd); options:
include/trace-cmd/trace-cmd.h there, and how they are read: lib/trace-cmd/trace-input.c,
handle_options. What of it is ours to choose: docs/formats/trace_dat.md.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Events
from fentry.formats import trace_dat_names as names
from fentry.formats.exports import Source
from fentry.formats.gaps import gaps
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.trace_dat_pages import DATA_BYTES, FUNCTION_ID, PAGE_BYTES, CpuPages, Missed
from fentry.formats.tracefile_payloads import CpuLosses, encode_meta
from fentry.formats.tracefile_reader import TraceReader

_MAGIC = b"\x17\x08\x44tracing6\0"
_LITTLE_ENDIAN = 0
_LONG_BYTES = 8
_COPY_BYTES = 1 << 20
_MOST_CPUS = 1 << 16  # as Events have
_MODE = 0o600  # as the trace: it holds addresses and names

_HEADER_PAGE = f"""\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:{DATA_BYTES};\tsigned:1;
"""

_HEADER_EVENT = """\
# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
"""

_FUNCTION = f"""\
name: function
ID: {FUNCTION_ID}
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned long parent_ip;\toffset:16;\tsize:8;\tsigned:0;

print fmt: " %ps <-- %ps", (void *)REC->ip, (void *)REC->parent_ip
"""

_STATS = """\
CPU: {lost.cpu}
entries: 0
overrun: {lost.overrun}
commit overrun: {lost.incomplete}
bytes: 0
dropped events: {lost.dropped_events}
read events: {lost.recorded}

"""


class _Option(IntEnum):
    # enum of TRACECMD_OPTION_*
    DONE = 0
    CPUSTAT = 2
    TRACECLOCK = 4
    UNAME = 5
    CPUCOUNT = 8
    VERSION = 9
    PROCMAPS = 10
    TRACEID = 11


def write(source: Source, out: Path) -> None:
    """Write a file that trace-cmd report and KernelShark open.

    Needs as much room again beside `out` while it works. A trace without times has the clock
    `counter`: numbers of each CPU, in no order between CPUs.
    """
    with ExitStack() as open_files:
        pages = _CpuParts(source.trace, out.parent, open_files)
        for events in source.selected.merged():
            if len(events):
                pages.add(events, _parents(source.symbols, events))
        parts = pages.finish()
        with open(out, "xb", opener=lambda path, flags: os.open(path, flags, _MODE)) as file:
            file.write(_head(source, len(parts)))
            place = _aligned(file.tell() + 16 * len(parts))
            for part in parts:
                size = part.file.tell() if part else 0
                file.write(struct.pack("<QQ", place, size))
                place += size
            file.write(bytes(_aligned(file.tell()) - file.tell()))
            for part in parts:
                if part:
                    part.file.seek(0)
                    shutil.copyfileobj(part.file, file, _COPY_BYTES)


class _CpuParts:
    # The pages of each CPU in a file without a name, made when its first event comes. Strays are a
    # CPU more, where there are any.

    def __init__(self, trace: TraceReader, folder: Path, open_files: ExitStack) -> None:
        lossy = [one.cpu + 1 for one in trace.losses if any(one[1:])]
        nr_cpus = min(max(trace.meta.nr_cpus, 1, *lossy), _MOST_CPUS)
        self._parts: list[CpuPages | None] = [None] * nr_cpus
        self._folder, self._open_files = folder, open_files
        self._missed: dict[int, list[Missed]] = {}
        for gap in gaps(trace, from_start=True):
            self._missed.setdefault(gap.cpu, []).append(Missed(gap.until_ns, gap.lost))

    def add(self, events: Events, parents: NDArray[np.uint64]) -> None:
        order = np.argsort(events.cpu, kind="stable")
        cpus, firsts = np.unique(events.cpu[order], return_index=True)
        for cpu, which in zip(cpus.tolist(), np.split(order, firsts[1:]), strict=True):
            self._of(cpu).add(events.take(which), parents[which])

    def finish(self) -> list[CpuPages | None]:
        for part in self._parts:
            if part:
                part.finish()
        return self._parts

    def _of(self, cpu: int) -> CpuPages:
        self._parts += [None] * (cpu + 1 - len(self._parts))
        part = self._parts[cpu]
        if part is None:
            file = self._open_files.enter_context(tempfile.TemporaryFile(dir=self._folder))
            missed = sorted(self._missed.get(cpu, []))
            part = self._parts[cpu] = CpuPages(file, missed)
        return part


def _parents(symbols: SymbolNames, events: Events) -> NDArray[np.uint64]:
    # A reader names a caller by the return address. Where that is already behind the function that
    # called (the call never returns), the byte before it is given.
    if events.parent_ip is None:
        return np.zeros(len(events), np.uint64)
    symbols.forget_unknown()
    before = events.parent_ip - np.uint64(1)
    callers = symbols.of_ips(before)
    is_behind = (callers < symbols.nr_symbols) & (callers != symbols.of_ips(events.parent_ip))
    return np.where(is_behind, before, events.parent_ip)


def _head(source: Source, nr_cpus: int) -> bytes:
    trace = source.trace
    kallsyms = names.kallsyms(source.symbols, trace.modules)
    cmdlines = names.saved_cmdlines(trace.tasks)
    return b"".join(
        [
            _MAGIC + struct.pack("<BBI", _LITTLE_ENDIAN, _LONG_BYTES, PAGE_BYTES),
            b"header_page\0" + _sized("<Q", _HEADER_PAGE.encode()),
            b"header_event\0" + _sized("<Q", _HEADER_EVENT.encode()),
            struct.pack("<I", 1) + _sized("<Q", _FUNCTION.encode()),
            struct.pack("<I", 0),  # systems of other events
            _sized("<I", kallsyms),
            _sized("<I", b""),  # formats of trace_printk
            _sized("<Q", cmdlines),
            struct.pack("<I", nr_cpus),
            b"options  \0",
            *(
                struct.pack("<H", option) + _sized("<I", value)
                for option, value in _options(trace, nr_cpus)
            ),
            struct.pack("<H", _Option.DONE),
            b"flyrecord\0",
        ]
    )


def _options(trace: TraceReader, nr_cpus: int) -> Iterator[tuple[_Option, bytes]]:
    # Texts end in a zero byte: their reader looks for one. That of CPUSTAT becomes a newline there.
    meta = trace.meta
    losses = {one.cpu: one for one in trace.losses}
    for cpu in range(nr_cpus):
        lost = losses.get(cpu, CpuLosses(cpu, 0, 0, 0, 0))
        yield _Option.CPUSTAT, _STATS.format(lost=lost).encode()
    clock = "mono" if trace.has_time else "counter"
    yield _Option.TRACECLOCK, f"[{clock}]".encode() + b"\0"
    uname = " ".join(["Linux", meta.host or "-", meta.kernel or "-", "x86_64"])
    yield _Option.UNAME, uname.encode("utf-8", "replace") + b"\0"
    version = f"fentry {meta.fentry_version}".rstrip()
    yield _Option.VERSION, version.encode("utf-8", "replace") + b"\0"
    yield _Option.PROCMAPS, names.process_maps(meta.pid, meta.exe, trace.modules) + b"\0"
    yield _Option.CPUCOUNT, struct.pack("<I", nr_cpus)
    yield _Option.TRACEID, hashlib.blake2b(encode_meta(meta), digest_size=8).digest()


def _sized(form: str, value: bytes) -> bytes:
    return struct.pack(form, len(value)) + value


def _aligned(offset: int) -> int:
    return -(-offset // PAGE_BYTES) * PAGE_BYTES
