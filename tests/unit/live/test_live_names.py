"""Names that are looked up when an address, a key or a thread is first met."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tests.support.build import build
from tests.support.compiled import addresses

from fentry.events.columns import Events
from fentry.formats.tracefile_payloads import Task
from fentry.live.names import LiveNames, LiveSites, LiveTasks
from fentry.symbols.elf import ElfImage
from fentry.symbols.module import Module, module_of_file
from fentry.symbols.table import SymbolTable


def module_of(source: str, bias: int) -> Module:
    """A program of tests/targets as it would be loaded at `bias`."""
    path = build(source)
    found = module_of_file(str(path), ElfImage.open(path))
    return replace(
        found, base=bias, bias=bias, text_low=found.text_low + bias,
        text_high=found.text_high + bias,
    )  # fmt: skip


def address(source: str, name: str) -> int:
    """Where `nm` says that a function of it is."""
    return addresses(build(source))[name]


def u64(*values: int) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)


def u32(*values: int) -> NDArray[np.uint32]:
    return np.array(values, np.uint32)


def event(tid: int, cpu: int = 0) -> Events:
    return Events(
        time_ns=np.zeros(1, np.int64),
        cpu=np.array([cpu], np.uint16),
        tid=u32(tid),
        ip=u64(0),
        parent_ip=None,
        key=u32(0),
    )


def comm(tasks: LiveTasks, tid: int) -> bytes:
    return tasks.unpack(int(tasks.keys(event(tid))[0]))[0]


def test_a_thread_is_called_as_it_is_now() -> None:
    tasks = LiveTasks()
    assert comm(tasks, 7) == b"<...>"
    tasks.update([Task(7, b"wor\nker", 0), Task(8, b"main", 0)])
    assert comm(tasks, 7) == b"wor?ker"
    first = tasks.keys(event(7))
    tasks.update([Task(7, b"idle", 5)])
    assert comm(tasks, 7) == b"idle"
    assert tasks.keys(event(7)) != first  # so that lines that are kept by key are made anew
    assert tasks.unpack(int(tasks.keys(event(8, cpu=300))[0])) == (b"main", 8, 300)


def test_threads_of_which_nothing_was_said_are_asked_for_once() -> None:
    tasks = LiveTasks()
    tasks.update([Task(7, b"main", 0)])
    assert tasks.unknown(u32(9, 7, 4194303, 9)) == [9, 4194303]
    tasks.give_up([9])
    assert tasks.unknown(u32(9, 7)) == []
    assert comm(tasks, 9) == b"<...>"
    tasks.clear()
    assert (tasks.unknown(u32(9, 7)), len(tasks)) == ([7, 9], 0)


def test_keys_are_asked_for_when_one_is_new() -> None:
    asked = 0
    known = {0xFFFF0005: 0x1000}

    def keys() -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        nonlocal asked
        asked += 1
        return u32(*known), u64(*known.values())

    sites = LiveSites(keys)
    assert sites.ips(u32(0xFFFF0005, 0xFFFF0005)).tolist() == [0x1000, 0x1000]
    assert asked == 1
    known[3] = 0x2000
    assert sites.ips(u32(3, 0xFFFF0005)).tolist() == [0x2000, 0x1000]
    assert sites.ips(u32(3)).tolist() == [0x2000]
    assert asked == 2
    assert sites.ips(u32(0, 4, 0xFFFFFFFF, 3)).tolist() == [0, 0, 0, 0x2000]


def test_names_are_found_by_entry_and_by_return_address() -> None:
    table = SymbolTable([module_of("turns.c", 0x10000000)])
    first, main = (0x10000000 + address("turns.c", name) for name in ("f_first", "main"))
    names = LiveNames(lambda: table)
    ids = names.of_ips(u64(first, 0x77, first, 0))
    assert [names.names[n] for n in ids.tolist()] == [b"f_first", b"0x00000077", b"f_first", b"0"]
    assert names.modules[ids[0]].endswith(b"/" + table.modules[0].name.encode())
    returns = names.of_returns(u64(main + 1, first + 1, main))
    found = [names.names[n] for n in returns.tolist()]
    assert found[:2] == [b"main", b"f_first"]
    assert found[2] != b"f_first"  # the byte before main belongs to no call of it


def test_what_is_loaded_later_is_named_once_that_is_said() -> None:
    tables = [SymbolTable([module_of("turns.c", 0x10000000)])]
    names = LiveNames(lambda: tables[-1])
    later = SymbolTable([*tables[0].modules, module_of("libdso.c", 0x20000000)])
    ip = u64(0x20000000 + address("libdso.c", "f_library"))
    assert names.names[names.of_ips(ip)[0]].startswith(b"0x")
    tables.append(later)
    names.renew()
    assert names.names[names.of_ips(ip)[0]] == b"f_library"
