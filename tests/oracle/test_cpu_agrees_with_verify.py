"""What verify accepts is executed: registers, flags and the caller's stack are as before.

Bodies are made that save, change and restore; then instructions are dropped, doubled, exchanged
or put in. Most of these are refused; of the others the CPU shows whether the proof holds.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from fentry.x86.asm import Asm
from fentry.x86.contract import Contract
from fentry.x86.operands import byte, dword, qword
from fentry.x86.registers import GENERAL_8, GENERAL_32, GENERAL_64, Register, al, rax, rip, rsp
from fentry.x86.verify import VerifyError, verify

SEED = 20240229
BODIES = 2500
INPUTS = 3
USABLE = tuple(register for register in GENERAL_64 if register is not rsp)
STATUS_FLAGS = 0x8D5 | 0x400  # CF PF AF ZF SF OF, and DF (SDM Vol. 1, figure 3-8)
CANARIES = 4
LIMIT_SECONDS = 60

Step = Callable[[Asm], object]


@dataclass(frozen=True, slots=True)
class Region:
    """Executable memory of this process: the frame around a body, its cells, and the body."""

    memory: mmap.mmap
    address: int
    body: int
    cells: dict[str, int]

    def write(self, address: int, data: bytes) -> None:
        offset = address - self.address
        self.memory[offset : offset + len(data)] = data

    def read_cell(self, name: str) -> int:
        offset = self.cells[name] - self.address
        return int.from_bytes(self.memory[offset : offset + 8], "little")

    def write_cell(self, name: str, value: int) -> None:
        self.write(self.cells[name], value.to_bytes(8, "little"))


def frame(a: Asm, body: int) -> None:
    """Loads all registers and flags from cells, calls the body, stores what it left."""
    kept = [r for r in USABLE if r.name in ("rbx", "rbp", "r12", "r13", "r14", "r15")]
    for register in kept:
        a.push(register)
    a.mov(qword[rip("kept rsp")], rsp)
    for n in range(CANARIES):
        a.push(qword[rip(f"canary{n}")])
    a.push(qword[rip("in flags")])
    a.popfq()
    for register in USABLE:
        a.mov(register, qword[rip(f"in {register.name}")])
    a.call(body)
    for register in USABLE:
        a.mov(qword[rip(f"out {register.name}")], register)
    a.pushfq()
    a.pop(qword[rip("out flags")])
    a.mov(qword[rip("out rsp")], rsp)
    for n in reversed(range(CANARIES)):
        a.pop(qword[rip(f"seen{n}")])
    a.mov(rsp, qword[rip("kept rsp")])
    a.cld()
    for register in reversed(kept):
        a.pop(register)
    a.ret()
    a.align(8)
    names = ["kept rsp", "in flags", "out flags", "out rsp", "counter"]
    names += [f"{way} {register.name}" for way in ("in", "out") for register in USABLE]
    names += [f"{kind}{n}" for kind in ("canary", "seen") for n in range(CANARIES)]
    for name in names:
        a.label(name)
        a.quad(0)


def make_region() -> Region:
    memory = mmap.mmap(-1, 8192, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    body = address + 4096
    asm = Asm()
    frame(asm, body)
    code = asm.assemble(address)
    region = Region(memory, address, body, dict(code.labels))
    region.write(address, code.data)
    return region


def work(chance: random.Random, counter: int) -> Step:
    """An instruction that changes something."""
    register = chance.choice(USABLE)
    other = chance.choice(USABLE)
    depth = chance.choice((-24, -16, -8, 0, 8))
    steps: tuple[Step, ...] = (
        lambda a: a.inc(qword[rip(counter)], lock=True),
        lambda a: a.mov(register, other),
        lambda a: a.mov(GENERAL_32[register.number], GENERAL_32[other.number]),
        lambda a: a.mov(GENERAL_8[register.number], GENERAL_8[other.number]),
        lambda a: a.xor(GENERAL_32[register.number], GENERAL_32[register.number]),
        lambda a: a.mov(register, chance.getrandbits(64)),
        lambda a: a.add(register, other),
        lambda a: a.xchg(register, other),
        lambda a: a.xchg(register, qword[rsp + depth]),
        lambda a: a.mov(register, qword[rsp + depth]),
        lambda a: a.mov(qword[rsp + depth], register),
        lambda a: a.mov(dword[rsp + depth + 4], GENERAL_32[register.number]),
        lambda a: a.mov(byte[rsp + depth + 1], GENERAL_8[register.number]),
        lambda a: a.movzx(GENERAL_32[register.number], GENERAL_8[other.number]),
        lambda a: a.cmp(register, other),
        lambda a: a.bt(register, 3),
        lambda a: a.lea(register, qword[rsp + depth]),
        lambda a: a.lahf(),
        lambda a: a.seto(GENERAL_8[register.number]),
        lambda a: a.std(),
        lambda a: a.cld(),
        lambda a: a.bswap(register),
        lambda a: a.mul(register),
        lambda a: a.cmovb(register, other),
    )
    return chance.choice(steps)


def body_steps(chance: random.Random, counter: int) -> list[Step]:
    """Saves, changes of what was saved, restores in reverse."""
    inner: list[Step] = [work(chance, counter) for _ in range(chance.randint(0, 2))]
    for _ in range(chance.randint(1, 4)):
        register = chance.choice(USABLE)
        before, after = chance.choice(wrappings(register, chance.choice(USABLE)))
        between = [] if chance.random() < 0.5 else [change(register, chance)]
        inner = [*before, *between, *inner, *after]
    return [*inner, lambda a: a.ret()]


def change(register: Register, chance: random.Random) -> Step:
    value = chance.getrandbits(64)
    return lambda a: a.mov(register, value)


def wrappings(register: Register, other: Register) -> tuple[tuple[list[Step], list[Step]], ...]:
    spare = other if other is not register and other is not rax else USABLE[-1]
    return (
        ([lambda a: a.push(register)], [lambda a: a.pop(register)]),
        ([lambda a: a.pushfq()], [lambda a: a.popfq()]),
        (
            [lambda a: a.push(rax), lambda a: a.lahf(), lambda a: a.seto(al)]
            + [lambda a: a.push(rax)],
            [lambda a: a.pop(rax), lambda a: a.add(al, 0x7F), lambda a: a.sahf()]
            + [lambda a: a.pop(rax)],
        ),
        (
            [lambda a: a.lea(rsp, qword[rsp - 24]), lambda a: a.mov(qword[rsp + 8], register)],
            [lambda a: a.mov(register, qword[rsp + 8]), lambda a: a.lea(rsp, qword[rsp + 24])],
        ),
        (
            [lambda a: a.push(spare), lambda a: a.mov(spare, rsp)]
            + [lambda a: a.and_(rsp, -16), lambda a: a.push(register)],
            [lambda a: a.pop(register), lambda a: a.mov(rsp, spare), lambda a: a.pop(spare)],
        ),
    )


def mutated(steps: list[Step], chance: random.Random, counter: int) -> list[Step]:
    steps = list(steps)
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        at = chance.randrange(len(steps) - 1) if len(steps) > 1 else 0
        match chance.randrange(4):
            case 0:
                del steps[at]
            case 1:
                steps.insert(at, steps[at])
            case 2:
                steps[at], steps[at - 1] = steps[at - 1], steps[at]
            case _:
                steps.insert(at, work(chance, counter))
    return steps


def run(region: Region, chance: random.Random) -> str:
    """What the body changed, or nothing."""
    cells = {f"in {register.name}": chance.getrandbits(64) for register in USABLE}
    cells |= {f"canary{n}": chance.getrandbits(64) for n in range(CANARIES)}
    # Bit 1 is always set, bit 9 (IF) is what user space runs with.
    cells["in flags"] = 0x202 | (chance.getrandbits(12) & STATUS_FLAGS)
    for name, value in cells.items():
        region.write_cell(name, value)
    ctypes.CFUNCTYPE(None)(region.address)()
    for register in USABLE:
        if region.read_cell(f"out {register.name}") != cells[f"in {register.name}"]:
            return register.name
    if (region.read_cell("out flags") ^ cells["in flags"]) & STATUS_FLAGS:
        return "flags"
    if region.read_cell("out rsp") != region.read_cell("kept rsp") - 8 * CANARIES:
        return "rsp"
    seen = [region.read_cell(f"seen{n}") for n in range(CANARIES)]
    return "" if seen == [cells[f"canary{n}"] for n in range(CANARIES)] else "the caller's stack"


def execute_all(region: Region) -> tuple[int, int, str]:
    """(accepted, refused, fault) over all bodies; a fault ends it."""
    chance = random.Random(SEED)
    accepted = refused = 0
    contract = Contract(stack_bytes=512)
    counter = region.cells["counter"]
    for n in range(BODIES):
        asm = Asm()
        for step in mutated(body_steps(chance, counter), chance, counter):
            step(asm)
        code = asm.assemble(region.body)
        try:
            verify(code, contract)
        except VerifyError:
            refused += 1
            continue
        accepted += 1
        region.write(region.body, code.data)
        for _ in range(INPUTS):
            if changed := run(region, chance):
                return accepted, refused, f"body {n} changed {changed}:\n{code.listing()}"
    return accepted, refused, ""


def in_child(work: Callable[[], str]) -> str:
    """The answer of a forked child, so that a crash of generated code is a failure and no more."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT_SECONDS)
        try:
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer or f"the child ended with status {status:#x} and no answer"


def test_what_is_accepted_leaves_registers_flags_and_stack_alone() -> None:
    region = make_region()

    answer = in_child(lambda: json.dumps(execute_all(region)))

    assert answer.startswith("["), answer
    accepted, refused, fault = json.loads(answer)
    assert not fault, fault
    assert accepted > 200 and refused > 200, (accepted, refused)
