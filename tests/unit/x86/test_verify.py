"""A body that keeps its contract is accepted; one that breaks one rule is refused for that rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fentry.x86.asm import Asm
from fentry.x86.code import Code
from fentry.x86.contract import CallEffect, Contract, Section
from fentry.x86.operands import byte, dword, ptr, qword, xmmword
from fentry.x86.registers import (
    CALLER_SAVED,
    GENERAL_64,
    ah,
    al,
    cl,
    eax,
    ecx,
    fs,
    k1,
    r8,
    r11,
    r15,
    rax,
    rbp,
    rbx,
    rcx,
    rdi,
    rdx,
    rip,
    rsi,
    rsp,
    st0,
    xmm0,
)
from fentry.x86.verify import VerifyError, verify

ORIGIN = 0x401000
OUTSIDE = 0x500000
STRICT = Contract(stack_bytes=256)

Write = Callable[[Asm], object]


def body(write: Write) -> Code:
    asm = Asm()
    write(asm)
    return asm.assemble(ORIGIN)


def lines(*calls: Callable[[Asm], object]) -> Write:
    def write(a: Asm) -> None:
        for call in calls:
            call(a)

    return write


def accept(write: Write, contract: Contract = STRICT) -> None:
    verify(body(write), contract)


def refuse(write: Write, reason: str, contract: Contract = STRICT) -> VerifyError:
    with pytest.raises(VerifyError, match=reason) as caught:
        verify(body(write), contract)
    return caught.value


# Whole bodies.


def counting(a: Asm) -> None:
    """Flags saved by lahf and seto below rax, one counter, everything restored."""
    a.push(rax)
    a.lahf()
    a.seto(al)
    a.inc(qword[rip(0x402000)])
    a.add(al, 0x7F)
    a.sahf()
    a.pop(rax)
    a.ret()


def recording(a: Asm) -> None:
    """A record in a restartable sequence, a full ring out of line, data behind."""
    a.push(rax)
    a.lahf()
    a.seto(al)
    for register in (rax, rcx, rdx):
        a.push(register)
    a.label("retry")
    a.lea(rcx, rip("descriptor"))
    a.mov(qword[fs, 0x10], rcx)
    a.label("start")
    a.mov(ecx, dword[fs, 0x14])
    a.test(ecx, ecx)
    a.js("unregistered")
    a.mov(rax, a.entry(8))
    a.mov(qword[rdx + rcx * 8], rax)
    a.inc(qword[rdx + 16])
    a.label("end")
    a.label("unregistered")
    for register in (rdx, rcx, rax):
        a.pop(register)
    a.add(al, 0x7F)
    a.sahf()
    a.pop(rax)
    a.ret()
    a.long(0x53053053)
    a.label("abort", depth=32)
    a.jmp("retry")
    a.align(32)
    a.label("descriptor")
    a.quad("start")
    a.quad("abort")


RECORDING = Contract(stack_bytes=32, sections=(Section("start", "end", "abort"),))


def saving_all(a: Asm) -> None:
    """All registers on an aligned stack around a call, flags by pushfq."""
    a.pushfq()
    a.push(rbp)
    a.mov(rbp, rsp)
    for register in (*CALLER_SAVED,):
        a.push(register)
    a.and_(rsp, -16)
    a.cld()
    a.call(OUTSIDE)
    a.lea(rsp, qword[rbp - 8 * len(CALLER_SAVED)])
    for register in reversed(CALLER_SAVED):
        a.pop(register)
    a.pop(rbp)
    a.popfq()
    a.ret()


CALLING = Contract(stack_bytes=200, calls={OUTSIDE: CallEffect()})


def test_body_with_lahf_and_seto_is_accepted() -> None:
    accept(counting, Contract(stack_bytes=8))


def test_body_with_restartable_sequence_and_data_is_accepted() -> None:
    accept(recording, RECORDING)


def test_body_that_calls_with_an_aligned_stack_is_accepted() -> None:
    accept(saving_all, CALLING)


def test_body_that_only_returns_is_accepted_by_the_strictest_contract() -> None:
    accept(lambda a: a.ret(), Contract())


# Registers and flags.


@pytest.mark.parametrize("register", [r for r in GENERAL_64 if r is not rsp], ids=repr)
def test_register_not_restored_is_refused_by_name(register: object) -> None:
    refuse(
        lines(lambda a: a.lea(register, ptr[rip(0x402000)]), lambda a: a.ret()),
        f"leaves with {register!r} not as at entry",
    )


def test_half_a_register_changed_is_refused() -> None:
    refuse(lines(lambda a: a.mov(ah, cl), lambda a: a.ret()), "leaves with rax not as at entry")


def test_upper_half_cleared_is_refused() -> None:
    refuse(lines(lambda a: a.mov(eax, eax), lambda a: a.ret()), "leaves with rax not as")


def test_registers_popped_in_the_wrong_order_are_refused() -> None:
    refuse(
        lines(
            lambda a: a.push(rax),
            lambda a: a.push(rcx),
            lambda a: a.pop(rax),
            lambda a: a.pop(rcx),
            lambda a: a.ret(),
        ),
        "leaves with rax not as at entry",
    )


def test_registers_exchanged_twice_are_accepted() -> None:
    accept(lines(lambda a: a.xchg(rax, r8), lambda a: a.xchg(r8, rax), lambda a: a.ret()))


def test_register_kept_in_a_declared_clobber_is_accepted() -> None:
    accept(
        lines(lambda a: a.mov(r11, rbx), lambda a: a.mov(rbx, r11), lambda a: a.ret()),
        replace(STRICT, clobbers=(r11,)),
    )


def test_register_restored_on_one_path_only_is_refused() -> None:
    def write(a: Asm) -> None:
        a.push(rcx)
        a.mov(rcx, 5)
        a.jrcxz("skip")
        a.mov(rcx, qword[rsp])
        a.label("skip")
        a.lea(rsp, qword[rsp + 8])
        a.ret()

    refuse(write, "leaves with rcx not as at entry")


def test_register_pushed_before_its_slot_is_overwritten_is_refused() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.mov(rax, qword[rdi])
        a.mov(byte[rsp + 3], al)
        a.pop(rax)
        a.ret()

    refuse(write, "leaves with rax not as at entry")


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.inc(qword[rdi]),
        lambda a: a.cmp(rax, rcx),
        lambda a: a.clc(),
        lambda a: a.bt(rax, 3),
    ],
)
def test_flags_not_restored_are_refused(change: Callable[[Asm], None]) -> None:
    refuse(lines(change, lambda a: a.ret()), "leaves with the flags not as at entry")


def test_flags_may_be_declared_as_clobbered() -> None:
    accept(
        lines(lambda a: a.inc(qword[rdi]), lambda a: a.ret()),
        replace(STRICT, clobbers_flags=True),
    )


def test_overflow_flag_not_restored_is_refused() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.lahf()
        a.inc(qword[rdi])
        a.sahf()
        a.pop(rax)
        a.ret()

    refuse(write, "leaves with the flags not as at entry")


def test_carry_flag_not_restored_is_refused() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.lahf()
        a.seto(al)
        a.inc(qword[rdi])
        a.add(al, 0x7F)
        a.pop(rax)
        a.ret()

    refuse(write, "leaves with the flags not as at entry")


def test_flags_saved_after_they_changed_are_refused() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.inc(qword[rdi])
        a.lahf()
        a.seto(al)
        a.add(al, 0x7F)
        a.sahf()
        a.pop(rax)
        a.ret()

    refuse(write, "leaves with the flags not as at entry")


def test_overflow_restored_by_another_constant_is_refused() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.lahf()
        a.seto(al)
        a.add(al, 0x7E)
        a.sahf()
        a.pop(rax)
        a.ret()

    refuse(write, "leaves with the flags not as at entry")


def test_saved_flags_may_wait_on_the_stack() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.lahf()
        a.seto(al)
        a.push(rax)
        a.xor(eax, eax)
        a.pop(rax)
        a.add(al, 0x7F)
        a.sahf()
        a.pop(rax)
        a.ret()

    accept(write)


def test_popfq_of_anything_but_the_saved_flags_is_refused() -> None:
    refuse(
        lines(lambda a: a.push(rax), lambda a: a.popfq(), lambda a: a.ret()),
        "popfq of something that pushfq did not store",
    )


def test_flags_changed_and_kept_by_pushfq_are_still_changed_after_popfq() -> None:
    write = lines(
        lambda a: a.inc(qword[rdi]), lambda a: a.pushfq(), lambda a: a.popfq(), lambda a: a.ret()
    )

    refuse(write, "leaves with the flags not as at entry")
    accept(write, replace(STRICT, clobbers_flags=True))


def test_direction_flag_changed_and_kept_by_pushfq_is_refused() -> None:
    refuse(
        lines(lambda a: a.std(), lambda a: a.pushfq(), lambda a: a.popfq(), lambda a: a.ret()),
        "popfq of something that pushfq did not store",
    )


def test_direction_flag_changed_is_refused() -> None:
    refuse(lines(lambda a: a.std(), lambda a: a.ret()), "leaves with DF not as at entry")
    refuse(lines(lambda a: a.cld(), lambda a: a.ret()), "leaves with DF not as at entry")


# The stack.


def test_return_below_the_entry_depth_is_refused() -> None:
    refuse(
        lines(lambda a: a.push(rax), lambda a: a.ret()),
        r"leaves with rsp at -8 from entry, \+0 is declared",
    )


def test_return_above_the_entry_depth_is_refused() -> None:
    refuse(
        lines(lambda a: a.lea(rsp, qword[rsp + 8]), lambda a: a.ret()),
        r"leaves with rsp at \+8 from entry",
    )


def test_return_that_pops_more_is_refused_unless_declared() -> None:
    refuse(lambda a: a.ret(128), "ret pops 128 bytes, 0 are declared")
    accept(lambda a: a.ret(128), replace(STRICT, ret_pops=128))


def test_paths_with_different_depths_are_refused_where_they_meet() -> None:
    def write(a: Asm) -> None:
        a.jrcxz("out")
        a.push(rax)
        a.depth = 0
        a.label("out")
        a.ret()

    assert refuse(write, "depths of rsp differ where paths meet at 0x401003").address == 0x401002


def test_push_in_a_loop_is_refused() -> None:
    def write(a: Asm) -> None:
        a.label("loop")
        a.push(rax)
        a.depth = 0
        a.jrcxz("loop")
        a.ret()

    refuse(write, "depths of rsp differ")


def test_more_stack_than_declared_is_refused() -> None:
    accept(lines(lambda a: a.push(rax), lambda a: a.pop(rax), lambda a: a.ret()), Contract(8))
    refuse(
        lines(lambda a: a.push(rax), lambda a: a.pop(rax), lambda a: a.ret()),
        "uses 8 bytes of stack, 7 are declared",
        Contract(7),
    )


def test_stack_taken_by_alignment_counts() -> None:
    refuse(saving_all, "bytes of stack, 100 are declared", replace(CALLING, stack_bytes=100))


@pytest.mark.parametrize("offset", [0, 8, 16])
def test_write_above_the_entry_rsp_is_refused_unless_declared(offset: int) -> None:
    write = lines(lambda a: a.mov(qword[rsp + offset], 0), lambda a: a.jmp(OUTSIDE))
    contract = replace(STRICT, exits={OUTSIDE: 0})

    refuse(write, f"writes above rsp at entry, at \\+{offset}", contract)
    accept(write, replace(contract, slots=((offset, offset + 8),)))


def test_write_reaching_over_the_entry_rsp_is_refused() -> None:
    refuse(
        lines(lambda a: a.mov(qword[rsp - 4], 0), lambda a: a.ret()),
        r"writes above rsp at entry, at \+0",
    )


def test_write_through_a_copy_of_rsp_is_followed() -> None:
    refuse(
        lines(
            lambda a: a.push(rbp),
            lambda a: a.mov(rbp, rsp),
            lambda a: a.mov(qword[rbp + 16], 0),
            lambda a: a.pop(rbp),
            lambda a: a.ret(),
        ),
        r"writes above rsp at entry, at \+8",
    )


def test_write_at_an_unknown_stack_offset_is_refused() -> None:
    refuse(
        lines(lambda a: a.mov(qword[rsp + rcx * 8 - 64], 0), lambda a: a.ret()),
        "uses a stack address at an unknown offset",
    )
    refuse(
        lines(
            lambda a: a.push(rbx),
            lambda a: a.lea(rbx, qword[rsp + rcx * 8]),
            lambda a: a.mov(qword[rbx], 0),
            lambda a: a.pop(rbx),
            lambda a: a.ret(),
        ),
        "uses a stack address at an unknown offset",
    )


def test_write_far_below_rsp_is_refused() -> None:
    refuse(
        lines(lambda a: a.mov(qword[rsp - 136], 0), lambda a: a.ret()),
        "writes more than 128 bytes below rsp",
    )


def test_value_kept_far_below_rsp_is_not_trusted() -> None:
    def write(a: Asm) -> None:
        a.sub(rsp, 144)
        a.mov(qword[rsp], rax)
        a.add(rsp, 144)
        a.mov(rax, qword[rsp - 144])
        a.ret()

    refuse(write, "leaves with rax not as at entry", replace(STRICT, clobbers_flags=True))


def test_write_into_the_red_zone_is_refused_where_it_is_the_programs() -> None:
    contract = Contract(stack_bytes=256, returns=False, exits={OUTSIDE: 0}, red_zone=True)
    refuse(
        lines(lambda a: a.push(rax), lambda a: a.pop(rax), lambda a: a.jmp(OUTSIDE)),
        "writes into the red zone",
        contract,
    )
    accept(
        lines(
            lambda a: a.lea(rsp, qword[rsp - 128]),
            lambda a: a.push(rax),
            lambda a: a.pop(rax),
            lambda a: a.lea(rsp, qword[rsp + 128]),
            lambda a: a.jmp(OUTSIDE),
        ),
        contract,
    )


def test_unknown_rsp_is_refused_where_it_is_used() -> None:
    refuse(
        lines(lambda a: a.mov(rsp, qword[rdi]), lambda a: a.push(rax), lambda a: a.ret()),
        "rsp does not have one known depth",
    )


def test_changed_return_address_is_refused_unless_it_redirects() -> None:
    write = lines(lambda a: a.mov(qword[rsp], rdi), lambda a: a.ret())
    contract = replace(STRICT, slots=((0, 8),))

    refuse(write, "the return address is not the one at entry", contract)
    accept(write, replace(contract, redirects=True))


# Control flow.


def test_jump_outside_is_refused_unless_declared() -> None:
    refuse(lambda a: a.jmp(OUTSIDE), "leaves for 0x500000, which is not a declared exit")
    accept(lambda a: a.jmp(OUTSIDE), Contract(exits={OUTSIDE: 0}))


def test_conditional_jump_outside_is_checked_as_an_exit() -> None:
    refuse(
        lines(lambda a: a.push(rax), lambda a: a.jne(OUTSIDE), lambda a: a.ret()),
        "leaves with rsp at -8",
        replace(STRICT, exits={OUTSIDE: 0}),
    )


def test_exit_with_a_declared_depth_is_accepted() -> None:
    accept(
        lines(lambda a: a.lea(rsp, qword[rsp + 8]), lambda a: a.jmp(OUTSIDE)),
        Contract(exits={OUTSIDE: 8}),
    )


def test_return_is_refused_where_it_is_no_exit() -> None:
    refuse(lambda a: a.ret(), "returns, which is not a declared exit", Contract(returns=False))


def test_indirect_jump_is_refused_unless_its_cell_is_declared() -> None:
    refuse(lambda a: a.jmp(rax), "leaves by an indirect jump that is not declared")
    through = lambda a: a.jmp(qword[rip(0x402000)])  # noqa: E731
    refuse(through, "leaves by an indirect jump that is not declared")
    accept(through, Contract(cells={0x402000: 0}))


def test_jump_through_a_cell_in_a_segment_is_not_the_declared_cell() -> None:
    refuse(lambda a: a.jmp(qword[fs, 0x2000]), "indirect jump", Contract(cells={0x2000: 0}))


def test_branch_into_the_middle_of_an_instruction_is_refused() -> None:
    asm = Asm()
    asm.code(bytes.fromhex("e3 01 b8 90 90 90 c3"))  # jrcxz +1; mov eax, 0xc3909090
    asm.code(bytes.fromhex("c3"))
    code = asm.assemble(ORIGIN)

    with pytest.raises(VerifyError, match="a branch goes into its middle, to 0x401003"):
        verify(code, replace(STRICT, clobbers=(rax,)))


def test_code_that_runs_off_its_end_is_refused() -> None:
    refuse(lambda a: a.nop(), "runs off the end of the code")
    refuse(lines(lambda a: a.jrcxz("end"), lambda a: a.ret(), lambda a: a.label("end")), "runs off")


def test_code_that_runs_into_data_is_refused() -> None:
    refuse(lines(lambda a: a.nop(), lambda a: a.quad(0)), "runs into data")


def test_data_that_is_never_reached_is_tolerated() -> None:
    accept(lines(lambda a: a.ret(), lambda a: a.bytes(b"\x06\xff\xff")))


def test_undecodable_instruction_is_refused() -> None:
    code = Code(ORIGIN, b"\x90\x06\xc3")

    with pytest.raises(VerifyError, match="not a whole instruction") as caught:
        verify(code, STRICT)
    assert caught.value.address == ORIGIN + 1


@pytest.mark.parametrize("mnemonic", ["int3", "ud2"])
def test_trap_that_is_reached_is_refused(mnemonic: str) -> None:
    refuse(lambda a: getattr(a, mnemonic)(), "a trap is reached")


def test_trap_that_is_not_reached_is_tolerated() -> None:
    accept(lines(lambda a: a.ret(), lambda a: a.int3()))


# Calls.


def test_call_that_is_not_declared_is_refused() -> None:
    refuse(lambda a: a.call(OUTSIDE), "calls 0x500000, which is not declared")
    refuse(lambda a: a.call(rax), "makes an indirect call that is not declared")


def test_call_with_unaligned_stack_is_refused() -> None:
    call = lines(lambda a: a.call(OUTSIDE), lambda a: a.ret())
    contract = Contract(
        stack_bytes=8,
        clobbers=CALLER_SAVED,
        clobbers_flags=True,
        calls={OUTSIDE: CallEffect()},
    )

    refuse(call, "rsp is not known to be a multiple of 16", contract)
    refuse(call, "rsp is not known to be a multiple", replace(contract, entry_alignment=8))
    accept(call, replace(contract, entry_alignment=0))
    accept(call, replace(contract, calls={OUTSIDE: CallEffect(aligned=False)}))


def test_call_clobbers_what_it_declares() -> None:
    contract = Contract(stack_bytes=8, calls={OUTSIDE: CallEffect(clobbers=(rdx,), aligned=False)})
    call = lines(lambda a: a.call(OUTSIDE), lambda a: a.ret())

    refuse(call, "leaves with rdx not as at entry", contract)
    refuse(call, "leaves with the flags", replace(contract, clobbers=(rdx,)))


def test_call_through_a_declared_cell_is_accepted() -> None:
    effect = CallEffect(clobbers=(), clobbers_flags=False, aligned=False)
    call = lines(lambda a: a.call(qword[rip(0x402000)]), lambda a: a.ret())

    accept(call, Contract(stack_bytes=8, calls={0x402000: effect}))
    accept(call, Contract(stack_bytes=8, calls={None: effect}))


ENTRY_HOOK, BODY, EXIT_HOOK = 0x500000, 0x501000, 0x502000
GRAPH = Contract(
    stack_bytes=8,
    slots=((0, 8),),
    calls={
        ENTRY_HOOK: CallEffect(clobbers=(), clobbers_flags=False, aligned=False),
        BODY: CallEffect(body=True, aligned=False),
        EXIT_HOOK: CallEffect(clobbers=(), clobbers_flags=False, aligned=False, restores=(0,)),
    },
)


def graphing(a: Asm) -> None:
    """The return address is kept by the hooks; the body is called where it was."""
    a.call(ENTRY_HOOK)
    a.lea(rsp, qword[rsp + 8])
    a.call(BODY)
    a.lea(rsp, qword[rsp - 8])
    a.call(EXIT_HOOK)
    a.ret()


def test_body_called_in_place_is_accepted() -> None:
    accept(graphing, GRAPH)


def test_body_called_with_a_register_changed_is_refused() -> None:
    refuse(
        lines(lambda a: a.mov(rdi, rsi), lambda a: a.lea(rsp, qword[rsp + 8]),
              lambda a: a.call(BODY)),
        "leaves with rdi not as at entry",
        GRAPH,
    )  # fmt: skip


def test_register_changed_after_the_body_is_refused() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.pop(rax)
        a.lea(rsp, qword[rsp + 8])
        a.call(BODY)
        a.lea(rsp, qword[rsp - 8])
        a.mov(rax, rdx)
        a.call(EXIT_HOOK)
        a.ret()

    refuse(write, "leaves with rax not as at entry", GRAPH)


def test_return_address_lost_to_the_body_is_refused() -> None:
    def write(a: Asm) -> None:
        a.lea(rsp, qword[rsp + 8])
        a.call(BODY)
        a.lea(rsp, qword[rsp - 8])
        a.ret()

    refuse(write, "the return address is not the one at entry", GRAPH)


# What may be touched.


@pytest.mark.parametrize(
    "touch",
    [
        lambda a: a.pxor(xmm0, xmm0),
        lambda a: a.movups(xmmword[rdi], xmm0),
        lambda a: a.kmovq(k1, qword[rdi]),
        lambda a: a.fld(st0),
        lambda a: a.fninit(),
        lambda a: a.stmxcsr(dword[rdi]),
        lambda a: a.vzeroupper(),
        lambda a: a.fxsave64(ptr[rdi]),
        lambda a: a.xrstor64(ptr[rdi]),
        lambda a: a.emms(),
    ],
)
def test_vector_state_is_refused_unless_declared(touch: Callable[[Asm], None]) -> None:
    write = lines(touch, lambda a: a.ret())

    refuse(write, "touches vector, x87 or mask state")
    accept(write, replace(STRICT, vector_state=True))


def test_save_area_on_the_stack_needs_its_size() -> None:
    def write(a: Asm) -> None:
        a.lea(rsp, qword[rsp - 1024])
        a.xsave64(ptr[rsp])
        a.lea(rsp, qword[rsp + 1024])
        a.ret()

    contract = Contract(stack_bytes=1024, vector_state=True)
    refuse(write, "writes an unknown number of bytes into the stack", contract)
    accept(write, replace(contract, xsave_bytes=1024))
    refuse(write, "writes above rsp at entry", replace(contract, xsave_bytes=1032))


@pytest.mark.parametrize("mnemonic", ["hlt", "cli", "rdmsr"])
def test_privileged_instruction_is_refused(mnemonic: str) -> None:
    refuse(lines(lambda a: getattr(a, mnemonic)(), lambda a: a.ret()), "privileged instruction")


def test_segment_base_change_is_refused() -> None:
    refuse(lines(lambda a: a.wrfsbase(rax), lambda a: a.ret()), "changes a segment base")
    refuse(lines(lambda a: a.mov(fs, eax), lambda a: a.ret()), "changes a segment register")


def test_change_of_protection_keys_or_shadow_stack_is_refused() -> None:
    refuse(lines(lambda a: a.wrpkru(), lambda a: a.ret()), "changes protection keys")
    refuse(lines(lambda a: a.incsspq(rax), lambda a: a.ret()), "or the shadow stack")


def test_system_call_is_refused_unless_declared() -> None:
    write = lines(lambda a: a.syscall(), lambda a: a.ret())
    contract = replace(STRICT, clobbers=(rax, rcx, r11), clobbers_flags=True)

    refuse(write, "system call not declared", contract)
    accept(write, replace(contract, syscalls=True))
    refuse(write, "leaves with r11", replace(contract, syscalls=True, clobbers=(rax, rcx)))


def test_write_into_its_own_code_is_refused() -> None:
    refuse(
        lines(lambda a: a.label("here"), lambda a: a.mov(dword[rip("here")], 0), lambda a: a.ret()),
        "writes into its own code",
    )


def test_string_store_into_the_stack_is_refused() -> None:
    refuse(
        lines(
            lambda a: a.push(rdi),
            lambda a: a.lea(rdi, qword[rsp - 64]),
            lambda a: a.stosq(rep=True),
            lambda a: a.pop(rdi),
            lambda a: a.ret(),
        ),
        "writes an unknown number of bytes into the stack",
    )


# Restartable sequences and other entries.


def test_missing_signature_before_an_abort_handler_is_refused() -> None:
    refuse(
        recording,
        "no signature before the abort handler",
        replace(RECORDING, sections=(Section("start", "end", "abort", signature=0x12345678),)),
    )


def test_stack_change_inside_a_section_is_refused() -> None:
    def write(a: Asm) -> None:
        a.label("start")
        a.push(rax)
        a.pop(rax)
        a.label("end")
        a.ret()
        a.long(0x53053053)
        a.label("abort", depth=0)
        a.ret()

    refuse(write, "depths of rsp differ", RECORDING)


def test_register_live_only_at_the_start_of_a_section_is_lost_at_its_abort() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.mov(rax, rcx)
        a.label("start")
        a.mov(rcx, qword[rdi])
        a.mov(rcx, rax)
        a.label("end")
        a.pop(rax)
        a.ret()
        a.long(0x53053053)
        a.label("abort", depth=8)
        a.pop(rax)
        a.ret()

    refuse(write, "leaves with rcx not as at entry", RECORDING)


def test_more_entries_start_with_the_state_of_their_label() -> None:
    def write(a: Asm) -> None:
        a.push(rax)
        a.mov(rax, 1)
        a.label("saved")
        a.pop(rax)
        a.ret()
        a.label("second", depth=8)
        a.lea(rsp, qword[rsp + 8])
        a.ret()

    refuse(write, "leaves with rax not as", replace(STRICT, entries={"second": "saved"}))


def test_entry_whose_label_is_never_reached_is_refused() -> None:
    write = lines(lambda a: a.ret(), lambda a: a.label("dead"), lambda a: a.ret())

    refuse(write, "never reached", replace(STRICT, entries={"dead": "dead"}))


def test_contract_that_names_a_missing_label_is_refused() -> None:
    refuse(lambda a: a.ret(), "names label 'gone'", replace(STRICT, entries={"gone": "gone"}))


def test_error_names_reason_address_and_instruction() -> None:
    error = refuse(lines(lambda a: a.push(rbx), lambda a: a.ret()), "leaves with rsp")

    assert error.address == 0x401001
    assert error.instruction == "ret"
    assert str(error).startswith(
        "cannot use generated code: 0x401001: ret: leaves with rsp at -8 from entry, +0 is declared"
    )


# Properties.


@given(st.permutations([r for r in GENERAL_64 if r is not rsp]), st.integers(0, 15))
def test_any_registers_pushed_and_popped_in_reverse_are_restored(
    order: list[object], count: int
) -> None:
    def write(a: Asm) -> None:
        saved = order[:count]
        for register in saved:
            a.push(register)
        for register in saved:
            a.lea(register, ptr[rip(0x402000)])
        for register in reversed(saved):
            a.pop(register)
        a.ret()

    accept(write, Contract(stack_bytes=8 * count))


@given(st.permutations([rax, rcx, rdx, rbx, rsi, r8, r15]), st.data())
def test_one_pop_left_out_is_always_refused(order: list[object], data: st.DataObject) -> None:
    left_out = data.draw(st.integers(0, len(order) - 1))

    def write(a: Asm) -> None:
        for register in order:
            a.push(register)
        for n, register in enumerate(reversed(order)):
            if n != left_out:
                a.pop(register)
        a.ret()

    with pytest.raises(VerifyError):
        verify(body(write), STRICT)


@given(st.binary(min_size=1, max_size=40))
def test_any_bytes_are_accepted_or_refused_and_never_fail_otherwise(data: bytes) -> None:
    try:
        verify(Code(ORIGIN, data), STRICT)
    except VerifyError as error:
        assert ORIGIN <= error.address < ORIGIN + len(data)
