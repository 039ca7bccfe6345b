"""A proof that a finished body keeps its contract, run whenever one is built.

The final bytes are decoded and executed on symbols over all paths, as the verifier of the kernel
does for BPF (kernel/bpf/verifier.c): where paths meet, only what holds on both is kept, until
nothing changes. Only what can be reached is looked at, so data may lie between and behind.
"""

from __future__ import annotations

from collections import deque

from iced_x86 import Decoder, FlowControl, Instruction, Mnemonic, OpKind
from iced_x86 import Register as IcedRegister

from fentry.errors import FentryError
from fentry.x86.code import Code, disassemble
from fentry.x86.contract import CallEffect, Contract, Section
from fentry.x86.decode import branch_target, falls_through, rip_relative_target
from fentry.x86.registers import GENERAL_64
from fentry.x86.symbolic import (
    DIRECTION,
    ENTRY,
    State,
    as_stack_address,
    initial,
    stack_address,
    unknown,
)
from fentry.x86.transfer import Refused, Transfer

_TRAPS = (FlowControl.INTERRUPT, FlowControl.EXCEPTION)
_RETURN_ADDRESS = tuple(("entry", n, 0) for n in range(8))


class VerifyError(FentryError):
    """A body does not keep its contract: a fault in the code that emitted it.

    `reason` is the rule that is broken, `address` (in the target) and `instruction` say where.
    """

    def __init__(self, reason: str, address: int, instruction: str) -> None:
        super().__init__(
            f"cannot use generated code: {address:#x}: {instruction}: {reason}",
            cause="the body breaks its contract",
            remedy="report this with the listing; nothing was written into the target",
        )
        self.reason = reason
        self.address = address
        self.instruction = instruction


def verify(code: Code, contract: Contract) -> None:
    """Returns if the code keeps the contract on every path; raises VerifyError if not."""
    _Proof(code, contract).run()


