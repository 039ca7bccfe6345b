"""A direct trampoline: the user's own code, which sites call with nothing of ours in between.

Mirrors register_ftrace_direct() (kernel/trace/ftrace.c): the code finds all registers as the traced
function does, [rsp] the return address of the site's call, [rsp + 8] parent_ip.  It goes on in
the function by `ret`, with everything as it was: that is proved here, or taken on trust.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iced_x86 import Decoder, FlowControl

from fentry.errors import BadInput
from fentry.trampolines.native import (
    ALIGNMENT,
    IDENTIFIER,
    LONGEST_NAME,
    LONGEST_STACK_BYTES,
    CFunction,
    compile_object,
    lay_out,
)
from fentry.x86.calls import Vectors, look_at
from fentry.x86.code import Code
from fentry.x86.contract import CallEffect, Contract
from fentry.x86.decode import branch_target
from fentry.x86.verify import VerifyError, verify

_ORIGIN = 0x10000000  # where it is verified: data and code of 1 MiB each are within reach
_HEAD = ".text\n.globl {name}\n.type {name}, @function\n{name}:\n"


@dataclass(frozen=True, slots=True)
class DirectCode(CFunction):
    """Code for Callback.DIRECT; made by assemble(), compile() or from_bytes().

    All three raise BadInput for what no code in another program may hold (as CFunction.compile()),
    for indirect calls beside others, and unless it is `trusted`, where it cannot be proved that on
    every path it returns with all registers, flags and the stack as they were.  Functions that it
    calls are taken to keep the System V ABI.
    """

    is_trusted: bool = False
    is_direct: ClassVar[bool] = True

    @classmethod
    def assemble(
        cls, source: str, name: str = "direct", *, trusted: bool = False, compiler: str = "gcc"
    ) -> DirectCode:
        """The code of assembly as gcc takes it; it begins with the first instruction."""
        if not IDENTIFIER.fullmatch(name) or len(name) > LONGEST_NAME:
            raise BadInput(f"{name!r} is no name of a direct trampoline", remedy="1 to 24 letters")
        text = _HEAD.format(name=name) + source + "\n"
        found = lay_out(_assemble(text, name, compiler), name, LONGEST_STACK_BYTES, direct=True)
        return _checked(found, trusted)

    @classmethod
    def compile_direct(
        cls, source: str, name: str = "direct", *, trusted: bool = False, compiler: str = "gcc"
    ) -> DirectCode:
        """The function `name` of a C source, which is to be __attribute__((naked))."""
        if not IDENTIFIER.fullmatch(name) or len(name) > LONGEST_NAME:
            raise BadInput(f"{name!r} is no name of a direct trampoline", remedy="1 to 24 letters")
        image, stack_bytes = compile_object(source, name, False, compiler)
        return _checked(lay_out(image, name, stack_bytes, direct=True), trusted)

    @classmethod
    def from_bytes(cls, code: bytes, name: str = "direct", *, trusted: bool = False) -> DirectCode:
        """Position-independent machine code, all of it instructions, that begins at its start."""
        traits = look_at(code, 0, name, direct=True)
        for instruction in Decoder(64, code):
            target = branch_target(instruction)
            if target is not None and not 0 <= target < len(code):
                raise BadInput(f"{name} branches to {target:#x}, outside of its {len(code)} bytes")
        return _checked(CFunction(name, code, b"", 0, LONGEST_STACK_BYTES, traits), trusted)


def _assemble(text: str, name: str, compiler: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="fentry-") as directory:
        place = Path(directory)
        (place / f"{name}.s").write_text(text)
        try:
            done = subprocess.run(
                [compiler, "-c", f"{name}.s", "-o", f"{name}.o"],
                cwd=place, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            raise BadInput(
                f"cannot assemble {name}: no {compiler} on this machine", remedy="apt install gcc"
            ) from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "Error" in line]
            raise BadInput(
                f"cannot assemble {name}: {(lines or done.stderr.splitlines() or ['?'])[0]}",
                cause="the assembler refuses it",
                remedy="mend the source",
            )
        return (place / f"{name}.o").read_bytes()


def _checked(found: CFunction, trusted: bool) -> DirectCode:
    if found.traits.leaves and found.traits.calls:
        raise BadInput(
            f"{found.name} calls, and goes through pointers",
            cause="nobody could tell whether a thread comes back to it, so it could never be freed",
            remedy="only one of both: jump through pointers, or call what has a name",
        )
    if not trusted:
        _prove(found)
    return DirectCode(
        found.name, found.code, found.data, found.entry, found.stack_bytes, found.traits,
        found.fixups, trusted,
    )  # fmt: skip


def _prove(found: CFunction) -> None:
    size = -(-len(found.code) // ALIGNMENT) * ALIGNMENT
    image, _ = found.placed(_ORIGIN, _ORIGIN + size)
    code = Code(_ORIGIN + found.entry, image[found.entry :])
    contract = Contract(
        stack_bytes=LONGEST_STACK_BYTES,
        calls=dict.fromkeys(_called(image), CallEffect()),
    )
    try:
        if found.traits.vectors is not Vectors.NONE:
            raise BadInput(
                f"{found.name} touches vectors",
                cause="that they are as before cannot be proved",
                remedy="general registers only, or trusted=True if you know that it restores them",
            )
        verify(code, contract)
    except VerifyError as error:
        raise BadInput(
            f"{found.name} is not proved to leave everything as it was: {error.instruction}"
            f"{': ' if error.instruction else ''}{error.reason}",
            cause="sites call it with nothing of fentry in between",
            remedy="mend it, or trusted=True if you know better",
        ) from error


def _called(image: bytes) -> set[int]:
    # What it calls of its own. Constants between functions may decode to anything: more targets
    # than there are do no harm.
    targets = set()
    for instruction in Decoder(64, image, ip=_ORIGIN):
        if instruction.flow_control == FlowControl.CALL:
            target = branch_target(instruction)
            if target is not None and _ORIGIN <= target < _ORIGIN + len(image):
                targets.add(target)
    return targets
