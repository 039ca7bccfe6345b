"""What one instruction does to a `State`; everything not followed exactly becomes unknown.

Assumed, because bytes alone cannot show it: pointers that do not come from rsp do not point into
the code's own part of the stack, and the three flag groups are SF ZF AF PF CF (lahf and sahf), OF,
and DF.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iced_x86 import (
    CpuidFeature,
    Instruction,
    InstructionInfoFactory,
    MemorySize_,
    MemorySizeExt,
    Mnemonic,
    OpAccess,
    OpKind,
    Register_,
    RegisterExt,
    RflagsBits,
)
from iced_x86 import Register as IcedRegister

from fentry.x86.code import Code
from fentry.x86.contract import Contract
from fentry.x86.symbolic import (
    DIRECTION,
    ENTRY,
    FLAGS_IMAGE,
    LOW_FLAGS,
    OVERFLOW,
    PARTS,
    RED_ZONE_BYTES,
    STACK_DERIVED,
    STATUS_CHANGED,
    State,
    Value,
    aligned_frame,
    as_constant,
    as_stack_address,
    base_of,
    constant,
    is_stack_derived,
    lowest,
    stack_address,
    unknown,
)

_M = Mnemonic
_WRITES = (
    OpAccess.WRITE,
    OpAccess.COND_WRITE,
    OpAccess.READ_WRITE,
    OpAccess.READ_COND_WRITE,
)
_LOW_BITS = RflagsBits.SF | RflagsBits.ZF | RflagsBits.AF | RflagsBits.PF | RflagsBits.CF
_CONTROL_WORDS = (_M.LDMXCSR, _M.STMXCSR, _M.VLDMXCSR, _M.VSTMXCSR)
_SEGMENT_BASES = (_M.WRFSBASE, _M.WRGSBASE, _M.SWAPGS)
_PROTECTION = (_M.WRPKRU, _M.INCSSPD, _M.INCSSPQ, _M.RSTORSSP, _M.SAVEPREVSSP)
_OLD_FEATURES = (CpuidFeature.FPU, CpuidFeature.MMX, CpuidFeature.D3NOW)
_NO_REGISTER_FILE = (IcedRegister.NONE, IcedRegister.RIP, IcedRegister.EIP)

# rsp this far above its place at entry is a mistake, not the caller's frame.
_HIGHEST_RSP = 1024

Place = tuple[str, int] | None  # (frame, offset), or None: not in the stack


class Refused(Exception):
    """The instruction breaks the contract; the argument says how."""


class Transfer:
    """Applies instructions to states under a contract; `deepest` is the lowest stack offset."""

    def __init__(self, code: Code, contract: Contract) -> None:
        self.deepest = 0
        self._code = code
        self._contract = contract
        self._information = InstructionInfoFactory()
        self._exact: dict[int, Callable[[State, Instruction], bool]] = {
            _M.MOV: self._mov,
            _M.MOVZX: self._movzx,
            _M.LEA: self._lea,
            _M.PUSH: self._push,
            _M.POP: self._pop,
            _M.PUSHFQ: self._pushfq,
            _M.POPFQ: self._popfq,
            _M.LAHF: self._lahf,
            _M.SAHF: self._sahf,
            _M.SETO: self._seto,
            _M.ADD: self._add,
            _M.SUB: self._sub,
            _M.AND: self._and,
            _M.XOR: self._xor,
            _M.XCHG: self._xchg,
            _M.LEAVE: self._leave,
        }

    def apply(self, state: State, instruction: Instruction) -> None:
        """Change the state as the instruction does; raises Refused."""
        self._check_allowed(instruction)
        restores_overflow = _restores_overflow(state, instruction)
        exact = self._exact.get(instruction.mnemonic)
        if exact is None or not exact(state, instruction):
            self._generic(state, instruction)
        self._set_flags(state, instruction)
        if restores_overflow:
            state.overflow = OVERFLOW
        self._settle(state)

    def stack_pointer(self, state: State) -> tuple[str, int]:
        """Where rsp points; raises Refused if that is not known."""
        place = as_stack_address(state.registers["rsp"])
        if place is None:
            raise Refused("rsp does not have one known depth")
        return place

    def push(self, state: State, value: Value) -> None:
        """Lower rsp by 8 and store 8 bytes there."""
        frame, offset = self.stack_pointer(state)
        state.registers["rsp"] = stack_address(frame, offset - 8)
        self._store(state, (frame, offset - 8), value)

    # What an instruction may touch at all.

    def _check_allowed(self, instruction: Instruction) -> None:
        mnemonic = instruction.mnemonic
        if instruction.is_privileged:
            raise Refused("privileged instruction")
        if mnemonic in _SEGMENT_BASES:
            raise Refused("changes a segment base")
        if mnemonic in _PROTECTION:
            raise Refused("changes protection keys or the shadow stack")
        if mnemonic == _M.SYSCALL and not self._contract.syscalls:
            raise Refused("system call not declared")
        used = self._information.info(instruction).used_registers()
        for register in used:
            if RegisterExt.is_segment_register(register.register) and register.access in _WRITES:
                raise Refused("changes a segment register")
        if not self._contract.vector_state and touches_vectors(
            instruction, [register.register for register in used]
        ):
            raise Refused("touches vector, x87 or mask state")

    # Memory.

    def _place(self, state: State, instruction: Instruction) -> Place:
        """Where the memory operand lies; raises Refused for a stack address not followed."""
        return self._resolve(
            state,
            instruction.memory_base,
            instruction.memory_index,
            instruction.memory_index_scale,
            instruction.memory_displacement,
        )

    def _resolve(
        self, state: State, base: Register_, index: Register_, scale: int, displacement: int
    ) -> Place:
        if base not in PARTS and index not in PARTS:
            return None
        zero = constant(0, 8)
        base_value = state.read_register(base) if base in PARTS else zero
        index_value = state.read_register(index) if index in PARTS else zero
        if not is_stack_derived(base_value) and not is_stack_derived(index_value):
            return None
        place, steps = as_stack_address(base_value), as_constant(index_value)
        if place is None or steps is None:
            if as_constant(base_value) is not None and scale == 1:
                place, steps = as_stack_address(index_value), as_constant(base_value)
            if place is None or steps is None:
                raise Refused("uses a stack address at an unknown offset")
        offset = place[1] + _signed64(steps) * scale + _signed64(displacement)
        return place[0], offset

    def _load(self, state: State, place: Place, size: int) -> Value:
        return unknown(size) if place is None else state.read_slot(*place, size)

    def _store(self, state: State, place: Place, value: Value) -> None:
        if place is None:
            return
        frame, offset = place
        self._check_store(state, frame, offset, len(value))
        state.write_slot(frame, offset, value)

    def _check_store(self, state: State, frame: str, offset: int, size: int) -> None:
        contract = self._contract
        self._use(lowest(frame, offset))
        stop = offset + size
        if frame != ENTRY and stop > 0:
            raise Refused("writes above the place where rsp was aligned")
        if frame == ENTRY and stop > 0:
            declared = any(start <= max(offset, 0) and stop <= end for start, end in contract.slots)
            if not declared:
                raise Refused(f"writes above rsp at entry, at {max(offset, 0):+d}")
        highest = stop if frame == ENTRY else (base_of(frame) or 0) + stop
        if contract.red_zone and highest > -RED_ZONE_BYTES and offset < 0:
            raise Refused("writes into the red zone below rsp at entry")
        rsp = as_stack_address(state.registers["rsp"])
        if rsp is not None and rsp[0] == frame and offset < rsp[1] - RED_ZONE_BYTES:
            raise Refused("writes more than 128 bytes below rsp")

    def _use(self, offset: int) -> None:
        self.deepest = min(self.deepest, offset)
        if -offset > self._contract.stack_bytes:
            raise Refused(
                f"uses {-offset} bytes of stack, {self._contract.stack_bytes} are declared"
            )

    def _check_own_code(self, instruction: Instruction) -> None:
        base = instruction.memory_base
        if base in PARTS or instruction.memory_index in PARTS or instruction.has_segment_prefix:
            return
        if self._code.origin <= instruction.memory_displacement < self._code.end:
            raise Refused("writes into its own code")

    # Operands.

    def _read(self, state: State, instruction: Instruction, n: int, size: int) -> Value | None:
        """The operand's bytes; None for registers that are not general ones."""
        kind = instruction.op_kind(n)
        if kind == OpKind.REGISTER:
            register = instruction.op_register(n)
            return state.read_register(register) if register in PARTS else None
        if kind == OpKind.MEMORY:
            return self._load(state, self._place(state, instruction), size)
        return constant(instruction.immediate(n), size)

    def _write(self, state: State, instruction: Instruction, n: int, value: Value) -> None:
        if instruction.op_kind(n) == OpKind.REGISTER:
            state.write_register(instruction.op_register(n), value)
        else:
            self._check_own_code(instruction)
            self._store(state, self._place(state, instruction), value)

    # Instructions followed exactly. Each returns False for forms left to _generic.

    def _mov(self, state: State, instruction: Instruction) -> bool:
        size = _operand_size(instruction, 0)
        value = self._read(state, instruction, 1, size)
        if value is None or len(value) != size or not _writable(instruction, 0):
            return False
        self._write(state, instruction, 0, value)
        return True

    def _movzx(self, state: State, instruction: Instruction) -> bool:
        value = self._read(state, instruction, 1, _operand_size(instruction, 1))
        size = _operand_size(instruction, 0)
        self._write(state, instruction, 0, (*(value or ()), *constant(0, size))[:size])
        return True

    def _lea(self, state: State, instruction: Instruction) -> bool:
        if _operand_size(instruction, 0) != 8:
            return False
        if instruction.is_ip_rel_memory_operand:
            value = constant(instruction.ip_rel_memory_address, 8)
        else:
            try:
                place = self._place(state, instruction)
            except Refused:
                value = (STACK_DERIVED,) * 8
            else:
                value = stack_address(*place) if place else unknown(8)
        self._write(state, instruction, 0, value)
        return True

    def _push(self, state: State, instruction: Instruction) -> bool:
        if instruction.stack_pointer_increment != -8:
            raise Refused("pushes less than 8 bytes")
        value = self._read(state, instruction, 0, 8)
        self.push(state, value or unknown(8))
        return True

    def _pop(self, state: State, instruction: Instruction) -> bool:
        if instruction.stack_pointer_increment != 8:
            raise Refused("pops less than 8 bytes")
        frame, offset = self.stack_pointer(state)
        value = state.read_slot(frame, offset, 8)
        # SDM Vol. 2, POP: an address made from rsp counts from rsp after the pop.
        state.registers["rsp"] = stack_address(frame, offset + 8)
        self._write(state, instruction, 0, value)
        return True

    def _pushfq(self, state: State, instruction: Instruction) -> bool:
        image = STATUS_CHANGED if state.direction == DIRECTION else unknown(8)
        self.push(state, FLAGS_IMAGE if state.flags_are_initial() else image)
        return True

    def _popfq(self, state: State, instruction: Instruction) -> bool:
        frame, offset = self.stack_pointer(state)
        image = state.read_slot(frame, offset, 8)
        if image not in (FLAGS_IMAGE, STATUS_CHANGED):
            raise Refused("popfq of something that pushfq did not store")
        status = image == FLAGS_IMAGE
        state.low_flags, state.overflow = (LOW_FLAGS, OVERFLOW) if status else (None, None)
        state.direction = DIRECTION
        state.registers["rsp"] = stack_address(frame, offset + 8)
        return True

    def _lahf(self, state: State, instruction: Instruction) -> bool:
        state.write_register(IcedRegister.AH, (state.low_flags,))
        return True

    def _sahf(self, state: State, instruction: Instruction) -> bool:
        return True  # see _set_flags

    def _seto(self, state: State, instruction: Instruction) -> bool:
        self._write(state, instruction, 0, (state.overflow,))
        return True

    def _add(self, state: State, instruction: Instruction) -> bool:
        return self._step(state, instruction, 1)

    def _sub(self, state: State, instruction: Instruction) -> bool:
        return self._step(state, instruction, -1)

    def _step(self, state: State, instruction: Instruction, sign: int) -> bool:
        if instruction.op0_kind != OpKind.REGISTER or _operand_size(instruction, 0) != 8:
            return False
        place = as_stack_address(state.read_register(instruction.op0_register))
        source = self._read(state, instruction, 1, 8)
        count = None if source is None else as_constant(source)
        if place is None or count is None:
            return False
        moved = stack_address(place[0], place[1] + sign * _signed64(count))
        state.write_register(instruction.op0_register, moved)
        return True

    def _and(self, state: State, instruction: Instruction) -> bool:
        if instruction.op0_kind != OpKind.REGISTER or instruction.op0_register != IcedRegister.RSP:
            return False
        frame, offset = self.stack_pointer(state)
        mask = as_constant(self._read(state, instruction, 1, 8) or unknown(8))
        alignment = 0 if mask is None else (1 << 64) - mask
        if frame != ENTRY or alignment not in (8, 16, 32, 64):
            raise Refused("aligns rsp in a way that is not followed")
        state.forget_below(ENTRY, offset)
        state.registers["rsp"] = stack_address(aligned_frame(offset, alignment), 0)
        return True

    def _xor(self, state: State, instruction: Instruction) -> bool:
        registers = OpKind.REGISTER == instruction.op0_kind == instruction.op1_kind
        if not registers or instruction.op0_register != instruction.op1_register:
            return False
        size = _operand_size(instruction, 0)
        state.write_register(instruction.op0_register, constant(0, size))
        return True

    def _xchg(self, state: State, instruction: Instruction) -> bool:
        size = _operand_size(instruction, 1)
        one = self._read(state, instruction, 0, size)
        two = self._read(state, instruction, 1, size)
        if one is None or two is None:
            return False
        place = None
        if instruction.op0_kind == OpKind.MEMORY:
            # The address is that of before the exchange.
            self._check_own_code(instruction)
            place = self._place(state, instruction)
        state.write_register(instruction.op1_register, one)
        if instruction.op0_kind == OpKind.MEMORY:
            self._store(state, place, two)
        else:
            state.write_register(instruction.op0_register, two)
        return True

    def _leave(self, state: State, instruction: Instruction) -> bool:
        state.registers["rsp"] = state.registers["rbp"]
        frame, offset = self.stack_pointer(state)
        state.registers["rbp"] = state.read_slot(frame, offset, 8)
        state.registers["rsp"] = stack_address(frame, offset + 8)
        return True

    # Everything else.

    def _generic(self, state: State, instruction: Instruction) -> None:
        information = self._information.info(instruction)
        used = information.used_registers()
        derived = any(
            is_stack_derived(state.read_register(u.register))
            for u in used
            if u.register in PARTS and u.access not in (OpAccess.WRITE, OpAccess.COND_WRITE)
        )
        writes: list[tuple[Place, int]] = []
        for memory in information.used_memory():
            if memory.access in _WRITES:
                place = self._resolve(
                    state, memory.base, memory.index, memory.scale, memory.displacement
                )
                writes.append((place, self._size_of_write(memory.memory_size, place, instruction)))
        if writes:
            self._check_own_code(instruction)
        for place, size in writes:
            self._store(state, place, unknown(size))
        for u in used:
            if u.register in PARTS and u.access in _WRITES:
                size = PARTS[u.register][2]
                pointer = derived and size == 8 and not writes
                state.write_register(u.register, (STACK_DERIVED,) * 8 if pointer else unknown(size))

    def _size_of_write(
        self, memory_size: MemorySize_, place: Place, instruction: Instruction
    ) -> int:
        size = int(MemorySizeExt.size(memory_size))
        if place is None:
            return size
        if instruction.has_rep_prefix or instruction.has_repne_prefix:
            raise Refused("writes an unknown number of bytes into the stack")
        if size == 0 and instruction.is_save_restore_instruction:
            size = self._contract.xsave_bytes
        if size == 0:
            raise Refused("writes an unknown number of bytes into the stack")
        return size

    def _set_flags(self, state: State, instruction: Instruction) -> None:
        match instruction.mnemonic:
            case _M.POPFQ:
                pass  # see _popfq
            case _M.SAHF:
                (ah,) = state.read_register(IcedRegister.AH)
                state.low_flags = ah if ah == LOW_FLAGS else None
            case _M.CLD | _M.STD:
                state.direction = int(instruction.mnemonic == _M.STD)
            case _M.SYSCALL:
                state.low_flags = state.overflow = None
            case _:
                modified = instruction.rflags_modified
                if modified & _LOW_BITS:
                    state.low_flags = None
                if modified & RflagsBits.OF:
                    state.overflow = None
                if modified & RflagsBits.DF:
                    state.direction = None

    def _settle(self, state: State) -> None:
        """After each instruction: signal handlers may have used what lies below the red zone."""
        place = as_stack_address(state.registers["rsp"])
        if place is None:
            return
        self._use(lowest(*place))
        frame, offset = place
        if offset > _HIGHEST_RSP:
            raise Refused(f"raises rsp {offset} bytes above entry")
        state.forget_below(frame, offset - RED_ZONE_BYTES)
        state.forget_frames_but(frame)


