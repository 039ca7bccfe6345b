"""Users of other functions cost a function nothing; and what the peers cost on the same program.

Promise: the cost of a recorded function with 64 or 512 other ops on other functions / with none
<= 1.02.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.controllers import COUNT_SLOTS
from fentry.dispatch.ops import Callback, Ops
from fentry.errors import BadInput
from fentry.session import Options, Session
from support import (
    TARGETS,
    Program,
    Table,
    build,
    program,
    ratios,
    scratch,
    take_turns,
    target_cpu,
    verdict,
)  # fmt: skip

CALLS = 20_000
ROUNDS = 200
OTHERS = (0, 1, 8, 64, 512)
OPTIONS = Options(buffer_bytes=1 << 20)


def other_names(count: int) -> list[str]:
    """Names of `count` functions of calls.c, built with MANY, that are not measured."""
    return [f"other_{'abcdefgh'[n // 64]}{n // 8 % 8}{n % 8}" for n in range(count)]


def isolated() -> Table:
    """0 to 512 ops, each on a function of its own."""
    path, cpu = build(TARGETS / "calls.c", "-DMANY"), target_cpu()
    table = Table(
        "One recorded, one counted, one untraced function beside N ops on N other functions",
        ("function", "others", "ns, min", "ns, median", "ratio of minima to none",
         "median ratio to none", "promise"),
    )  # fmt: skip
    with ExitStack() as stack:
        cases: dict[str, Callable[[], float]] = {}
        for count in OTHERS:
            target = stack.enter_context(program(path, f"cpu={cpu}"))
            session = Session(target.pid, OPTIONS)
            stack.callback(session.close)
            session.register(Ops(Callback.RECORD, ("nop_record",)))
            session.register(Ops(Callback.COUNT, ("nop_count",)))
            counting = 0
            for name in other_names(count):
                if counting < COUNT_SLOTS - 1:
                    try:
                        session.register(Ops(Callback.COUNT, (name,)))
                        counting += 1
                        continue
                    except BadInput:
                        pass
                session.register(Ops(Callback.RECORD, (name,)))

            for word in ("record", "count", "untraced"):

                def measure(
                    target: Program = target, session: Session = session, word: str = word
                ) -> float:
                    result = target.per_call(f"nop_{word}", CALLS)
                    for _ in session.consume():
                        pass
                    return result

                cases[f"{word} {count}"] = measure
        # Each kind by itself: what is compared comes behind the same kind of call.
        samples: dict[str, NDArray[np.float64]] = {}
        for word in ("record", "count", "untraced"):
            own = {name: case for name, case in cases.items() if name.startswith(word)}
            samples |= take_turns(own, ROUNDS)
    for word in ("record", "count", "untraced"):
        for count in OTHERS:
            case = f"{word} {count}"
            low, middle = ratios(samples, case, f"{word} 0")
            table.add(
                {"record": "recorded", "count": "counted"}.get(word, word), str(count),
                f"{samples[case].min():.2f}", f"{np.median(samples[case]):.2f}", f"{low:.2f}",
                f"{middle:.2f}", verdict(middle, 1.02 if count >= 64 else None),
            )  # fmt: skip
    table.notes.append(
        f"each ops on a function of its own; of the others the first {COUNT_SLOTS - 1} count "
        f"(a session has {COUNT_SLOTS} counting ops), the rest record; a process for each row"
    )
    return table


# Peers: one function of one program, ns added to a call, all in turn, beside the floor.

Peer = tuple[Callable[[], float], Callable[[], float]]  # a call with it, and one without


class Unavailable(Exception):
    """This machine cannot show a peer; the text is the reason."""


def peers() -> Table:
    """uftrace, Frida and a kernel uprobe beside fentry and the floor."""
    path, cpu = build(TARGETS / "calls.c"), target_cpu()
    table = Table(
        "Peers: ns added to one call",
        ("", "added ns, min", "median", "of the floor's (minima)", "of the floor's (medians)"),
    )
    cases: dict[str, Callable[[], float]] = {}
    reasons: dict[str, str] = {}
    with ExitStack() as stack:
        for label, peer in PEERS.items():
            try:
                cases[label], cases[f"without {label}"] = stack.enter_context(peer(path, cpu))
            except Unavailable as error:
                reasons[label] = str(error)
        samples = take_turns(cases, ROUNDS // 2, seconds=15)
    low, middle = (
        {label: float(take(samples[label]) - take(samples[f"without {label}"]))
         for label in PEERS if label in samples}
        for take in (np.min, np.median)
    )  # fmt: skip
    for label in PEERS:
        if label in reasons:
            table.missing(label, reasons[label])
        else:
            table.add(
                label, f"{low[label]:.1f}", f"{middle[label]:.1f}",
                f"{low[label] / low[FLOOR]:.1f}", f"{middle[label] / middle[FLOOR]:.1f}",
            )  # fmt: skip
    table.notes.append(
        "uftrace needs the program rebuilt and restarted, Frida runs an agent in it, a uprobe "
        "needs privilege; fentry none of these"
    )
    return table


def _calls(target: Program, name: str, calls: int = CALLS) -> Callable[[], float]:
    return lambda: target.per_call(name, calls)


@contextmanager
def floor(path: Path, cpu: int) -> Iterator[Peer]:
    """A hand-written stub."""
    with program(path, f"cpu={cpu}") as target:
        yield _calls(target, "call_floor"), _calls(target, "nop_untraced")


@contextmanager
def ours(path: Path, cpu: int) -> Iterator[Peer]:
    """fentry, records with the parent."""
    with program(path, f"cpu={cpu}") as target:
        session = Session(target.pid, OPTIONS)
        try:
            session.register(Ops(Callback.RECORD, ("nop_record",)))

            def measure() -> float:
                result = target.per_call("nop_record", CALLS)
                for _ in session.consume():
                    pass
                return result

            yield measure, _calls(target, "nop_untraced")
        finally:
            session.close()


@contextmanager
def uftrace(path: Path, cpu: int) -> Iterator[Peer]:
    """uftrace record on a build with -pg."""
    found = shutil.which("uftrace")
    if found is None:
        raise Unavailable("uftrace is not installed")
    profiled = build(TARGETS / "calls.c", "-pg")
    with scratch() as folder, program(path, f"cpu={cpu}") as alone:
        command = [
            found, "record", "--no-libcall", "-F", "plain_record", "-d", str(folder / "data"),
            str(profiled), f"cpu={cpu}",
        ]  # fmt: skip
        with program(*command) as target:
            yield _calls(target, "plain_record"), _calls(alone, "plain_untraced")
            target.finish()


@contextmanager
def uprobe(path: Path, cpu: int) -> Iterator[Peer]:
    """A kernel uprobe that counts."""
    kind = Path("/sys/bus/event_source/devices/uprobe/type")
    if not kind.exists():
        raise Unavailable("the kernel has no uprobe event source")
    few = CALLS // 20
    with program(path, f"cpu={cpu}") as target:
        fd = _open_uprobe(int(kind.read_text()), path, target.pid)
        try:
            target.ask("nop_record 1")
            if not struct.unpack("<Q", os.read(fd, 8))[0]:
                raise Unavailable("the uprobe does not count")
            yield _calls(target, "nop_record", few), _calls(target, "nop_untraced", few)
        finally:
            os.close(fd)


_SYS_PERF_EVENT_OPEN = 298


def _open_uprobe(kind: int, path: Path, pid: int) -> int:
    # struct perf_event_attr, include/uapi/linux/perf_event.h: config1 = path, config2 = offset.
    lines = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
    match = re.search(r"^([0-9a-f]+) T nop_record$", lines, re.MULTILINE)
    assert match is not None
    name = ctypes.create_string_buffer(os.fsencode(path))
    attr = bytearray(128)
    struct.pack_into("<II", attr, 0, kind, len(attr))
    struct.pack_into("<QQ", attr, 56, ctypes.addressof(name), _file_offset(path, int(match[1], 16)))
    buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_SYS_PERF_EVENT_OPEN, buffer, pid, -1, -1, 8)  # PERF_FLAG_FD_CLOEXEC
    if fd < 0:
        raise Unavailable(f"perf_event_open: {os.strerror(ctypes.get_errno()).lower()}")
    return int(fd)


def _file_offset(path: Path, vaddr: int) -> int:
    # Program headers of an ELF64: type, flags, offset, vaddr, paddr, filesz, memsz, align.
    image = path.read_bytes()
    (start,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for i in range(count):
        kind, _, offset, low, _, length = struct.unpack_from("<IIQQQQ", image, start + i * size)
        if kind == 1 and low <= vaddr < low + length:  # PT_LOAD
            return int(offset + vaddr - low)
    raise Unavailable("the probed function is in no segment of the file")


FRIDA = textwrap.dedent("""
    import sys, frida
    session = frida.attach(int(sys.argv[1]))
    script = session.create_script('''
        globalThis.counter = Memory.alloc(8);
        globalThis.code = new CModule(`
            #include <gum/guminterceptor.h>
            extern unsigned long long calls;
            void onEnter(GumInvocationContext *ic) {
                calls++;
            }`, { calls: globalThis.counter });
        globalThis.found = Process.mainModule.enumerateSymbols().filter(
            s => s.name === 'plain_record');
        Interceptor.attach(found[0].address, code);
        Interceptor.flush();
    ''')
    script.load()
    print("ready", flush=True)
    sys.stdin.readline()
    session.detach()
