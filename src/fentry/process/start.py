"""A command started to be traced from its beginning: held before its constructors run.

A dynamic program is held where the dynamic linker first reports a consistent state (r_debug,
elf/link.h), a static one at its entry point.  Until it is let go it dies with us: it has not begun.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Sequence
from contextlib import suppress

from fentry.errors import AttachError, BadInput, TargetGone
from fentry.process import ptrace
from fentry.process.gates import may_ptrace_anyone
from fentry.process.maps import mapping_at, read_maps
from fentry.process.memory import Memory

_AT_ENTRY = 9
_AT_BASE = 7
_INT3 = b"\xcc"
_R_STATE = 24  # struct r_debug: int r_version, r_map, r_brk, int r_state (elf/link.h)
_RT_CONSISTENT = 0
_OPTIONS = ptrace.PTRACE_O_TRACEEXEC | ptrace.PTRACE_O_EXITKILL
_DEFAULTS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP,  # we catch them
    signal.SIGPIPE, signal.SIGXFSZ,  # Python ignores them
)  # fmt: skip


def start(command: Sequence[str]) -> int:
    """Start `command` and hold it before its first constructor; its pid.

    The process is a ptrace-stopped tracee of the calling thread.  Raises BadInput when it cannot
    be executed, AttachError when the kernel forbids tracing it.
    """
    _refuse_setuid(command[0])
    reader, writer = os.pipe()
    waiting, go = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(go)
        _become(command, waiting, writer)
    os.close(writer)
    os.close(waiting)
    try:
        _seize(pid, command[0])
        os.write(go, b"g")
        _run_to_exec(pid, command, reader)
        _run_to_consistent(pid)
    except BaseException:
        end(pid)
        raise
    finally:
        os.close(go)
        os.close(reader)
    return pid


def end(pid: int) -> None:
    """Kill a command that start() gave, and reap it; one that has been reaped is left alone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while not _is_end(os.waitpid(pid, ptrace.WALL)[1]):
            continue


def _refuse_setuid(name: str) -> None:
    # The kernel starts such a program without its privileges when the tracer has none: it would
    # fail in ways that it does not fail in when it is not traced.
    path = shutil.which(name)
    if path is None or may_ptrace_anyone():
        return
    if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID) or _has_capabilities(path):
        raise AttachError(
            f"cannot trace {path}: it is setuid, setgid, or has capabilities",
            cause="traced by an unprivileged process it would run without them",
            remedy="run fentry as root",
        )


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False  # none, or a file system that has none


def _seize(pid: int, name: str) -> None:
    try:
        ptrace.seize(pid, _OPTIONS)
    except OSError as error:
        raise AttachError(
            f"cannot trace {name}: {error.strerror}", remedy="fentry doctor"
        ) from error


def _become(command: Sequence[str], waiting: int, writer: int) -> None:
    # In the child: wait to be seized, then exec; an error goes through the pipe. When the parent
    # dies first, nothing is run.
    try:
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        if os.read(waiting, 1):
            os.execvp(command[0], list(command))
    except (OSError, ValueError) as error:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        os.write(writer, text.encode())
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
        ptrace.cont(pid, 0 if event else os.WSTOPSIG(status))


def _run_to_consistent(pid: int) -> None:
    auxv = _auxv(pid)
    base = auxv.get(_AT_BASE, 0)
    with open(f"/proc/{pid}/exe", "rb") as file:
        if file.read(5) != b"\x7fELF\x02":
            raise AttachError(
                "cannot trace this command: not a 64-bit x86 program",
                cause="fentry traces x86-64 programs only",
            )
    place, state = _linker_symbols(pid, base) if base else (0, 0)
    if not place:  # no dynamic linker, or one that cannot be read
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
        _step(pid)


def _step(pid: int) -> None:
    ptrace.single_step(pid)
    status = _await_stop(pid)
    number = 0 if status >> 16 else os.WSTOPSIG(status)
    if number not in (0, signal.SIGTRAP):
        os.kill(pid, number)  # it came first; the trap at the same place will be met once more


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


def _is_end(status: int) -> bool:
    return os.WIFEXITED(status) or os.WIFSIGNALED(status)


def _auxv(pid: int) -> dict[int, int]:
    with open(f"/proc/{pid}/auxv", "rb") as file:
        words = file.read()
    pairs = (words[i : i + 16] for i in range(0, len(words) - 15, 16))
    return {int.from_bytes(p[:8], "little"): int.from_bytes(p[8:], "little") for p in pairs}


def _linker_symbols(pid: int, base: int) -> tuple[int, int]:
    # Addresses of _dl_debug_state and of r_debug's r_state in the dynamic linker at `base`.
    from elftools.elf.elffile import ELFFile  # slow to import, and for started commands only
    from elftools.elf.sections import SymbolTableSection

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
