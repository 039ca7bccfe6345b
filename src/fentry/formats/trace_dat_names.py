"""Texts of a trace.dat that name things: kallsyms, saved_cmdlines, and the mappings of a process.

trace-cmd reads them by sscanf, for which a blank ends a name (lib/trace-cmd/trace-util.c,
tracecmd_parse_proc_kallsyms and tracecmd_parse_cmdlines; trace-input.c, trace_pid_map_load).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fentry.formats.symbol_names import SymbolNames, printable
from fentry.formats.tracefile_payloads import Module, Task
from fentry.symbols.demangle import demangle_all

UNKNOWN = b"[unknown]"
_LONGEST_PATH = 4000  # a line has at most STR_PROCMAP_LINE_MAX bytes: PATH_MAX and 22


def one_word(name: str) -> bytes:
    """A name without blanks: none behind a comma, `_` for any other.

    `ns::f(int, unsigned long)` is `ns::f(int,unsigned_long)`.
    """
    word = "_".join(name.replace(", ", ",").split())
    return word.encode("utf-8", "surrogateescape")


def kallsyms(symbols: SymbolNames, modules: Sequence[Module]) -> bytes:
    """A line for each symbol, its name demangled and in one word.

    The reader takes the last line whose address is not above the one looked up. So where no symbol
    is, after the end of one and at both ends of a mapping, a line names the file, `[libc.so.6]`, or
    [unknown].
    """
    known = symbols.nr_symbols
    texts = [name.decode("utf-8", "surrogateescape") for name in symbols.names[:known]]
    names = [_function(name) for name in demangle_all(texts)]
    files = [_file_of(path) for path in symbols.modules[:known]]
    lines = [
        (ip, b"%016x T %s\t[%s]\n" % (ip, name, file) if file else b"%016x T %s\n" % (ip, name))
        for ip, name, file in zip(symbols.starts.tolist(), names, files, strict=True)
    ]
    lines += [(ip, b"%016x t %s\n" % (ip, name)) for ip, name in _gaps(symbols, modules)]
    return b"".join(line for _, line in sorted(lines))


def saved_cmdlines(tasks: Sequence[Task]) -> bytes:
    """`tid comm` of each thread: the last name it had, as a trace.dat knows one only."""
    comms = {task.tid: printable(task.comm) for task in sorted(tasks, key=lambda t: t.seen_ns)}
    return b"".join(b"%d %s\n" % (tid, comm) for tid, comm in sorted(comms.items()) if comm.strip())


def process_maps(pid: int, exe: str, modules: Sequence[Module]) -> bytes:
    """`pid count exe` and `start end file` of each mapping, numbers in hex."""
    named = [(module.base, module.end, _path(module.path)) for module in modules]
    lines = [b"%x %x %s\n" % one for one in named if len(one[2]) <= _LONGEST_PATH]
    return b"".join([b"%x %x %s\n" % (pid, len(lines), _path(exe)[:_LONGEST_PATH]), *lines])


def _path(path: str) -> bytes:
    return printable(one_word(path)) or UNKNOWN


def _function(name: str) -> bytes:
    word = one_word(name) or UNKNOWN
    # trace-cmd passes over names that begin so: on some machines they mark no function
    return b"_" + word if word.startswith(b"$") else word


def _file_of(path: bytes) -> bytes:
    name = path.rpartition(b"/")[2].decode("utf-8", "surrogateescape")
    return one_word(name)


def _gaps(symbols: SymbolNames, modules: Sequence[Module]) -> list[tuple[int, bytes]]:
    # Where a stretch without a symbol begins, and the name of what is there.
    known = sorted(
        (m for m in modules if 0 <= m.base < m.end < 1 << 64), key=lambda m: (m.base, m.end)
    )
    bases = np.array([m.base for m in known], np.uint64)
    ends = np.array([m.end for m in known], np.uint64)
    edges = np.unique(np.concatenate([symbols.starts + symbols.sizes, bases, ends]))
    free = edges[~symbols.covers(edges)]
    places: NDArray[np.intp] = np.searchsorted(bases, free, "right") - 1
    found = []
    for address, place in zip(free.tolist(), places.tolist(), strict=True):
        inside = place >= 0 and address < known[place].end
        path = known[place].path.encode("utf-8", "surrogateescape") if inside else b""
        file = _file_of(printable(path))
        found.append((address, b"[%s]" % file.strip(b"[]") if file else UNKNOWN))
    return found
