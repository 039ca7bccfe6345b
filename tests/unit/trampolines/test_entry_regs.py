"""The trampoline with all registers: every mixture builds and verifies, and faults are found."""

from __future__ import annotations

import dataclasses

import pytest
from tests.support.golden import compare
from tests.unit.trampolines.test_entry import CONTROL, COUNT, RECORD24, USUAL

from fentry.trampolines.body import CallBody, Traits
from fentry.trampolines.build import build_trampoline
from fentry.trampolines.entry_regs import build_entry_regs, contract_of, stack_bytes
from fentry.x86 import decode
from fentry.x86.calls import Vectors
from fentry.x86.code import disassemble
from fentry.x86.verify import VerifyError, verify

CALL = CallBody(
    function=CONTROL + 0x100000, ops=CONTROL + 0x200000, in_flight=CONTROL + 0x200040,
    dropped=CONTROL + 0x200048, ips=CONTROL + 0x300000, stride=88,
)  # fmt: skip
XMM = dataclasses.replace(CALL, vectors=Vectors.XMM)
VECTORS = dataclasses.replace(CALL, vectors=Vectors.ALL)
REDIRECT = dataclasses.replace(VECTORS, redirects=True)
GUARDED = dataclasses.replace(CALL, guard=CONTROL + 0x400000)
AVX = dataclasses.replace(USUAL, xstate_mask=7, xsavec=True)
LEA = b"\x48\x8d\x64\x24\x08"  # lea rsp, [rsp + 8]
STATES = {
    "fxsave": {"xstate_mask": 0, "xsavec": False},
    "xsave": {"xstate_mask": 3, "xsavec": False},
    "avx": {"xstate_mask": 7, "xsavec": True},
    "avx512": {"xstate_mask": 0xE7, "xsavec": True},
    "avx512_standard": {"xstate_mask": 0xE7, "xsavec": False},
}
SETS = {
    "call": [CALL],
    "guarded": [GUARDED],
    "xmm": [XMM],
    "vectors": [VECTORS],
    "redirect": [REDIRECT],
    "threads": [dataclasses.replace(GUARDED, threads=CONTROL + 0x500000)],
    "guarded_redirect": [dataclasses.replace(REDIRECT, guard=GUARDED.guard)],
    "all": [COUNT, GUARDED, XMM, RECORD24, VECTORS, COUNT, REDIRECT],
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("fsgsbase", "rseq_offset"), [(True, 2336), (False, None)])
def test_every_mixture_verifies(
    name: str, state: str, fsgsbase: bool, rseq_offset: int | None
) -> None:
    base = Traits(rdpid=fsgsbase, fsgsbase=fsgsbase, rseq_offset=rseq_offset, tid_offset=0x2D0)
    traits = dataclasses.replace(base, **STATES[state])

    assert len(build_trampoline(SETS[name], traits, 0x7F1000000000).data) < 4096


def test_the_largest_set_verifies() -> None:
    bodies = [CALL, GUARDED, VECTORS, COUNT, RECORD24, GUARDED, VECTORS, REDIRECT]

    assert len(build_trampoline(bodies, AVX, 0x7F1000000000).data) < 8192


@pytest.mark.parametrize("name", ["call", "xmm", "guarded_redirect"])
def test_listing_is_the_golden_one(name: str) -> None:
    code = build_entry_regs(SETS[name], AVX, 0x7F1000000000)

    compare(f"entry_regs_{name}.s", code.listing())


def test_stack_is_what_the_design_says() -> None:
    avx512 = dataclasses.replace(USUAL, **STATES["avx512"])

    bytes_of = {name: dataclasses.replace(USUAL, **STATES[name]).xstate_bytes for name in STATES}
    # SDM Vol. 1, 13.4.1, 13.4.3 and table 13-1; standard: what CPUID leaf 0xD says of Xeons.
    assert bytes_of == {
        "fxsave": 576, "xsave": 576, "avx": 832, "avx512": 2432, "avx512_standard": 2688,
    }  # fmt: skip
    assert stack_bytes([CALL], AVX) == 344
    assert stack_bytes([XMM], AVX) == 984
    assert stack_bytes([VECTORS], AVX) == 1240
    assert stack_bytes([VECTORS], avx512) == 2840


# What C leaves to its caller, and what the trampoline itself uses.
CHANGED = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "rbp")


@pytest.mark.parametrize(
    ("name", "own"), [("call", ()), ("guarded", ("rbx",)), ("xmm", ("r12",)), ("vectors", ("r12",))]
)
def test_a_register_that_is_not_put_back_is_found(name: str, own: tuple[str, ...]) -> None:
    code = build_entry_regs(SETS[name], AVX, 0x7F1000000000)
    contract = contract_of(SETS[name], AVX, sections=0)
    spoiled = {}
    for instruction in decode.instructions(code.data, code.origin):
        text = disassemble(instruction)
        if text.startswith("pop"):
            start, end = (ip - code.origin for ip in (instruction.ip, instruction.next_ip))
            data = code.data[:start] + LEA + code.data[end:]
            spoiled[text.split()[-1]] = dataclasses.replace(code, data=data, labels={})

    verify(code, contract)
    assert len(spoiled) == 16
    for register in ("popf", *CHANGED, *own):
        with pytest.raises(VerifyError, match=r"leaves with|popfq of something"):
            verify(spoiled[register], contract)


def test_only_who_redirects_may_go_elsewhere() -> None:
    code = build_entry_regs([REDIRECT], AVX, 0x7F1000000000)
    strict = contract_of([VECTORS], AVX, sections=0)

    with pytest.raises(VerifyError, match="writes above rsp at entry"):
        verify(code, strict)
