"""Bytes to instructions: a light wrapper of the decoder, with the questions asked most.

`Instruction` is iced-x86's own, so that whoever needs operands has them; addresses are those of
the target. Nothing here judges whether instructions may be moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from iced_x86 import Decoder, FlowControl, Instruction, OpKind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DIRECT = (OpKind.NEAR_BRANCH64, OpKind.NEAR_BRANCH32, OpKind.NEAR_BRANCH16)
_BRANCHES = (
    FlowControl.UNCONDITIONAL_BRANCH,
    FlowControl.CONDITIONAL_BRANCH,
    FlowControl.INDIRECT_BRANCH,
    FlowControl.CALL,
    FlowControl.INDIRECT_CALL,
    FlowControl.XBEGIN_XABORT_XEND,
)
_CALLS = (FlowControl.CALL, FlowControl.INDIRECT_CALL)
_NO_SUCCESSOR = (
    FlowControl.UNCONDITIONAL_BRANCH,
    FlowControl.INDIRECT_BRANCH,
    FlowControl.RETURN,
    FlowControl.INTERRUPT,
    FlowControl.EXCEPTION,
)


def iterate(data: bytes, address: int) -> Iterator[Instruction]:
    """The instructions of `data` in order, the first at `address`; stops before undecodable bytes.

    `instruction.ip` is its address, `instruction.len` its length in bytes.
    """
    for instruction in Decoder(64, data, ip=address):
        if instruction.is_invalid:
            return
        yield instruction


def instructions(data: bytes, address: int) -> list[Instruction]:
    """All instructions of `data`; raises ValueError with the address of bytes that are none."""
    found = list(iterate(data, address))
    end = found[-1].next_ip if found else address
    if end != address + len(data):
        raise ValueError(f"no whole instruction at {end:#x}: {data[end - address :][:15].hex(' ')}")
    return found


def instruction_at(data: bytes, address: int) -> Instruction:
    """The first instruction of `data`; raises ValueError if there is none."""
    for instruction in iterate(data, address):
        return instruction
    raise ValueError(f"no whole instruction at {address:#x}: {data[:15].hex(' ')}")


def boundaries(data: bytes, address: int) -> npt.NDArray[np.uint64]:
    """Addresses where instructions start, as uint64[n], from a linear sweep.

    Raises ValueError as `instructions` does.
    """
    import numpy as np  # here: it loads longer than the whole package

    return np.array([i.ip for i in instructions(data, address)], dtype=np.uint64)


def is_branch(instruction: Instruction) -> bool:
    """Whether it may continue elsewhere: jumps, calls, loops and xbegin, but not ret."""
    return instruction.flow_control in _BRANCHES


def is_call(instruction: Instruction) -> bool:
    """Whether it is a call, direct or not."""
    return instruction.flow_control in _CALLS


def falls_through(instruction: Instruction) -> bool:
    """Whether the next instruction can be reached from it (a call is taken to return)."""
    return instruction.flow_control not in _NO_SUCCESSOR


def branch_target(instruction: Instruction) -> int | None:
    """Where a direct branch, call or xbegin goes; None for all others."""
    if instruction.op_count and instruction.op0_kind in _DIRECT:
        return int(instruction.near_branch_target)
    return None


def rip_relative_target(instruction: Instruction) -> int | None:
    """The address a rip-relative memory operand names; None if there is no such operand."""
    if instruction.is_ip_rel_memory_operand:
        return int(instruction.ip_rel_memory_address)
    return None
