"""The list trampoline and the bodies that it calls build, verify, and keep their listings."""

from __future__ import annotations

import dataclasses

import pytest
from tests.support.golden import compare
from tests.unit.trampolines.test_entry import COUNT, RECORD16, RECORD24, TRAITS, USUAL
from tests.unit.trampolines.test_entry_regs import CALL, SETS, STATES

from fentry.trampolines.body import Body, CallBody, Traits
from fentry.trampolines.list import build_list, build_list_body, cell_offset


@pytest.mark.parametrize("body", [RECORD16, RECORD24, COUNT], ids=["16", "24", "count"])
@pytest.mark.parametrize("traits", TRAITS, ids=str)
def test_every_body_verifies_with_every_trait(body: Body, traits: Traits) -> None:
    assert len(build_list_body(body, traits).data) < 512


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("body", [SETS[name][0] for name in SETS if len(SETS[name]) == 1])
@pytest.mark.parametrize(("fsgsbase", "rseq_offset"), [(True, 2336), (False, None)])
def test_every_call_of_a_c_function_verifies(
    body: CallBody, state: str, fsgsbase: bool, rseq_offset: int | None
) -> None:
    base = Traits(rdpid=fsgsbase, fsgsbase=fsgsbase, rseq_offset=rseq_offset, tid_offset=0x2D0)

    code = build_list_body(body, dataclasses.replace(base, **STATES[state]))

    assert len(code.data) < 2048


def test_listings_are_the_golden_ones() -> None:
    compare("list.s", build_list(0x7F1000000000).listing())
    compare("list_record24.s", build_list_body(RECORD24, USUAL).listing())
    compare("list_call.s", build_list_body(CALL, USUAL).listing())
    compare("list_count.s", build_list_body(COUNT, USUAL).listing())


def test_cell_is_a_whole_word_behind_the_code() -> None:
    code = build_list(0x7F1000000040)

    assert cell_offset(code) % 8 == 0
    assert cell_offset(code) + 8 == len(code.data)
