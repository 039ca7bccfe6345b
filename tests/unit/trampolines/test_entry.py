"""Every combination of bodies and traits builds and verifies; the listings are kept."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace

import pytest
from tests.support.golden import compare

from fentry.trampolines.body import Body, CountBody, RecordBody, Traits
from fentry.trampolines.entry import build_entry

CONTROL = 0x7E0000000000
RECORD16 = RecordBody(
    lines=0x7F0000001000, records=0x7F0000001100, tail=0x80, room=CONTROL + 0x40,
    cpu_bytes=1 << 20, capacity=1 << 16, record_bytes=16, stray=0x7F0000201000,
)  # fmt: skip
RECORD24 = RecordBody(
    lines=0x7F0000001000, records=0x7F0000001100, tail=0x80, room=CONTROL + 0x40,
    cpu_bytes=0x180000, capacity=1 << 16, record_bytes=24, stray=0x7F0000301000,
)  # fmt: skip
COUNTER16 = replace(RECORD16, clock=1)
COUNTER24 = replace(RECORD24, clock=1, overwrites=True)
LOCKED24 = replace(RECORD24, stray=0)
COUNTER_LOCKED24 = replace(LOCKED24, clock=1)
COUNT = CountBody(
    bases=CONTROL + 0x280, displacement=0x1000, shared=0x7F0000800000, control=CONTROL
)
USUAL = Traits(rdpid=True, fsgsbase=True, rseq_offset=2336, tid_offset=0x2D0)
TRAITS = [
    Traits(rdpid, fsgsbase, rseq, tid)
    for rdpid, fsgsbase, rseq, tid in itertools.product(
        (True, False), (True, False), (2336, -160, None), (0x2D0, None)
    )
]
TABLE = 0x7F0000900000
RECORD_SOME, COUNT_SOME = (
    replace(RECORD24, threads=TABLE),
    replace(COUNT, threads=TABLE + (5 << 20)),
)
SETS = {
    "record16": [RECORD16],
    "record24": [RECORD24],
    "count": [COUNT],
    "count_record24": [COUNT, RECORD24],
    "record16_count_count": [RECORD16, COUNT, COUNT],
    "eight": [COUNT, RECORD24] * 4,
    "counter16": [COUNTER16],
    "counter24": [COUNTER24],
    "overwriting24": [replace(RECORD24, overwrites=True)],
    "record_locked": [LOCKED24],
    "counter_locked": [COUNTER_LOCKED24],
    "counter_count": [COUNTER16, COUNT],
    "counter_record_counter": [COUNTER16, RECORD24, COUNTER24],
    "wide": [replace(body, cpu_bytes=48 << 30, capacity=1 << 31) for body in (COUNTER16, RECORD24)],
}
FILTERED = {
    "count_threads": [COUNT_SOME],
    "record24_threads": [RECORD_SOME],
    "counter_threads": [replace(COUNTER24, threads=TABLE)],
    "record16_threads_count": [replace(RECORD16, threads=TABLE), COUNT],
    "eight": [COUNT_SOME, RECORD_SOME] * 4,
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("traits", TRAITS, ids=str)
def test_every_set_verifies_with_every_trait(name: str, traits: Traits) -> None:
    code = build_entry(SETS[name], traits, 0x7F1000000000)

    assert len(code.data) < 4096


@pytest.mark.parametrize("name", FILTERED)
@pytest.mark.parametrize("traits", [t for t in TRAITS if t.tid_offset is not None], ids=str)
def test_every_filtered_set_verifies_with_every_trait(name: str, traits: Traits) -> None:
    code = build_entry(FILTERED[name], traits, 0x7F1000000000)

    assert len(code.data) < 4096


@pytest.mark.parametrize("body", [RECORD_SOME, COUNT_SOME], ids=["record", "count"])
def test_threads_that_have_no_tid_are_not_filtered(body: Body) -> None:
    with pytest.raises(ValueError, match="cannot be told apart"):
        build_entry([body], replace(USUAL, tid_offset=None), 0x7F1000000000)


@pytest.mark.parametrize("name", ["count_threads", "record24_threads"])
def test_filtered_listing_is_the_golden_one(name: str) -> None:
    compare(f"entry_{name}.s", build_entry(FILTERED[name], USUAL, 0x7F1000000000).listing())


@pytest.mark.parametrize(
    "name", ["record16", "record24", "count", "count_record24", "counter16", "overwriting24"]
)
def test_listing_is_the_golden_one(name: str) -> None:
    code = build_entry(SETS[name], USUAL, 0x7F1000000000)

    compare(f"entry_{name}.s", code.listing())


def test_count_without_rseq_listing_is_the_golden_one() -> None:
    traits = Traits(rdpid=False, fsgsbase=False, rseq_offset=None, tid_offset=None)

    compare("entry_count_locked.s", build_entry([COUNT], traits, 0x7F1000000000).listing())


@pytest.mark.parametrize("name", ["counter24", "counter_locked", "record_locked"])
def test_listing_on_one_node_is_the_golden_one(name: str) -> None:
    traits = replace(USUAL, one_node=True)

    compare(f"entry_{name}.s", build_entry(SETS[name], traits, 0x7F1000000000).listing())


@pytest.mark.parametrize("body", [COUNTER16, RECORD16], ids=["counter", "record"])
@pytest.mark.parametrize("traits", TRAITS, ids=str)
def test_positions_are_taken_without_a_lock_only_in_a_section(
    traits: Traits, body: RecordBody
) -> None:
    # Else a vfork child, or a thread without rseq, could take the place of another.
    listing = build_entry([body], traits, 0x7F1000000000).listing()

    has_section = traits.rseq_offset is not None and traits.rdpid
    assert ("begin0:" in listing) is has_section
    assert (" xadd " in listing) is has_section
    assert listing.count("lock cmpxchg") == 1


def test_size_does_not_depend_on_the_address() -> None:
    sizes = {
        len(build_entry(SETS["count_record24"], USUAL, origin).data)
        for origin in (0x10000, 0x555555554000, 0x7F1234560040)
    }

    assert len(sizes) == 1


def test_code_at_another_place_differs_only_in_pointers_to_itself() -> None:
    here, there = (build_entry(SETS["count"], USUAL, at) for at in (0x10000, 0x555555554040))
    words = [
        struct.unpack_from("<4Q", code.data, code.labels["section0"] - code.origin)
        for code in (here, there)
    ]

    assert words[1][1] - words[0][1] == 0x555555554040 - 0x10000  # start_ip
    assert words[1][2] == words[0][2]  # post_commit_offset
    assert words[1][3] - words[0][3] == 0x555555554040 - 0x10000  # abort_ip
    start = here.labels["section0"] - here.origin
    assert here.data[:start] == there.data[:start]
