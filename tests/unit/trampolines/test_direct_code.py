"""What is taken for a direct trampoline: proved code, trusted code, and what is refused and why."""

from __future__ import annotations

import dataclasses

import pytest
from tests.support.callbacks import DIRECT_WAITING
from tests.support.golden import compare
from tests.unit.trampolines.test_entry import COUNT, RECORD24, USUAL
from tests.unit.trampolines.test_entry_regs import CALL, VECTORS

from fentry.errors import BadInput
from fentry.trampolines.body import Body, DirectBody, Traits
from fentry.trampolines.build import build_trampoline
from fentry.trampolines.direct import DirectCode
from fentry.trampolines.entry import cells_of
from fentry.x86.contract import Contract
from fentry.x86.verify import VerifyError, verify

BODY = DirectBody(0x7F2000000040)
PROVED = {
    "nothing": "ret",
    "counts": "pushfq; lock incq hits(%rip); popfq; ret\n.data\nhits: .quad 0",
}
REFUSED = {
    "inc %rax\nret": "leaves with rax not as at entry",
    "cmp $0, %rax\nret": "leaves with the flags not as at entry",
    "push %rax\nret": "leaves with rsp at -8 from entry",
    "add $8, %rsp\nret": r"leaves with rsp at \+8 from entry",
    "ret $8": "ret pops 8 bytes",
    "jmp *%rax": "indirect jump that is not declared",
    "movaps %xmm0, %xmm1\nret": "touches vectors",
    "movq $0, (%rsp)\nret": r"mov +qword \[rsp\], 0: ",
    "pushfq\nsub $2048, %rsp\nadd $2048, %rsp\npopfq\nret": "uses 2056 bytes of stack",
    "nop": "runs off the end",
}
NEVER = {
    "syscall\nret": "a forbidden instruction",
    "int3": "a trap",
    "std\nret": "a forbidden instruction",
    "jmp other": "does not define: other",
    "call *%rax\nret": "calls, and goes through pointers",
}


@pytest.mark.parametrize("name", PROVED)
def test_code_that_leaves_everything_as_it_was_is_taken(name: str) -> None:
    code = DirectCode.assemble(PROVED[name])

    assert (code.is_trusted, code.traits.calls) == (False, False)


def test_code_that_calls_a_function_of_its_own_is_taken() -> None:
    code = DirectCode.compile_direct(DIRECT_WAITING)

    assert (code.is_trusted, code.traits.calls) == (False, True)


@pytest.mark.parametrize("source", REFUSED)
def test_code_that_is_not_proved_is_refused_unless_it_is_trusted(source: str) -> None:
    with pytest.raises(BadInput, match=REFUSED[source]):
        DirectCode.assemble(source)

    assert DirectCode.assemble(source, trusted=True).is_trusted


@pytest.mark.parametrize("source", NEVER)
def test_what_no_program_may_run_is_refused_whoever_trusts_it(source: str) -> None:
    with pytest.raises(BadInput, match=NEVER[source]):
        DirectCode.assemble(source, trusted=True)


def test_bytes_that_branch_out_of_themselves_are_refused() -> None:
    with pytest.raises(BadInput, match="outside of its 5 bytes"):
        DirectCode.from_bytes(bytes.fromhex("e910000000"), trusted=True)


@pytest.mark.parametrize(
    "bodies", [[BODY], [COUNT, RECORD24, BODY], [COUNT, CALL, VECTORS, BODY]], ids=len
)
@pytest.mark.parametrize("traits", [USUAL, Traits(rseq_offset=None, tid_offset=0x2D0)], ids=str)
def test_sets_that_end_in_direct_code_verify(bodies: list[Body], traits: Traits) -> None:
    code = build_trampoline(bodies, dataclasses.replace(traits, xstate_mask=7), 0x7F1000000000)

    assert code.data[-8:] == BODY.target.to_bytes(8, "little")


def test_the_listing_is_the_golden_one() -> None:
    compare(
        "entry_count_direct.s", build_trampoline([COUNT, BODY], USUAL, 0x7F1000000000).listing()
    )


def test_set_that_jumped_elsewhere_would_not_verify() -> None:
    code = build_trampoline([BODY], USUAL, 0x7F1000000000)

    verify(code, Contract(returns=False, cells=cells_of(code)))
    with pytest.raises(VerifyError):
        verify(code, Contract())