""")


@contextmanager
def frida(path: Path, cpu: int) -> Iterator[Peer]:
    """A native probe of Frida that counts."""
    python = os.environ.get("FENTRY_BENCH_FRIDA", sys.executable)
    try:
        found = subprocess.run([python, "-c", "import frida"], capture_output=True, check=False)
    except OSError as error:
        raise Unavailable(f"cannot run {python}: {error.strerror}") from error
    if found.returncode:
        raise Unavailable(
            "no module frida; FENTRY_BENCH_FRIDA names a Python interpreter that has it"
        )
    with program(path, f"cpu={cpu}") as target:
        try:
            agent = Program(python, "-c", FRIDA, str(target.pid))
        except RuntimeError as error:
            raise Unavailable("Frida could not attach") from error
        try:
            target.ask("plain_record 1")
            yield _calls(target, "plain_record"), _calls(target, "plain_untraced")
        except ValueError as error:
            raise Unavailable(f"the program died at its first call ({target.end()})") from error
        finally:
            agent.close()


FLOOR = "floor: call, rdtsc, 16-byte store"
PEERS = {
    FLOOR: floor,
    "fentry record, entry with parent": ours,
    "uftrace record, entry and exit (-pg)": uftrace,
    "kernel uprobe on five NOPs, counting": uprobe,
    "Frida, CModule onEnter, counting": frida,
}


def main() -> None:
    """Measure and print."""
    isolated().print()
    peers().print()


if __name__ == "__main__":
    main()
