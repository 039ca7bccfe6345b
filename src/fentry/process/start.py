"""A command started to be traced from its beginning: held before its constructors run.

A dynamic program is held where the dynamic linker first reports a consistent state (r_debug,
elf/link.h), a static one at its entry point.  Until it is let go it dies with us: it has not begun.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from fentry.errors import AttachError, BadInput, TargetGone
from fentry.process import ptrace
from fentry.process.maps import mapping_at, read_maps
from fentry.process.memory import Memory

_AT_ENTRY = 9
_AT_BASE = 7
_INT3 = b"\xcc"
_R_STATE = 24  # struct r_debug: int r_version, r_map, r_brk, int r_state (elf/link.h)
_RT_CONSISTENT = 0
_OPTIONS = ptrace.PTRACE_O_TRACEEXEC | ptrace.PTRACE_O_EXITKILL


def start(command: Sequence[str]) -> int:
    """Start `command` and hold it before its first constructor; its pid.

    The process is a ptrace-stopped tracee of the calling thread.  Raises BadInput when it cannot
    be executed, AttachError when the kernel forbids tracing it.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _become(command, reader, writer)
    os.close(writer)
    try:
        os.waitpid(pid, ptrace.WALL | os.WUNTRACED)
        try:
            ptrace.seize(pid, _OPTIONS)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AttachError(
                f"cannot trace {command[0]}: {error.strerror}", remedy="fentry doctor"
            ) from error
        os.kill(pid, signal.SIGCONT)
        _run_to_exec(pid, command, reader)
    finally:
        os.close(reader)
    _run_to_consistent(pid)
    return pid


def _become(command: Sequence[str], reader: int, writer: int) -> None:
    # In the child: wait to be seized, then exec; an error goes through the pipe.
    try:
        os.close(reader)
        os.kill(os.getpid(), signal.SIGSTOP)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(writer, (error.strerror or str(error)).encode())
    finally:
        os._exit(127)


def _run_to_exec(pid: int, command: Sequence[str], reader: int) -> None:
    while True:
        _, status = os.waitpid(pid, ptrace.WALL)
        if not os.WIFSTOPPED(status):
            why = os.read(reader, 200).decode(errors="replace") or "it ended at once"
            raise BadInput(
                f"cannot run {command[0]!r}: {why}", remedy="an executable file, or one in PATH"
            )
        event = status >> 16
        if event == ptrace.PTRACE_EVENT_EXEC:
            return
        ptrace.cont(pid, 0 if event else _delivered(status))


def _delivered(status: int) -> int:
    number = os.WSTOPSIG(status)
    return 0 if number in (signal.SIGSTOP, signal.SIGTRAP) else number


def _run_to_consistent(pid: int) -> None:
    auxv = _auxv(pid)
    base = auxv.get(_AT_BASE, 0)
    if not base:
        return  # static: nothing of it has run
    place, state = _linker_symbols(pid, base)
    if not place:
        place, state = auxv[_AT_ENTRY], 0
    memory = Memory(pid)
    try:
        _run_to(pid, memory, place, state)
    finally:
        memory.close()


def _run_to(pid: int, memory: Memory, place: int, state: int) -> None:
    original = memory.read(place, 1)
    while True:
        memory.write(place, _INT3)
        _cont_to_trap(pid, place)
        memory.write(place, original)
        regs = ptrace.get_regs(pid)
        regs.rip = place
        regs.orig_rax = (1 << 64) - 1
        ptrace.set_regs(pid, regs)
        if not state or memory.read(state, 4) == _RT_CONSISTENT.to_bytes(4, "little"):
            return
        ptrace.single_step(pid)
        _await_stop(pid)


def _cont_to_trap(pid: int, place: int) -> None:
    signal_number = 0
    while True:
        ptrace.cont(pid, signal_number)
        status = _await_stop(pid)
        signal_number = 0 if status >> 16 else os.WSTOPSIG(status)
        if signal_number == signal.SIGTRAP and ptrace.get_regs(pid).rip == place + 1:
            return


def _await_stop(pid: int) -> int:
    _, status = os.waitpid(pid, ptrace.WALL)
    if not os.WIFSTOPPED(status):
        raise TargetGone(f"process {pid} ended before it could be traced")
    return status


def _auxv(pid: int) -> dict[int, int]:
    with open(f"/proc/{pid}/auxv", "rb") as file:
        words = file.read()
    pairs = (words[i : i + 16] for i in range(0, len(words) - 15, 16))
    return {int.from_bytes(p[:8], "little"): int.from_bytes(p[8:], "little") for p in pairs}


def _linker_symbols(pid: int, base: int) -> tuple[int, int]:
    # Addresses of _dl_debug_state and of r_debug's r_state in the dynamic linker at `base`.
    found = {"_dl_debug_state": 0, "_r_debug": 0}
    path = _path_at(pid, base)
    try:
        with open(f"/proc/{pid}/root{path}", "rb") as file:
            for section in ELFFile(file).iter_sections():
                if isinstance(section, SymbolTableSection):
                    for name in found:
                        for symbol in section.get_symbol_by_name(name) or ():
                            found[name] = found[name] or base + symbol["st_value"]
    except OSError:
        return 0, 0
    state = found["_r_debug"] + _R_STATE if found["_r_debug"] else 0
    return found["_dl_debug_state"], state


def _path_at(pid: int, address: int) -> str:
    mapping = mapping_at(read_maps(pid), address)
    return mapping.path if mapping is not None else ""
