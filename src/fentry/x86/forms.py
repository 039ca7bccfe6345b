"""From a mnemonic and operands to bytes: which of an instruction's encodings is used.

Among the encodings that iced-x86 knows for a mnemonic, those that take the operands are tried and
the shortest is kept; at equal length the one with the shorter immediate, then the one that
iced-x86 lists first, which for register moves is the one GNU as uses. An encoding that needs a
newer CPU is taken only if no older one takes the operands. The choice depends on the kinds of the
operands and the range of an immediate only, and is remembered.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cache

from iced_x86 import (
    Code,
    Code_,
    CpuidFeature,
    DecoderOptions,
    Encoder,
    EncodingKind,
    Instruction,
    MemorySizeExt,
    Mnemonic,
    OpCodeInfo,
    OpCodeOperandKind,
    OpCodeOperandKind_,
    OpKind,
    OpKind_,
)
from iced_x86 import Register as IcedRegister

from fentry.x86.operands import STATED_BITS, Memory
from fentry.x86.registers import (
    GENERAL_32,
    GENERAL_64,
    Address,
    Register,
    RegisterKind,
    eax,
    rax,
    xmm1,
    ymm1,
    zmm1,
)

Operand = Register | Memory | int

_K = OpCodeOperandKind
_U64 = 1 << 64


@dataclass(frozen=True, slots=True)
class Immediate:
    """An immediate of `stored` bits: `low`..`high`, or the same values modulo 2**`bits`."""

    op_kind: OpKind_
    stored: int
    bits: int
    low: int
    high: int

    def signed(self, value: int) -> int | None:
        """The value as stored, sign-extended; None if it cannot be stored without loss."""
        if self.high < value < 1 << self.bits:
            value -= 1 << self.bits
        return value if self.low <= value <= self.high else None


def _signed(op_kind: OpKind_, stored: int, extended: int) -> Immediate:
    return Immediate(op_kind, stored, extended, -(1 << (stored - 1)), (1 << (stored - 1)) - 1)


IMMEDIATES = {
    _K.IMM8: Immediate(OpKind.IMMEDIATE8, 8, 8, -128, 127),
    _K.IMM8_CONST_1: Immediate(OpKind.IMMEDIATE8, 0, 64, 1, 1),
    _K.IMM4_M2Z: Immediate(OpKind.IMMEDIATE8, 4, 64, 0, 15),
    _K.IMM8SEX16: _signed(OpKind.IMMEDIATE8TO16, 8, 16),
    _K.IMM8SEX32: _signed(OpKind.IMMEDIATE8TO32, 8, 32),
    _K.IMM8SEX64: _signed(OpKind.IMMEDIATE8TO64, 8, 64),
    _K.IMM16: _signed(OpKind.IMMEDIATE16, 16, 16),
    _K.IMM32: _signed(OpKind.IMMEDIATE32, 32, 32),
    _K.IMM32SEX64: _signed(OpKind.IMMEDIATE32TO64, 32, 64),
    _K.IMM64: _signed(OpKind.IMMEDIATE64, 64, 64),
}

# Between two neighbours every kind of immediate takes either all values or none.
_LIMITS = sorted(
    {-(1 << 63), 1, 2, 16, _U64}
    | {-(1 << (n - 1)) for n in (8, 16, 32)}
    | {1 << (n - 1) for n in (8, 16, 32, 64)}
    | {1 << n for n in (8, 16, 32)}
    | {(1 << wide) - (1 << (n - 1)) for wide in (16, 32, 64) for n in (8, 16, 32) if n < wide}
)

FIXED = {
    _K.AL: IcedRegister.AL,
    _K.CL: IcedRegister.CL,
    _K.AX: IcedRegister.AX,
    _K.DX: IcedRegister.DX,
    _K.EAX: IcedRegister.EAX,
    _K.RAX: IcedRegister.RAX,
    _K.ES: IcedRegister.ES,
    _K.CS: IcedRegister.CS,
    _K.SS: IcedRegister.SS,
    _K.DS: IcedRegister.DS,
    _K.FS: IcedRegister.FS,
    _K.GS: IcedRegister.GS,
    _K.ST0: IcedRegister.ST0,
}

# Memory that the mnemonic names by itself (stosq, maskmovdqu): no operand is written for it.
IMPLIED = {
    _K.ES_RDI: OpKind.MEMORY_ESRDI,
    _K.SEG_RDI: OpKind.MEMORY_SEG_RDI,
    _K.SEG_RSI: OpKind.MEMORY_SEG_RSI,
}
_IMPLIED_WITH = (_K.AL, _K.AX, _K.EAX, _K.RAX, _K.DX)

_MEMORY = {
    kind
    for name, kind in vars(_K).items()
    if name.endswith("_OR_MEM") or name in ("MEM", "MEM_MIB", "SIBMEM")
}
_VECTOR_INDEX = {
    _K.MEM_VSIB32X: 128,
    _K.MEM_VSIB64X: 128,
    _K.MEM_VSIB32Y: 256,
    _K.MEM_VSIB64Y: 256,
    _K.MEM_VSIB32Z: 512,
    _K.MEM_VSIB64Z: 512,
}
_FILES = {
    "R8": (RegisterKind.GENERAL, 8),
    "R16": (RegisterKind.GENERAL, 16),
    "R32": (RegisterKind.GENERAL, 32),
    "R64": (RegisterKind.GENERAL, 64),
    "XMM": (RegisterKind.VECTOR, 128),
    "XMMP3": (RegisterKind.VECTOR, 128),
    "YMM": (RegisterKind.VECTOR, 256),
    "ZMM": (RegisterKind.VECTOR, 512),
    "ZMMP3": (RegisterKind.VECTOR, 512),
    "K": (RegisterKind.MASK, 64),
    "KP1": (RegisterKind.MASK, 64),
    "MM": (RegisterKind.MMX, 64),
    "STI": (RegisterKind.X87, 80),
    "SEG": (RegisterKind.SEGMENT, 16),
}
_REGISTERS = {
    kind: _FILES[file]
    for name, kind in vars(_K).items()
    if (file := name.partition("_")[0]) in _FILES and name not in ("SEG_RSI", "SEG_RDI")
    if name != "SEG_RBX_AL"
}

# Names that mean something rarer to iced-x86 (an undocumented twin of shl, 16-bit forms) than to
# GNU as, which is followed.
_ALIASES = {"sal": "shl", "pushf": "pushfq", "popf": "popfq", "iret": "iretd"}
_LOW_HALF: dict[Operand, Register] = dict(zip(GENERAL_64, GENERAL_32, strict=True))
# Encodings without EVEX that came after the ones of AVX-512 for the same mnemonic.
_LATE_FEATURES = (CpuidFeature.AVX_VNNI, CpuidFeature.AVX_IFMA, CpuidFeature.AVX_NE_CONVERT)

# Kinds of operands that tell the operand size; segment registers do not.
_SIZED = {kind for kind, (file, _) in _REGISTERS.items() if file is not RegisterKind.SEGMENT} | {
    kind for kind in FIXED if kind not in (_K.ES, _K.CS, _K.SS, _K.DS, _K.FS, _K.GS)
}
_BRANCH_KINDS = (_K.BR64_1, _K.BR64_4, _K.XBEGIN_4)


@dataclass(frozen=True, slots=True)
class Form:
    """One encoding: its number in iced-x86, the kinds of its operands, its size of memory.

    `written` lists the positions of the operands that are written down, in order; `age` is higher
    for what came to CPUs later; `narrow` says that the operand size is 16 bits though nothing
    written down tells it.
    """

    code: Code_
    kinds: tuple[OpCodeOperandKind_, ...]
    written: tuple[int, ...]
    memory_bits: int
    age: int
    narrow: bool
    lock: bool
    mask: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """The bytes before the distance of a direct branch; `short` has 8 bits of it, `near` 32."""

    short: bytes | None
    near: bytes | None


def mnemonics() -> frozenset[str]:
    """All mnemonics there are, in lower case."""
    return frozenset(_codes())


@cache
def forms(mnemonic: str) -> tuple[Form, ...]:
    """All encodings of a mnemonic in 64-bit mode, in the order of iced-x86."""
    found = tuple(_form(code) for code in _codes().get(mnemonic, ()))
    if all(form.narrow for form in found):  # cbw has this size only
        return tuple(replace(form, narrow=False) for form in found)
    return found


@cache
def branch(mnemonic: str) -> Branch | None:
    """How a direct branch of that mnemonic is encoded; None if it is no such branch."""
    found: dict[int, bytes] = {}
    for form in forms(mnemonic):
        info = OpCodeInfo(form.code)
        if info.op_count != 1 or form.narrow or info.address_size == 32:
            continue
        if form.kinds[0] in _BRANCH_KINDS:
            size = 1 if form.kinds[0] == _K.BR64_1 else 4
            found[size] = _branch_prefix(form, size)
    return Branch(found.get(1), found.get(4)) if found else None


def encode(
    mnemonic: str,
    operands: tuple[Operand, ...],
    *,
    lock: bool = False,
    rep: bool = False,
    repne: bool = False,
    mask: Register | None = None,
    zeroing: bool = False,
) -> tuple[bytes, int | None]:
    """The bytes of an instruction, and where the distance of a rip-relative operand stands in them.

    A rip-relative distance is left 0. Raises TypeError when no encoding takes operands of these
    kinds, ValueError when a value is out of range.
    """
    operands = _usual(mnemonic, operands)
    form = _choose(mnemonic, tuple(_shape(operand) for operand in operands), mask is not None)
    if form is None:
        raise _refusal(mnemonic, operands)
    if lock and not form.lock:
        raise TypeError(f"{mnemonic} takes no lock prefix with {_text(operands)}")
    instruction = _build(form, operands)
    instruction.has_lock_prefix = lock
    instruction.has_rep_prefix = rep
    instruction.has_repne_prefix = repne
    if mask is not None:
        instruction.op_mask = mask.iced
        instruction.zeroing_masking = zeroing
    return _bytes_of(instruction)


def _usual(mnemonic: str, operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """The same instruction written so that its shortest encoding takes it."""
    if len(operands) != 2:
        return operands
    first, second = operands
    if mnemonic == "mov" and first in _LOW_HALF and isinstance(second, int):
        # Writing the low half clears the high one (SDM Vol. 1, 3.4.1.1).
        return (_LOW_HALF[first], second) if 0 <= second < 1 << 32 else operands
    if mnemonic == "xchg" and isinstance(first, Register) and isinstance(second, Register):
        # The short encoding is `xchg reg, rax`; of eax with itself it would be a nop.
        swap = first.number == 0 and second.number != 0 and first.bits > 8
        return (second, first) if swap else operands
    if mnemonic in ("xchg", "test") and isinstance(second, Memory):
        return second, first
    return operands


@cache
def _codes() -> dict[str, tuple[Code_, ...]]:
    names = {v: k.lower() for k, v in vars(Mnemonic).items() if isinstance(v, int)}
    table: dict[str, list[Code_]] = {}
    for name, code in vars(Code).items():
        if not name.isupper():
            continue
        info = OpCodeInfo(code)
        # Encodings with a decoder option are those of CPUs of the past (Knights Corner, Cyrix), and
        # 3DNow! is gone too (iced-x86 would drop the REX prefix of its memory operands).
        current = info.decoder_option == DecoderOptions.NONE and info.encoding != EncodingKind.D3NOW
        if info.is_instruction and info.mode64 and current:
            table.setdefault(names[info.mnemonic], []).append(code)
    table.update((name, table[usual]) for name, usual in _ALIASES.items())
    return {name: tuple(sorted(codes)) for name, codes in table.items()}


def _form(code: Code_) -> Form:
    info = OpCodeInfo(code)
    kinds = tuple(info.op_kind(n) for n in range(info.op_count))
    implied = any(kind in IMPLIED or kind == _K.SEG_RBX_AL for kind in kinds)
    written = tuple(
        n
        for n, kind in enumerate(kinds)
        if not (implied and (kind in IMPLIED or kind == _K.SEG_RBX_AL or kind in _IMPLIED_WITH))
    )
    memory_bits = 8 * int(MemorySizeExt.size(info.memory_size))
    # The operand size of push 5, push fs, ret, jumps and fldenv is told by no operand.
    told = any(kind in _SIZED or (kind in _MEMORY and memory_bits in STATED_BITS) for kind in kinds)
    return Form(
        code=code,
        kinds=kinds,
        written=written,
        memory_bits=memory_bits,
        age=_age(code, info),
        narrow=info.operand_size == 16 and not told and not implied,
        lock=bool(info.can_use_lock_prefix),
        mask=bool(info.can_use_op_mask_register),
    )


def _age(code: Code_, info: OpCodeInfo) -> int:
    instruction = Instruction()
    instruction.code = code
    if any(feature in _LATE_FEATURES for feature in instruction.cpuid_features()):
        return 2
    return 1 if info.encoding == EncodingKind.EVEX else 0


def _branch_prefix(form: Form, size: int) -> bytes:
    if form.kinds[0] == _K.XBEGIN_4:
        instruction = Instruction.create_xbegin(64, 0x100)
    else:
        instruction = Instruction.create_branch(form.code, 0x40)
    encoder = Encoder(64)
    encoder.encode(instruction, 0)
    return bytes(encoder.take_buffer())[:-size]


# What the choice of an encoding depends on: the register itself, the size of memory and of its
# vector index, the range of an immediate.
_Shape = Register | tuple[int, int] | int


def _shape(operand: Operand) -> _Shape:
    if isinstance(operand, Register):
        return operand
    if isinstance(operand, int):
        return bisect_right(_LIMITS, operand)
    index = operand.address.index
    return operand.bits, index.bits if index and index.kind is RegisterKind.VECTOR else 0


@cache
def _choose(mnemonic: str, shapes: tuple[_Shape, ...], masked: bool) -> Form | None:
    accepted = []
    for form in forms(mnemonic):
        if form.narrow or (masked and not form.mask):
            continue
        if form.code == Code.XCHG_R32_EAX and shapes == (eax, eax):
            continue  # it would be a nop, and not clear the upper half
        operands = _examples(form, shapes)
        if operands is None:
            continue
        instruction = _build(form, operands)
        instruction.op_mask = IcedRegister.K1 if masked else IcedRegister.NONE
        try:
            length = len(_bytes_of(instruction)[0])
        except ValueError:  # for instance ah together with r8, or xmm16 without EVEX
            continue
        immediate = sum(
            form.kinds[n] in IMMEDIATES and IMMEDIATES[form.kinds[n]].stored for n in form.written
        )
        accepted.append((form.age, length, immediate, form.code, form))
    if any(shape == (0, 0) for shape in shapes):
        sizes = {form.memory_bits for *_, form in accepted}
        if len(sizes) > 1:
            raise TypeError(f"{mnemonic}: size of the memory operand is not stated")
    return min(accepted)[-1] if accepted else None


def _examples(form: Form, shapes: tuple[_Shape, ...]) -> tuple[Operand, ...] | None:
    """Operands of these shapes if the form takes them, to try its length with."""
    if len(shapes) != len(form.written):
        return None
    operands: list[Operand] = []
    for position, shape in zip(form.written, shapes, strict=True):
        kind = form.kinds[position]
        if isinstance(shape, Register):
            if not _takes_register(kind, shape):
                return None
            operands.append(shape)
        elif isinstance(shape, int):
            example = _LIMITS[shape - 1] if shape else _LIMITS[0] - 1
            if kind not in IMMEDIATES or IMMEDIATES[kind].signed(example) is None:
                return None
            operands.append(example)
        else:
            bits, index_bits = shape
            if _VECTOR_INDEX.get(kind, 0) != index_bits:
                return None
            if kind not in _MEMORY and kind not in _VECTOR_INDEX:
                return None
            if bits and form.memory_bits and bits != form.memory_bits:
                return None
            vectors = {128: xmm1, 256: ymm1, 512: zmm1}
            place = rax + vectors[index_bits] if index_bits else Address(base=rax)
            operands.append(Memory(place, bits))
    return tuple(operands)


def _takes_register(kind: OpCodeOperandKind_, register: Register) -> bool:
    if kind in FIXED:
        return FIXED[kind] == register.iced
    return _REGISTERS.get(kind) == (register.kind, register.bits)


def _build(form: Form, operands: tuple[Operand, ...]) -> Instruction:
    instruction = Instruction()
    instruction.code = form.code
    for position, kind in enumerate(form.kinds):
        if kind in IMPLIED:
            instruction.set_op_kind(position, IMPLIED[kind])
        elif kind == _K.SEG_RBX_AL:
            instruction.set_op_kind(position, OpKind.MEMORY)
            instruction.memory_base = IcedRegister.RBX
            instruction.memory_index = IcedRegister.AL
        elif position not in form.written:
            instruction.set_op_register(position, FIXED[kind])
    immediates = 0
    for position, operand in zip(form.written, operands, strict=True):
        if isinstance(operand, Register):
            instruction.set_op_register(position, operand.iced)
        elif isinstance(operand, int):
            immediate = IMMEDIATES[form.kinds[position]]
            second = immediates and immediate.op_kind == OpKind.IMMEDIATE8
            instruction.set_op_kind(
                position, OpKind.IMMEDIATE8_2ND if second else immediate.op_kind
            )
            instruction.set_immediate_i64(position, immediate.signed(operand) or 0)
            immediates += 1
        else:
            instruction.set_op_kind(position, OpKind.MEMORY)
            _set_memory(instruction, operand)
    return instruction


def _set_memory(instruction: Instruction, memory: Memory) -> None:
    address = memory.address
    if memory.segment is not None:
        instruction.segment_prefix = memory.segment.iced
    if address.target is not None:
        # Encoded at 0, so that the distance stored is this value less the length.
        instruction.memory_base = IcedRegister.RIP
        instruction.memory_displ_size = 8
        instruction.memory_displacement = 0x1000
        return
    if address.base is not None:
        instruction.memory_base = address.base.iced
    if address.index is not None:
        instruction.memory_index = address.index.iced
        instruction.memory_index_scale = address.scale
    if address.base is None:
        # A size of 4 would be a 32-bit address, with a prefix and without sign extension.
        instruction.memory_displ_size = 8
    elif address.displacement:
        instruction.memory_displ_size = 1
    instruction.memory_displacement = address.displacement % _U64


def _bytes_of(instruction: Instruction) -> tuple[bytes, int | None]:
    encoder = Encoder(64)
    encoder.encode(instruction, 0)
    code = bytes(encoder.take_buffer())
    if not instruction.is_ip_rel_memory_operand:
        return code, None
    offset = int(encoder.get_constant_offsets().displacement_offset)
    return code[:offset] + bytes(4) + code[offset + 4 :], offset


def _refusal(mnemonic: str, operands: tuple[Operand, ...]) -> Exception:
    """ValueError if another immediate would have been taken, else TypeError."""
    if any(isinstance(operand, int) for operand in operands):
        small = tuple(1 if isinstance(operand, int) else operand for operand in operands)
        if _choose(mnemonic, tuple(_shape(operand) for operand in small), False):
            return ValueError(f"{mnemonic} {_text(operands)}: immediate out of range")
    takes = ", ".join(sorted({OpCodeInfo(f.code).instruction_string for f in forms(mnemonic)}))
    return TypeError(f"{mnemonic} does not take {_text(operands) or 'no operands'}; it is {takes}")


def _text(operands: tuple[Operand, ...]) -> str:
    return ", ".join(hex(o) if isinstance(o, int) else repr(o) for o in operands)
