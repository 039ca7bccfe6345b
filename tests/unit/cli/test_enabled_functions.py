"""The form of t_show() in the kernel's kernel/trace/ftrace.c, v6.12."""

from __future__ import annotations

from fentry.cli.enabled_functions import as_values, lines_of
from fentry.dispatch.records import DIRECT, IPMODIFY, MODIFIED, SAVE_REGS, Record

OPS = {
    1: {"id": 1, "callback": "record", "instance": ""},
    2: {"id": 2, "callback": "count", "instance": "deep"},
}


def shown(record: Record, module: str = "") -> list[str]:
    return lines_of(as_values(record, ("schedule", module), OPS))


def test_one_ops_is_one_line() -> None:
    assert shown(Record(0x1000, 0, (1,), 0, 0xABC)) == [
        "schedule (1)           \ttramp: 0xabc (record)"
    ]


def test_flags_have_cells_of_their_own() -> None:
    every = SAVE_REGS | IPMODIFY | DIRECT
    assert [shown(Record(0, 0, (1,), flags, 0x10), "ext4") for flags in (SAVE_REGS, every)] == [
        ["schedule [ext4] (1) R         \ttramp: 0x10 (record)"],
        ["schedule [ext4] (1) R I D     \ttramp: 0x10 (record)"],
    ]


def test_several_ops_follow_in_their_order() -> None:
    assert shown(Record(0, 0, (2, 1, 7), IPMODIFY, 0x10)) == [
        "schedule (3)   I       \ttramp: 0x10 (count in deep, record, ?)",
        "\tops: 2 (count in deep)",
        "\tops: 1 (record)",
        "\tops: 7 (?)",
    ]


def test_direct_code_has_a_line_and_alone_no_trampoline() -> None:
    """As `schedule (1) D M` in the kernel, whose `tramp:` names code that does not run then."""
    flags = DIRECT | MODIFIED
    assert shown(Record(0, 0, (1,), flags, 0x10, direct=0x10)) == [
        "schedule (1)     D   M ",
        "\tdirect-->0x10",
    ]
    assert shown(Record(0, 0, (2, 1), flags | SAVE_REGS, 0x20, direct=0x10)) == [
        "schedule (2) R   D   M \ttramp: 0x20 (count in deep, record)",
        "\tdirect-->0x10",
        "\tops: 2 (count in deep)",
        "\tops: 1 (record)",
    ]


def test_what_was_modified_stays_so() -> None:
    assert shown(Record(0, 0, (), MODIFIED, 0)) == ["schedule (0)         M"]


def test_functions_on_the_list_show_it_instead_of_a_trampoline() -> None:
    assert shown(Record(0, 0, (1,), 0, 0x10, on_list=True)) == [
        "schedule (1)            ->ftrace_ops_list_func (0x10)",
        "\tops: 1 (record)",
    ]


def test_function_that_is_no_longer_traced_has_no_trampoline() -> None:
    assert shown(Record(0, 0, (), 0, 0)) == ["schedule (0)"]
    assert shown(Record(0, 0, (), 0, 0, is_gone=True)) == ["schedule (0) gone"]
