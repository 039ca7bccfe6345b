"""Instructions moved to another address, doing there what they did where they came from.

What means the same anywhere is copied. What refers to its own address is written anew: operands
relative to rip, jumps, loops, calls. A call is made so that the callee finds the return address of
the original on the stack, whoever looks at it: unwinders, `backtrace()`, the function itself; and
by a real call, so that the processor's return prediction stays in step (one misprediction a call,
instead of one for every caller).

Not here: whether something else enters the bytes that are moved (sites/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iced_x86 import Code, Decoder, FlowControl, Instruction, Mnemonic, OpKind, Register

from fentry.x86.operands import fits_i32

# Mnemonics: popf can set the trap flag; an endbr64 is the target of an indirect branch; xend and
# xabort belong to a transaction that started elsewhere; the segment's limit of hlt is the kernel's.
_NOT_MOVABLE = frozenset(
    (
        Mnemonic.POPF,
        Mnemonic.POPFQ,
        Mnemonic.ENDBR64,
        Mnemonic.ENDBR32,
        Mnemonic.XBEGIN,
        Mnemonic.XEND,
        Mnemonic.XABORT,
        Mnemonic.HLT,
    )
)
_SYSTEM = frozenset((Mnemonic.SYSCALL, Mnemonic.SYSENTER, Mnemonic.SYSRET, Mnemonic.SYSEXIT))
_ENDS = frozenset(
    (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_BRANCH, FlowControl.RETURN)
)
_RETURN_BYTES = 20  # call to the next instruction, and two stores of 32 bits
_STACK = (Register.RSP, Register.ESP)


class CannotMove(ValueError):
    """An instruction cannot run elsewhere; `ip` is where it stands."""

    def __init__(self, reason: str, ip: int) -> None:
        super().__init__(f"{reason} at {ip:#x}")
        self.reason = reason
        self.ip = ip


@dataclass(frozen=True, slots=True)
class Moved:
    """`code` for the new address; `places` maps the address of each original instruction to where
    its copy begins. `ends` says that control never runs off the end of it."""

    code: bytes
    places: Mapping[int, int]
    ends: bool


def decode(code: bytes, ip: int) -> list[tuple[Instruction, bytes]]:
    """The whole instructions of `code` with their bytes; raises CannotMove where there is none."""
    decoder = Decoder(64, code, ip=ip)
    found = []
    while decoder.can_decode:
        start = decoder.position
        instruction = decoder.decode()
        if instruction.is_invalid:
            raise CannotMove("no valid instruction", ip + start)
        found.append((instruction, code[start : decoder.position]))
    return found


def why_not_movable(instruction: Instruction) -> str:
    """Why an instruction cannot run elsewhere, "" if it can."""
    flow = instruction.flow_control
    if instruction.mnemonic in _SYSTEM or flow == FlowControl.INTERRUPT:
        return "a system call or interrupt"
    if instruction.is_privileged or instruction.mnemonic in _NOT_MOVABLE:
        return "an instruction that cannot run elsewhere"
    if flow in (FlowControl.NEXT, FlowControl.RETURN):
        if instruction.is_ip_rel_memory_operand and instruction.memory_base == Register.EIP:
            return "an operand relative to eip"
        return "" if instruction.code not in _FAR_RETURNS else "a far return"
    if flow in (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.CONDITIONAL_BRANCH, FlowControl.CALL):
        near = instruction.op0_kind == OpKind.NEAR_BRANCH64
        return "" if near else "a branch that cuts its target"
    if flow in (FlowControl.INDIRECT_BRANCH, FlowControl.INDIRECT_CALL):
        if instruction.code not in (Code.JMP_RM64, Code.CALL_RM64):
            return "a far or narrow branch"
        in_memory = instruction.op0_kind == OpKind.MEMORY
        register = instruction.memory_base if in_memory else instruction.op0_register
        called = flow == FlowControl.INDIRECT_CALL and register in _STACK
        return "a call by way of the stack pointer" if called else ""
    return "an instruction that cannot run elsewhere"


def is_plain(instruction: Instruction) -> bool:
    """Whether a copy means the same anywhere, and control goes on behind it."""
    return instruction.flow_control == FlowControl.NEXT and not instruction.is_ip_rel_memory_operand


def ends_flow(instruction: Instruction) -> bool:
    """Whether control never goes on behind it."""
    return instruction.flow_control in _ENDS


def relocate(code: bytes, ip: int, to: int) -> Moved:
    """The instructions of `code`, which stand at `ip`, for address `to`.

    A branch to one of the instructions themselves goes to its copy; all others go where they
    went, and control that runs off the end does so at the end of the copy. Raises CannotMove.
    """
    decoded = decode(code, ip)
    for instruction, _ in decoded:
        if reason := why_not_movable(instruction):
            raise CannotMove(reason, instruction.ip)
    places, position = {}, to
    for instruction, raw in decoded:
        places[instruction.ip] = position
        position += _size(instruction, raw)
    parts = [_copy(instruction, raw, places, ip, ip + len(code)) for instruction, raw in decoded]
    ends = bool(decoded) and ends_flow(decoded[-1][0])
    return Moved(b"".join(parts), places, ends)


def moved_bytes(instructions: Sequence[tuple[Instruction, bytes]]) -> int:
    """How many bytes the copies of the instructions take."""
    return sum(_size(instruction, raw) for instruction, raw in instructions)


_FAR_RETURNS = frozenset(
    (
        Code.RETFD, Code.RETFQ, Code.RETFW, Code.RETFD_IMM16, Code.RETFQ_IMM16, Code.RETFW_IMM16,
        Code.IRETD, Code.IRETQ, Code.IRETW,
    )
)  # fmt: skip


def _size(instruction: Instruction, raw: bytes) -> int:
    match instruction.flow_control:
        case FlowControl.CONDITIONAL_BRANCH:
            return 6 if _condition(raw) is not None else len(raw) + 2 + 5
        case FlowControl.UNCONDITIONAL_BRANCH:
            return 5
        case FlowControl.CALL:
            return _RETURN_BYTES + 5
        case FlowControl.INDIRECT_CALL:
            return _RETURN_BYTES + len(raw)
        case _:
            return len(raw)


def _copy(
    instruction: Instruction, raw: bytes, places: Mapping[int, int], start: int, end: int
) -> bytes:
    at = places[instruction.ip]
    match instruction.flow_control:
        case FlowControl.CONDITIONAL_BRANCH:
            target = _target(instruction, places, start, end)
            condition = _condition(raw)
            if condition is not None:  # jcc rel32
                return bytes((0x0F, 0x80 + condition)) + _rel32(instruction, at + 6, target)
            # loop, jrcxz and the like have 8 bits only:  L: loop taken; jmp over; taken: jmp target
            short = raw[:-1] + b"\x02" + b"\xeb\x05\xe9"
            return short + _rel32(instruction, at + len(short) + 4, target)
        case FlowControl.UNCONDITIONAL_BRANCH:
            target = _target(instruction, places, start, end)
            return b"\xe9" + _rel32(instruction, at + 5, target)
        case FlowControl.CALL:
            jump = b"\xe9" + _rel32(
                instruction, at + _RETURN_BYTES + 5, instruction.near_branch_target
            )
            return _returning_to(instruction.next_ip) + jump
        case FlowControl.INDIRECT_CALL:
            called = _rip_relative(instruction, raw, at + _RETURN_BYTES)
            return _returning_to(instruction.next_ip) + _as_jump(called, raw)
        case _:
            return _rip_relative(instruction, raw, at)


def _condition(raw: bytes) -> int | None:
    # The low four bits of jcc's opcode; None for those that have no form with 32 bits.
    body = raw.lstrip(b"\x2e\x3e\xf2")  # branch hints, bnd
    if body[0] == 0x0F:
        return body[1] & 15
    return body[0] & 15 if 0x70 <= body[0] < 0x80 else None


def _target(instruction: Instruction, places: Mapping[int, int], start: int, end: int) -> int:
    target = int(instruction.near_branch_target)
    if start <= target < end:
        if target not in places:
            raise CannotMove("a branch between instructions", instruction.ip)
        return places[target]
    return target


def _returning_to(address: int) -> bytes:
    # call over nothing; mov dword [rsp], low half; mov dword [rsp + 4], high half
    low, high = address & 0xFFFFFFFF, address >> 32
    return (
        b"\xe8\x00\x00\x00\x00"
        + b"\xc7\x04\x24" + low.to_bytes(4, "little")
        + b"\xc7\x44\x24\x04" + high.to_bytes(4, "little")
    )  # fmt: skip


def _as_jump(code: bytes, raw: bytes) -> bytes:
    # call r/m64 is FF /2, jmp r/m64 is FF /4 (SDM Vol. 2, CALL and JMP).
    at = raw.index(0xFF) + 1
    return code[:at] + bytes((code[at] & 0xC7 | 4 << 3,)) + code[at + 1 :]


def _rip_relative(instruction: Instruction, raw: bytes, at: int) -> bytes:
    if not instruction.is_ip_rel_memory_operand:
        return raw
    offset = _displacement_offset(raw)
    distance = _rel32(instruction, at + len(raw), int(instruction.ip_rel_memory_address))
    return raw[:offset] + distance + raw[offset + 4 :]


def _displacement_offset(raw: bytes) -> int:
    decoder = Decoder(64, raw)
    return decoder.get_constant_offsets(decoder.decode()).displacement_offset


def _rel32(instruction: Instruction, end: int, target: int) -> bytes:
    if not fits_i32(target - end):
        raise CannotMove("what it refers to is out of reach", instruction.ip)
    return (target - end).to_bytes(4, "little", signed=True)