def _restores_overflow(state: State, instruction: Instruction) -> bool:
    """Whether it is `add r8, 0x7f` on what seto saved: 1 + 0x7f overflows, 0 + 0x7f does not."""
    return bool(
        instruction.mnemonic == _M.ADD
        and instruction.op0_kind == OpKind.REGISTER
        and _operand_size(instruction, 0) == 1
        and instruction.op1_kind == OpKind.IMMEDIATE8
        and instruction.immediate8 == 0x7F
        and state.read_register(instruction.op0_register) == (OVERFLOW,)
    )


def touches_vectors(instruction: Instruction, registers: Sequence[Register_]) -> bool:
    """Whether vector, mask, x87 or MXCSR state is read or written; `registers` are those used."""
    if instruction.is_save_restore_instruction or instruction.mnemonic in _CONTROL_WORDS:
        return True
    if any(feature in _OLD_FEATURES for feature in instruction.cpuid_features()):
        return True
    return any(
        not RegisterExt.is_gpr(register)
        and not RegisterExt.is_segment_register(register)
        and register not in _NO_REGISTER_FILE
        for register in registers
    )


def _operand_size(instruction: Instruction, n: int) -> int:
    if instruction.op_kind(n) == OpKind.REGISTER:
        return int(RegisterExt.size(instruction.op_register(n)))
    return int(MemorySizeExt.size(instruction.memory_size))


def _writable(instruction: Instruction, n: int) -> bool:
    return instruction.op_kind(n) != OpKind.REGISTER or instruction.op_register(n) in PARTS


def _signed64(value: int) -> int:
    value %= 1 << 64
    return value - (1 << 64) if value >> 63 else value
