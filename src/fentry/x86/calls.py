"""What compiled code that is to run inside another program touches, and what it must not do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from iced_x86 import (
    CpuidFeature,
    Decoder,
    EncodingKind,
    FlowControl,
    Instruction,
    InstructionInfoFactory,
    Mnemonic,
)

from fentry.errors import BadInput
from fentry.x86.code import disassemble
from fentry.x86.transfer import touches_vectors

_M = Mnemonic
_TRAPS = (FlowControl.INTERRUPT, FlowControl.EXCEPTION)
_FORBIDDEN = (
    _M.SYSCALL, _M.SYSENTER, _M.WRFSBASE, _M.WRGSBASE, _M.WRPKRU, _M.HLT, _M.STD, _M.POPFQ, _M.POPF,
    _M.INCSSPD, _M.INCSSPQ, _M.RSTORSSP, _M.SAVEPREVSSP, _M.XRSTOR, _M.XRSTOR64,
)  # fmt: skip
_DIRECT = (_M.POPFQ, _M.POPF, _M.UD2)  # gcc puts ud2 behind naked functions
_TILES = (
    CpuidFeature.AMX_TILE, CpuidFeature.AMX_INT8, CpuidFeature.AMX_BF16, CpuidFeature.AMX_FP16,
)  # fmt: skip
_OLD = (CpuidFeature.FPU, CpuidFeature.MMX, CpuidFeature.D3NOW)
# What not every x86-64 processor has: by its name in /proc/cpuinfo.
_FEATURES = {
    getattr(CpuidFeature, name.upper()): name
    for name in (
        "ssse3", "sse4_1", "sse4_2", "sse4a", "popcnt", "aes", "pclmulqdq", "movbe", "f16c", "fma",
        "avx", "avx2", "bmi1", "bmi2", "adx", "rdrand", "rdseed", "vaes", "vpclmulqdq", "gfni",
        "xop", "avx_vnni", "avx_ifma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
        "avx512_vnni", "avx512_bf16", "avx512_bitalg", "avx512_vpopcntdq", "avx512_fp16",
        "avx512_ifma", "avx512_vbmi", "avx512_vbmi2", "serialize", "waitpkg", "cldemote",
    )
} | {
    CpuidFeature.SSE3: "pni", CpuidFeature.LZCNT: "abm", CpuidFeature.SHA: "sha_ni",
    CpuidFeature.CMPXCHG16B: "cx16", CpuidFeature.RDPID: "rdpid", CpuidFeature.RDTSCP: "rdtscp",
    CpuidFeature.FSGSBASE: "fsgsbase",
}  # fmt: skip
_INFO = InstructionInfoFactory()


class Vectors(IntEnum):
    """Which state beside the general registers code changes, or has saved around it.

    XMM: xmm0 to xmm15 and MXCSR; instructions of SSE leave the upper halves alone.  ALL: also wider
    registers, masks, x87.
    """

    NONE = 0
    XMM = 1
    ALL = 2


@dataclass(frozen=True, slots=True)
class CodeTraits:
    """`vectors`: which of that state is touched; `leaves`: it calls or jumps through pointers, so
    that anything may be run; `features`: flags of /proc/cpuinfo that it needs; `calls`: it calls
    at all, so that something may come back to it."""

    vectors: Vectors = Vectors.NONE
    leaves: bool = False
    features: frozenset[str] = frozenset()
    calls: bool = False

    def __or__(self, other: CodeTraits) -> CodeTraits:
        return CodeTraits(
            max(self.vectors, other.vectors),
            self.leaves or other.leaves,
            self.features | other.features,
            self.calls or other.calls,
        )


def look_at(code: bytes, origin: int, name: str, *, direct: bool = False) -> CodeTraits:
    """The traits of instructions that follow each other without data between them.

    `direct` code has to put flags back itself: it may pop them; and ud2 may stand where it never
    comes to.

    Raises BadInput for what no callback may hold: system calls, traps, privileged instructions,
    segment bases, protection keys, tiles, DF or all of the flags set, what is no instruction.
    """
    vectors, leaves, calls = Vectors.NONE, False, False
    features: set[str] = set()
    for instruction in Decoder(64, code, ip=origin):
        reason = _refusal(instruction, direct)
        if reason:
            text = "" if instruction.is_invalid else f": {disassemble(instruction)}"
            raise BadInput(
                f"{name} holds {reason}{text}",
                cause="it runs inside another program, which must not notice",
            )
        leaves |= instruction.flow_control in (
            FlowControl.INDIRECT_CALL,
            FlowControl.INDIRECT_BRANCH,
        )
        calls |= instruction.flow_control in (FlowControl.CALL, FlowControl.INDIRECT_CALL)
        features |= {_FEATURES[f] for f in instruction.cpuid_features() if f in _FEATURES}
        vectors = max(vectors, _vectors_of(instruction))
    return CodeTraits(vectors, leaves, frozenset(features), calls)


def _vectors_of(instruction: Instruction) -> Vectors:
    used = _INFO.info(instruction).used_registers()
    if not touches_vectors(instruction, [register.register for register in used]):
        return Vectors.NONE
    old = any(feature in _OLD for feature in instruction.cpuid_features())
    plain = instruction.encoding == EncodingKind.LEGACY and not old
    return Vectors.XMM if plain and not instruction.is_save_restore_instruction else Vectors.ALL


def _refusal(instruction: Instruction, direct: bool) -> str:
    if instruction.is_invalid:
        return "bytes that are no instruction"
    if direct and instruction.mnemonic in _DIRECT:
        return ""
    if instruction.flow_control in _TRAPS:
        return "a trap"
    if instruction.is_privileged:
        return "a privileged instruction"
    if instruction.mnemonic in _FORBIDDEN:
        return "a forbidden instruction"
    if any(feature in _TILES for feature in instruction.cpuid_features()):
        return "a tile instruction"
    return ""
