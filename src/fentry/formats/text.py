"""Text of function events as the kernel's function tracer prints it, and as JSON lines.

The layout is that of kernel/trace/trace.c (print_func_help_header_irq, trace_print_context) and
trace_functions.c; docs/formats/text.md says what the five flag columns mean here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Events
from fentry.formats.id_cache import IdCache, Ids, Values
from fentry.formats.lines import Chosen, Computed, Strings, compose

LINES_AT_ONCE = 16384
"""Some 1.3 MB of text: larger parts fall out of a CPU's cache and come out slower."""

_FLAGS = b"....."

_COUNTED = "the count of each CPU, one CPU after the other: no order across CPUs"

_LEGEND = b"""\
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""

_MAX_PREFIXES = 1 << 16
_DENSE_SECONDS = 4096


class FunctionNames(Protocol):
    """Names by id, as SymbolNames has them; `version` is another whenever names were added or
    dropped."""

    names: list[bytes]
    modules: list[bytes]
    version: int

    def of_ips(self, ips: Values) -> Ids:
        """The id of the name of each function entry."""
        ...

    def of_returns(self, parent_ips: Values) -> Ids:
        """The id of the name of the function that each return address leads back into."""
        ...

    def forget_unknown(self) -> bool:
        """Whether names were dropped because there were too many."""
        ...


class ThreadComms(Protocol):
    """Names of threads, as TaskNames has them."""

    def keys(self, events: Events) -> Values:
        """Equal for events of the same thread, CPU and name."""
        ...

    def unpack(self, key: int) -> tuple[bytes, int, int]:
        """The comm, tid and cpu that a key stands for."""
        ...


def function_header(*, entries: int, written: int, nr_cpus: int, clock: str = "tsc") -> bytes:
    """The comment lines above the events.

    entries  events in the trace       written  events recorded, those overwritten included
    clock    what records are dated by; the kernel's header has no place for it, ours names it
             where it is no time
    """
    counts = f"# entries-in-buffer/entries-written: {entries}/{written}   #P:{nr_cpus}"
    lines = [counts, f"# clock: {clock} ({_COUNTED})"] if clock != "tsc" else [counts]
    return (
        b"# tracer: function\n#\n"
        + "\n".join([*lines, "#", ""]).encode("utf-8", "replace")
        + _LEGEND
    )


class FunctionText:
    """Turns Events into lines `comm-tid [cpu] ..... s.us: function <-parent`.

    Without parents in the events, or with print_parent False, lines end after the function. Without
    `has_time` a count of 12 columns stands for the seconds, as in the kernel with a counter clock.
    """

    def __init__(
        self,
        symbols: FunctionNames,
        tasks: ThreadComms,
        *,
        print_parent: bool = True,
        has_time: bool = True,
    ) -> None:
        self._times = _seconds_micros if has_time else _counts
        self._symbols = symbols
        self._print_parent = print_parent
        self._prefixes = _Prefixes(tasks, _text_prefix)
        self._functions = _Table(symbols, lambda name: name)
        self._last_functions = _Table(symbols, lambda name: name + b"\n")
        self._parents = _Table(symbols, lambda name: b" <-" + name + b"\n")

    def lines(self, events: Events) -> memoryview:
        """The lines of up to LINES_AT_ONCE events or so, in the order of `events`."""
        self._symbols.forget_unknown()
        functions = self._symbols.of_ips(events.ip)
        if self._print_parent and events.parent_ip is not None:
            parents = self._symbols.of_returns(events.parent_ip)
            names = [self._functions.chosen(functions), self._parents.chosen(parents)]
        else:
            names = [self._last_functions.chosen(functions)]
        return compose(self._prefixes.of(events), [*self._times(events.time_ns), *names])


class JsonLines:
    """Turns Events into one JSON object a line, with the same content as FunctionText.

    Keys: comm, tid, cpu, time_ns (CLOCK_MONOTONIC; without `has_time` count), ip, function, module,
    and where there are parents parent_ip and parent.  Addresses are strings in hex: JSON numbers
    lose bits.
    """

    def __init__(
        self, symbols: FunctionNames, tasks: ThreadComms, *, has_time: bool = True
    ) -> None:
        self._symbols = symbols
        self._prefixes = _Prefixes(tasks, _json_prefix if has_time else _json_count_prefix)
        self._functions = _JsonTable(symbols, b'","function":', b', "module":')
        self._last = Strings([b"}\n"])
        self._parents = _JsonTable(symbols, b'","parent":', b"")

    def lines(self, events: Events) -> memoryview:
        """The lines of up to LINES_AT_ONCE events or so, in the order of `events`."""
        self._symbols.forget_unknown()
        functions = self._functions.chosen(self._symbols.of_ips(events.ip))
        pieces = [*_nanoseconds(events.time_ns), *_hex(events.ip, b',"ip":"0x'), functions]
        if events.parent_ip is not None:
            parents = self._parents.chosen(self._symbols.of_returns(events.parent_ip))
            pieces += [*_hex(events.parent_ip, b',"parent_ip":"0x'), parents]
        pieces.append(Chosen(self._last, np.zeros(len(events), np.intp)))
        return compose(self._prefixes.of(events), pieces)


def _text_prefix(comm: bytes, tid: int, cpu: int) -> bytes:
    return b"%16s-%-7d [%03d] " % (comm, tid, cpu) + _FLAGS


def _json_prefix(comm: bytes, tid: int, cpu: int) -> bytes:
    return b'{"comm":%s,"tid":%d,"cpu":%d,"time_ns":' % (_quoted(comm), tid, cpu)


def _json_count_prefix(comm: bytes, tid: int, cpu: int) -> bytes:
    return _json_prefix(comm, tid, cpu).replace(b'"time_ns":', b'"count":')


def _quoted(name: bytes) -> bytes:
    return json.dumps(name.decode("utf-8", "replace"), ensure_ascii=False).encode()


class _Prefixes:
    # the part of a line that depends on thread and CPU only

    def __init__(self, tasks: ThreadComms, prefix: Callable[[bytes, int, int], bytes]) -> None:
        self._tasks = tasks
        self._prefix = prefix
        self._texts: list[bytes] = []
        self._strings = Strings([])
        self._cache = IdCache(self._search)

    def of(self, events: Events) -> Chosen:
        if len(self._texts) > _MAX_PREFIXES:
            self._texts.clear()
            self._cache.clear()
        index = self._cache.of(self._tasks.keys(events))
        if len(self._strings) != len(self._texts):
            self._strings = Strings(self._texts)
        return Chosen(self._strings, index)

    def _search(self, keys: Values) -> Ids:
        start = len(self._texts)
        self._texts += [self._prefix(*self._tasks.unpack(key)) for key in keys.tolist()]
        return np.arange(start, len(self._texts))


class _Table:
    # every name of `symbols` in the form it has on a line; follows the names as they grow

    def __init__(self, symbols: FunctionNames, form: Callable[[bytes], bytes]) -> None:
        self._symbols = symbols
        self._form = form
        self._strings: Strings | None = None
        self._made_for = -1

    def chosen(self, ids: Ids) -> Chosen:
        if self._strings is None or self._made_for != self._symbols.version:
            self._strings = Strings(self._forms())
            self._made_for = self._symbols.version
        return Chosen(self._strings, ids)

    def _forms(self) -> list[bytes]:
        return [self._form(name) for name in self._symbols.names]


class _JsonTable(_Table):
    def __init__(self, symbols: FunctionNames, before: bytes, module: bytes) -> None:
        super().__init__(symbols, _quoted)
        self._before = before
        self._module = module.replace(b" ", b"")

    def _forms(self) -> list[bytes]:
        names, modules = self._symbols.names, self._symbols.modules
        if not self._module:
            return [self._before + _quoted(name) for name in names]
        return [
            self._before + _quoted(name) + self._module + _quoted(module)
            for name, module in zip(names, modules, strict=True)
        ]


def _digits3() -> Values:
    texts = [b"%03d" % number + bytes(5) for number in range(1000)]
    return np.frombuffer(b"".join(texts), np.uint64)


def _padded3() -> Values:
    texts = [b"%3d" % number + bytes(5) for number in range(1000)]
    return np.frombuffer(b"".join(texts), np.uint64)


@cache
def _hex4() -> Values:
    texts = [b"%04x" % number + bytes(4) for number in range(1 << 16)]
    return np.frombuffer(b"".join(texts), np.uint64)


DIGITS3 = _digits3()
PADDED3 = _padded3()
"""Three digits of each number below 1000, as the low bytes of a word; PADDED3 has blanks for zeros
in front."""

_COLON = np.uint64(int.from_bytes(b": ", "little") << 48)
_MICROS = 1_000_000
_NANOS = 1_000_000_000


def _seconds_micros(time_ns: NDArray[np.int64]) -> list[Chosen | Computed]:
    # " %5lu.%06lu: "; rounded to the nearest microsecond as in ns2usecs() of the kernel
    micros = (time_ns + 500) // 1000
    seconds = micros // _MICROS
    rest = micros - seconds * _MICROS
    milli = rest // 1000
    micro = rest - milli * 1000
    words = DIGITS3[milli] | (DIGITS3[micro] << np.uint64(24)) | _COLON
    return [_chosen_numbers(seconds, b" %5d."), Computed(words, 8)]


def _counts(counts: NDArray[np.int64]) -> list[Chosen | Computed]:
    # " %12llu: "; as for a clock of the kernel that is not in ns
    thousands = counts // 1000
    rest = counts - thousands * 1000
    words = np.where(thousands > 0, DIGITS3[rest], PADDED3[rest]) | (_COLON >> np.uint64(24))
    distinct, index = np.unique(thousands, return_inverse=True)
    texts = [b" %9d" % number if number else b" " * 10 for number in distinct.tolist()]
    return [Chosen(Strings(texts), index), Computed(words, 5)]


def _nanoseconds(time_ns: NDArray[np.int64]) -> list[Chosen | Computed]:
    if not len(time_ns) or time_ns.min() < _NANOS:
        # the first second after boot, or no clock: no leading zeros in a JSON number
        numbers, index = np.unique(time_ns, return_inverse=True)
        return [Chosen(Strings([b"%d" % number for number in numbers.tolist()]), index)]
    seconds = time_ns // _NANOS
    rest = time_ns - seconds * _NANOS
    micros = rest // 1000
    nano = rest - micros * 1000
    milli = micros // 1000
    micro = micros - milli * 1000
    words = DIGITS3[milli] | (DIGITS3[micro] << np.uint64(24))
    return [_chosen_numbers(seconds, b"%d"), Computed(words, 6), Computed(DIGITS3[nano], 3)]


def _chosen_numbers(numbers: NDArray[np.int64], form: bytes) -> Chosen:
    # the same few numbers in many lines: the seconds of events in order of time
    if not len(numbers):
        return Chosen(Strings([]), np.empty(0, np.intp))
    low, high = int(numbers.min()), int(numbers.max())
    if high - low < _DENSE_SECONDS:
        texts = [form % number for number in range(low, high + 1)]
        return Chosen(Strings(texts), numbers - low)
    distinct, index = np.unique(numbers, return_inverse=True)
    return Chosen(Strings([form % number for number in distinct.tolist()]), index)


_16 = np.uint64(0xFFFF)


def _hex(addresses: Values, before: bytes) -> list[Chosen | Computed]:
    def word(shift: int) -> Values:
        upper = _hex4()[addresses >> np.uint64(shift + 16) & _16]
        lower = _hex4()[addresses >> np.uint64(shift) & _16] << np.uint64(32)
        return np.asarray(upper | lower, np.uint64)

    label = Chosen(Strings([before]), np.zeros(len(addresses), np.intp))
    return [label, Computed(word(32), 8), Computed(word(0), 8)]