class _Proof:
    """The states before each instruction reached so far, and the instructions to look at again."""

    def __init__(self, code: Code, contract: Contract) -> None:
        self._code = code
        self._contract = contract
        self._transfer = Transfer(code, contract)
        self._before: dict[int, State] = {}
        self._instructions: dict[int, Instruction] = {}
        self._work: deque[int] = deque()
        # Address whose state is handed on -> addresses of the entries that start with it.
        self._entries: dict[int, list[int]] = {}
        self._sections: list[tuple[int, int, int]] = []

    def run(self) -> None:
        for name, source in self._contract.entries.items():
            self._entries.setdefault(self._label(source), []).append(self._label(name))
        for section in self._contract.sections:
            self._sections.append(self._section(section))
        self._reach(self._code.origin, State.at_entry(), None)
        while self._work:
            address = self._work.popleft()
            instruction = self._decode(address)
            state = self._before[address].copy()
            try:
                self._step(state, instruction)
            except Refused as refused:
                raise self._error(str(refused), instruction) from None
        self._check_boundaries()
        self._check_entries()

    # Reaching.

    def _reach(self, address: int, state: State, source: Instruction | None) -> None:
        """Control comes to `address` with this state."""
        if address == self._code.end:
            raise self._error("runs off the end of the code", source)
        known = self._before.get(address)
        merged = state if known is None else self._merge(known, state, address, source)
        if merged == known:
            return
        self._before[address] = merged
        self._work.append(address)
        for entry in self._entries.get(address, ()):
            self._reach(entry, merged, source)
        for start, end, abort in self._sections:
            if start <= address < end:
                self._reach(abort, merged, source)

    def _merge(self, known: State, state: State, address: int, source: Instruction | None) -> State:
        if known.registers["rsp"] != state.registers["rsp"]:
            raise self._error(f"depths of rsp differ where paths meet at {address:#x}", source)
        return known.joined(state)

    def _decode(self, address: int) -> Instruction:
        known = self._instructions.get(address)
        if known is not None:
            return known
        offset = address - self._code.origin
        if any(start <= offset < end for start, end in self._code.data_spans):
            raise VerifyError("runs into data", address, self._code.data[offset:][:8].hex(" "))
        instruction = Decoder(64, self._code.data[offset:], ip=address).decode()
        if instruction.is_invalid:
            raise VerifyError(
                "not a whole instruction", address, self._code.data[offset:][:15].hex(" ")
            )
        self._instructions[address] = instruction
        return instruction

    # One instruction.

    def _step(self, state: State, instruction: Instruction) -> None:
        flow = instruction.flow_control
        if instruction.mnemonic == Mnemonic.SYSCALL or flow == FlowControl.NEXT:
            self._transfer.apply(state, instruction)
        elif flow in _TRAPS:
            raise Refused("a trap is reached")
        elif flow == FlowControl.RETURN:
            self._return(state, instruction)
            return
        elif flow in (FlowControl.CALL, FlowControl.INDIRECT_CALL):
            self._call(state, instruction)
        elif flow == FlowControl.INDIRECT_BRANCH:
            self._jump_through_cell(state, instruction)
            return
        elif flow in (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.CONDITIONAL_BRANCH):
            self._transfer.apply(state, instruction)  # loop changes rcx
            self._jump(state, instruction)
        else:
            raise Refused("transactional instructions are not followed")
        if falls_through(instruction):
            self._reach(instruction.next_ip, state, instruction)

    def _jump(self, state: State, instruction: Instruction) -> None:
        target = branch_target(instruction)
        if target is None:
            raise Refused("a far jump is not followed")
        if target in self._contract.exits:
            self._check_exit(state, self._contract.exits[target])
        elif self._code.origin <= target <= self._code.end:
            self._reach(target, state.copy(), instruction)
        else:
            raise Refused(f"leaves for {target:#x}, which is not a declared exit")

    def _jump_through_cell(self, state: State, instruction: Instruction) -> None:
        cell = _cell(instruction)
        if cell is None or cell not in self._contract.cells:
            raise Refused("leaves by an indirect jump that is not declared")
        self._check_exit(state, self._contract.cells[cell])

    def _return(self, state: State, instruction: Instruction) -> None:
        if instruction.mnemonic != Mnemonic.RET or not self._contract.returns:
            raise Refused("returns, which is not a declared exit")
        pops = instruction.immediate16 if instruction.op_count else 0
        if pops != self._contract.ret_pops:
            raise Refused(f"ret pops {pops} bytes, {self._contract.ret_pops} are declared")
        self._check_exit(state, 0)
        if state.read_slot(ENTRY, 0, 8) != _RETURN_ADDRESS and not self._contract.redirects:
            raise Refused("the return address is not the one at entry")

    def _call(self, state: State, instruction: Instruction) -> None:
        effect = self._effect(instruction)
        frame, offset = self._transfer.stack_pointer(state)
        if effect.aligned and not self._is_aligned(frame, offset):
            raise Refused("rsp is not known to be a multiple of 16 at the call")
        if effect.body:
            self._check_exit(state, effect.body_rsp)
        # The return address is written, then popped by the callee.
        self._transfer.push(state, unknown(8))
        state.registers["rsp"] = stack_address(frame, offset)
        state.forget_below(frame, offset)
        if effect.body:
            self._forget_all_but_stack(state)
        else:
            for register in effect.clobbers:
                state.registers[register.name] = unknown(8)
            if effect.clobbers_flags:
                state.low_flags = state.overflow = None
        for o in effect.restores:
            state.write_slot(ENTRY, o, tuple(("entry", o + n, 0) for n in range(8)))

    def _forget_all_but_stack(self, state: State) -> None:
        """The traced function has run: what it left is what the caller is to find."""
        fresh = State.at_entry()
        fresh.registers["rsp"] = state.registers["rsp"]
        state.registers = fresh.registers
        state.low_flags, state.overflow = fresh.low_flags, fresh.overflow
        state.direction = fresh.direction

    def _effect(self, instruction: Instruction) -> CallEffect:
        calls = self._contract.calls
        target = branch_target(instruction)
        if target is not None:
            if target not in calls:
                raise Refused(f"calls {target:#x}, which is not declared")
            return calls[target]
        cell = _cell(instruction)
        effect = calls.get(cell) or calls.get(None)
        if effect is None:
            raise Refused("makes an indirect call that is not declared")
        return effect

    def _is_aligned(self, frame: str, offset: int) -> bool:
        if frame != ENTRY:
            return int(frame.partition("&")[2]) % 16 == 0 and offset % 16 == 0
        entry = self._contract.entry_alignment
        return entry is not None and (entry + offset) % 16 == 0

    # What must hold.

    def _check_exit(self, state: State, rsp: int) -> None:
        contract = self._contract
        place = as_stack_address(state.registers["rsp"])
        if place != (ENTRY, rsp):
            found = "unknown" if place is None else f"{place[1]:+d}"
            raise Refused(f"leaves with rsp at {found} from entry, {rsp:+d} is declared")
        clobbered = {register.name for register in contract.clobbers}
        for register in GENERAL_64:
            name = register.name
            if name == "rsp" or name in clobbered:
                continue
            if state.registers[name] != initial(name):
                raise Refused(f"leaves with {name} not as at entry")
        if state.direction != DIRECTION:
            raise Refused("leaves with DF not as at entry")
        if not contract.clobbers_flags and not state.flags_are_initial():
            raise Refused("leaves with the flags not as at entry")

    def _check_boundaries(self) -> None:
        """No instruction reached begins inside another one."""
        previous: Instruction | None = None
        for address in sorted(self._instructions):
            if previous is not None and address < previous.next_ip:
                raise self._error(f"a branch goes into its middle, to {address:#x}", previous)
            previous = self._instructions[address]

    def _check_entries(self) -> None:
        """Every declared entry got a state, so that it was looked at."""
        for source, entries in self._entries.items():
            if source not in self._instructions:
                raise VerifyError(
                    f"the state of entry {entries[0]:#x} is that of a place never reached",
                    source,
                    "",
                )

    # Contract to addresses.

    def _label(self, name: str) -> int:
        if name not in self._code.labels:
            raise VerifyError(f"the contract names label {name!r}, which is not there", 0, "")
        return self._code.labels[name]

    def _section(self, section: Section) -> tuple[int, int, int]:
        start, end = self._label(section.start), self._label(section.end)
        abort = self._label(section.abort)
        offset = abort - self._code.origin
        found = self._code.data[max(offset - 4, 0) : offset]
        if found != section.signature.to_bytes(4, "little"):
            raise VerifyError("no signature before the abort handler", abort, found.hex(" "))
        if not start < end or start <= abort < end:
            raise VerifyError("the section does not lie before or behind its abort", start, "")
        return start, end, abort

    def _error(self, reason: str, instruction: Instruction | None) -> VerifyError:
        if instruction is None:
            return VerifyError(reason, self._code.origin, "")
        return VerifyError(reason, instruction.ip, disassemble(instruction))


def _cell(instruction: Instruction) -> int | None:
    """The address of the qword an indirect branch goes through, if it is a fixed one."""
    if instruction.op0_kind != OpKind.MEMORY or instruction.has_segment_prefix:
        return None
    target = rip_relative_target(instruction)
    if target is not None:
        return target
    if (instruction.memory_base, instruction.memory_index) == (
        IcedRegister.NONE,
        IcedRegister.NONE,
    ):
        return int(instruction.memory_displacement)
    return None
