"""Hard cases of code and names: what lies at an entry, where text comes from, who else is there."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.live.programs.fed import Fed, fed, folder
from tests.support import tracing
from tests.support.build import TARGETS, build
from tests.support.cli import fentry
from tests.support.compiled import SHARED, addresses, compile_c, compile_cpp, run
from tests.support.machine import missing, need_tool
from tests.support.process import start
from tests.support.state import diff, read_maps, snapshot
from tests.support.unprivileged import Account

from fentry.dispatch.ops import Ops
from fentry.errors import RegionError, SymbolNotFound
from fentry.session import Options, Session, attach
from fentry.sites.site import Reason

PATCH_BYTES = 5
SELF_CONTAINED = (*SHARED, "-O2", "-fPIC", "-fcf-protection=none", "-Wl,-z,noseparate-code")


def reasons(session: Session, *patterns: str) -> dict[str, Reason]:
    """Why each function that matches is not traced, NONE for those that are, by name."""
    table = session.functions.table
    rows = np.flatnonzero(session.functions.match(patterns, ()))
    names = tracing.names_of(session, table.ip[rows].tolist())
    return dict(zip(names, map(Reason, table.reason[rows].tolist()), strict=True))


def by_ip(session: Session, name: str, calls: Callable[[], None]) -> dict[int, int]:
    """How often each function of that name is called while `calls` runs: ip -> calls."""
    ops = session.register(tracing.counting(name))
    calls()
    ips, counts = session.counts(ops)
    session.unregister(ops)
    return {ip: count for ip, count in zip(ips.tolist(), counts.tolist(), strict=True) if count}


def where(pid: int) -> str:
    """The system call in which the only thread of a process waits, and from where."""
    return Path(f"/proc/{pid}/syscall").read_text()


# 1, 2, 4, 11, 13, 14, 21, 99

ENTRIES = {  # calls for each line; f_inner is called, and run into by f_outer
    "f_byte": 1, "f_three": 1, "f_four": 1, "f_neighbour": 1, "f_spin": 1, "f_where": 1,
    "f_where_later": 1, "f_late_call": 1, "f_read": 1, "f_island": 1, "f_framed": 1, "f_outer": 1,
    "f_inner": 2,
}  # fmt: skip
REFUSED_ENTRIES = {
    "f_tight": Reason.TOO_SHORT,
    "f_again": Reason.LOOP,
    "f_transaction": Reason.NOT_MOVABLE,
    "f_early_call": Reason.SYSTEM_CALL,
    "f_table": Reason.INDIRECT_JUMP,
    "f_endless": Reason.SIZE_UNKNOWN,
    "f_labelled": Reason.POINTER,
}


def test_odd_entries_are_counted_or_refused_with_their_reason(account: Account) -> None:
    with fed(build("edges.c"), account=account) as program:
        before = program.quiet()

        def controller() -> tuple[set[str], Counter[str], dict[str, Reason]]:
            with attach(program.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting("f_*"))
                said = {program.ask("go") for _ in range(20)}
                program.quiet()
                return said, tracing.counted(session, ops), reasons(session, "f_*")

        said, counts, told = account.run(controller)
        assert diff(before, program.quiet()) == []
        assert program.ask("go") == "0 wrong"
    assert said == {"0 wrong"}
    assert counts == {name: 20 * calls for name, calls in ENTRIES.items()}
    assert told == REFUSED_ENTRIES | dict.fromkeys(ENTRIES, Reason.NONE)


# 14


def test_a_thread_that_waits_in_a_system_call_behind_the_window_is_patched_around(
    account: Account,
) -> None:
    with fed(build("edges.c"), account=account) as program:
        program.quiet()
        waits = where(program.pid)

        def controller() -> tuple[int, int]:
            with attach(program.pid, tracing.SMALL) as session:
                (ip,) = session.functions.symbols.match("f_read").tolist()
                for make in (tracing.counting, tracing.recording) * 5:
                    ops = session.register(make("f_read"))
                    program.target.await_condition(lambda: where(program.pid) == waits, "waits")
                    session.unregister(ops)
                ops = session.register(tracing.counting("f_read"))
                assert {program.ask("go") for _ in range(3)} == {"0 wrong"}
                program.quiet()
                return ip, tracing.counted(session, ops)["f_read"]

        ip, calls = account.run(controller)
        assert program.ask("go") == "0 wrong"
    assert int(waits.split()[-1], 16) == ip + 7  # behind mov $0, %eax; syscall
    assert calls == 3


# 15


@pytest.mark.parametrize(("how", "name"), [("s", "f_load"), ("j", "f_load"), ("d", "f_divide")])
def test_a_fault_in_a_moved_instruction_is_recovered_from(
    account: Account, how: str, name: str
) -> None:
    # By arithmetic on rip, and by siglongjmp. A limit: rip is that of the copy.
    with fed(build("faults.c"), account=account) as program:
        untraced = program.ask(how)
        before = program.quiet()

        def controller() -> tuple[str, Counter[str]]:
            with attach(program.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting(name))
                said = program.ask(how)
                return said, tracing.counted(session, ops)

        traced, counts = account.run(controller)
        found = diff(before, program.quiet())
        again = program.ask(how)
    assert (untraced, traced, again) == ("100 100", "100 0", "100 100")
    assert counts == {name: 100}
    assert found == []


# 24


@pytest.mark.parametrize("stack", ["", "a"], ids=["same-stack", "own-stack"])
def test_a_signal_frame_in_the_window_goes_on_rightly_whatever_happens_meanwhile(
    account: Account, stack: str
) -> None:
    # A load between the five bytes faults; its handler waits until they have changed, and returns.
    with fed(build("faults.c"), account=account) as program:
        program.ask("j")  # sets its handlers
        before = program.quiet()

        def controller() -> tuple[list[str], list[int], int]:
            session = attach(program.pid, tracing.SMALL)
            ops: list[Ops] = []
            counts: list[int] = []
            values: list[str] = []

            def trace() -> None:
                ops.append(session.register(tracing.counting("f_load")))

            def untrace() -> None:
                counts.append(tracing.counted(session, ops[-1])["f_load"])
                session.unregister(ops[-1])

            def close() -> None:
                counts.append(tracing.counted(session, ops[-1])["f_load"])
                session.close()

            orders = ("p", "up", "u", "pu", "p", "u")
            acts = (trace, untrace, trace, untrace, trace, untrace, trace, close)
            todo = iter(acts)
            for order in orders:
                await_line(program, "in handler", partial(program.tell, f"w {order}{stack}"))
                for letter in order:
                    await_line(program, f"saw {letter}", next(todo))
                program.target.await_condition(lambda: program.lines()[-1].isdigit(), "a value")
                values.append(program.lines()[-1])
            return values, counts, session.parked_bytes

        values, counts, parked_bytes = account.run(controller)
        assert diff(before, program.quiet()) == []
    assert values == ["42"] * 6
    assert counts == [1, 1, 0, 1]  # of calls that were made while it was patched
    assert parked_bytes == 0


def await_line(program: Fed, line: str, act: Callable[[], object]) -> None:
    """Do something, and wait until the program has written that line once more."""
    known = program.lines().count(line)
    act()
    program.target.await_condition(lambda: program.lines().count(line) > known, line)


def test_a_thread_that_sleeps_below_a_call_in_the_window_comes_back(account: Account) -> None:
    with fed(build("asleep.c"), account=account) as program:
        stack = program.ask("in")
        before = program.quiet()

        def controller() -> tuple[list[str], list[str], int]:
            session = attach(program.pid, tracing.SMALL)
            stacks, answers = [], []
            ops = session.register(tracing.counting("f_outer"))
            answers.append(program.ask("out"))  # from a call made before
            stacks.append(program.ask("in"))
            calls = tracing.counted(session, ops)["f_outer"]
            session.unregister(ops)
            answers.append(program.ask("out"))
            ops = session.register(tracing.counting("f_outer"))
            stacks.append(program.ask("in"))
            calls += tracing.counted(session, ops)["f_outer"]
            session.close()
            return stacks, answers, calls

        stacks, answers, calls = account.run(controller)
        found = diff(before, program.quiet(), ignore=("maps",))  # backtrace() has loaded libgcc
        answers.append(program.ask("out"))
    assert stacks == [stack] * 2  # every return address is the program's own
    assert answers == ["16 out"] * 3
    assert calls == 2
    assert found == []


# 16


LINES = {  # of pageend.S: ends with a line, lies over its end, or ends with a page
    "f_line_end_nop", "f_line_cross_nop", "f_line_cross_frame", "f_page_end_nop",
    "f_page_end_nops", "f_page_end_frame", "f_page_start_nop", "f_page_start_frame",
}  # fmt: skip


def test_bytes_over_the_end_of_a_cache_line_are_toggled_under_threads(account: Account) -> None:
    with start(build("pageend.S"), "threads=4", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[Counter[str], Counter[str], dict[str, Reason]]:
            with attach(target.pid, Options(buffer_bytes=1 << 20, max_stop_s=30)) as session:
                target.go()
                # The controller gets its turn, they are preempted anywhere.
                for tid in target.tids():
                    os.setpriority(os.PRIO_PROCESS, tid, 19)
                for i in range(20):
                    make = tracing.counting if i % 2 else tracing.recording
                    session.unregister(session.register(make("f_*")))
                    assert target.is_alive and target.bad == 0, i
                target.hold()
                reached = target.counters()
                ops = session.register(tracing.counting("f_*"))
                target.go()
                target.await_calls("f_line_end_nop", 1000)
                held = target.hold() - reached
                return held, tracing.counted(session, ops), reasons(session, "f_*")

        held, counts, told = account.run(controller, seconds=600)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert {name for name, why in told.items() if why == Reason.PAGE} == {
        name for name in told if name.startswith("f_page_cross")
    }
    assert {name for name, why in told.items() if not why} >= LINES
    assert counts == {name: held[name] for name, why in told.items() if not why}
    assert end.is_well, end.err


# 17


def test_without_a_free_address_nearby_nothing_is_changed(account: Account) -> None:
    with fed(build("crowded.c"), account=account) as program:
        before = program.quiet()

        def controller() -> tuple[set[str], Counter[str], Counter[str]]:
            with attach(program.pid, tracing.SMALL) as session:
                with pytest.raises(RegionError, match="no room for"):
                    session.register(tracing.counting("f_crowded"))
                assert not session.ops
                far = session.register(tracing.counting("libc!getppid"))
                said = {program.ask("call"), program.ask("free")}
                near = session.register(tracing.counting("f_crowded"))
                said.add(program.ask("call"))
                return said, tracing.counted(session, far), tracing.counted(session, near)

        said, far, near = account.run(controller)
        after = program.quiet()
        assert program.ask("call") == "4 1"
    assert said == {"4 1"}
    assert far == {"getppid": 6}
    assert near == {"f_crowded": 1}
    assert [line for line in diff(before, after) if not line.startswith("maps")] == []
    assert sum(m.endswith("---p ") for m in after.maps.values()) >= 1


@pytest.mark.parametrize("form", ["pie", "fixed", "static"])
def test_a_program_with_data_of_gigabytes_is_traced(account: Account, form: str) -> None:
    """Data is not in the way, but where an instruction at an entry refers to what is far away."""
    # glibc's loader, which a static program has and does not use, refers to _end from nearby
    flags = ("-static", "-Wl,--wrap=_end") if form == "static" else ()
    path = build("large.c", flags=flags, pie={"pie": True, "fixed": False}.get(form))
    with fed(path, account=account) as program:
        before = program.quiet()

        def controller() -> tuple[str, Counter[str], Counter[str], str]:
            with attach(program.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting("f_large", "f_near", "f_far", "getppid"))
                with pytest.raises(SymbolNotFound) as caught:
                    session.register(tracing.counting("f_far"))
                session.register(tracing.recording("f_*"))
                said = program.ask("call")
                seen = tracing.recorded(session)
                return said, tracing.counted(session, ops), seen, str(caught.value)

        said, counts, seen, why = account.run(controller)
        assert diff(before, program.quiet()) == []
        assert program.ask("call") == "16 35 20 1"
    assert said == "16 35 10 1"
    assert counts == {"f_large": 1, "f_near": 1, "getppid": 1}
    assert "what the bytes to replace refer to, or the code itself, spans more than 2 GiB" in why
    assert seen == {"f_large": 1, "f_near": 1}


# 25

ALIGNED = ("-Wl,-z,max-page-size=0x200000",)  # as linkers do for this purpose
PLACES = {
    "inside": ("p", ()),
    "from-its-start": ("p", ALIGNED),
    "whole": ("w", ()),
    "memfd": ("f", ALIGNED),
}


def huge_pages(pid: int) -> list[str]:
    """What smaps says of huge pages in executable memory."""
    found, executable = [], False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if re.match("[0-9a-f]+-", words[0]):
            executable = "x" in words[1]
        elif executable and words[0] in ("AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:"):
            found += [line] * (words[1] != "0")
    return found


@pytest.mark.parametrize("place", PLACES)
def test_text_on_huge_pages_is_traced_or_refused_with_a_reason(
    account: Account, place: str
) -> None:
    how, flags = PLACES[place]
    with fed(build("hugetext.c", flags=flags), how, account=account) as program:
        if not (huge := huge_pages(program.pid)):
            missing("huge pages for anonymous memory or memfds (Linux 6.1, MADV_COLLAPSE)")
        before = program.quiet()

        def controller() -> tuple[dict[str, Reason], str, Counter[str]]:
            with attach(program.pid, tracing.SMALL) as session:
                told = reasons(session, "f_low", "f_middle")
                if set(told.values()) != {Reason.NONE}:
                    return told, program.ask("call"), Counter(told)
                ops = session.register(tracing.counting("f_*"))
                return told, program.ask("call"), tracing.counted(session, ops)

        told, said, counts = account.run(controller)
        found = diff(before, program.quiet())
        assert program.ask("call") == said == "16 32"
        assert found == []
        if how != "f":  # a page of a file is its own copy while it is traced, and splits the rest
            assert huge_pages(program.pid) == huge
    assert told.keys() == {"f_low", "f_middle"}
    assert all(told.values()) or counts == {"f_low": 1, "f_middle": 1}


# 26

LIBRARY = """
__attribute__((noipa)) long f_mapped(long x) { return x * 3 + 1; }
"""


@pytest.mark.parametrize("how", ["m", "mf", "f"], ids=["mmap", "memfd", "memfd-dlopen"])
def test_text_of_a_private_mapping_is_traced_wherever_it_comes_from(
    account: Account, how: str
) -> None:
    with folder(account) as place:
        library = compile_c(place, LIBRARY, *SELF_CONTAINED, name="library.so")
        content, offset = library.read_bytes(), f"{addresses(library)['f_mapped']:x}"
        with fed(build("mapped.c"), how, library, offset, account=account) as program:
            before = program.quiet()

            def controller() -> tuple[str, Counter[str]]:
                with attach(program.pid, tracing.SMALL) as session:
                    ops = session.register(tracing.counting("f_mapped"))
                    return program.ask("call"), tracing.counted(session, ops)

            said, counts = account.run(controller)
            # a limit: who cannot open a memfd leaves a copy of its page
            ignore = ("pages",) if "f" in how and account.uid else ()
            found = diff(before, program.quiet(), ignore=ignore)
            assert program.ask("call") == said == "16"
        assert library.read_bytes() == content
    assert counts == {"f_mapped": 1}
    assert found == []


@pytest.mark.parametrize("how", ["ms", "msw", "msf", "msfw"])
def test_text_of_a_shared_mapping_is_refused_and_its_file_never_written(
    account: Account, how: str
) -> None:
    # What is written there is seen by whoever maps the file, and by who reads it.
    with folder(account) as place:
        library = compile_c(place, LIBRARY, *SELF_CONTAINED, name="library.so")
        os.chown(library, account.uid, account.uid)
        content, offset = library.read_bytes(), f"{addresses(library)['f_mapped']:x}"
        with fed(build("mapped.c"), how, library, offset, account=account) as program:
            before = program.quiet()

            def controller() -> tuple[str, str, bytes, Counter[str]]:
                with attach(program.pid, tracing.SMALL) as session:
                    try:
                        session.register(tracing.counting("f_mapped"))
                        why = ""
                    except SymbolNotFound as error:
                        why = error.cause
                    ops = session.register(tracing.counting("f_mapped", "libc!puts"))
                    said = program.ask("call")
                    return why, said, library.read_bytes(), tracing.counted(session, ops)

            why, said, meanwhile, counts = account.run(controller)
            found = diff(before, program.quiet())
            assert program.ask("call") == said == "16"
        assert content == meanwhile == library.read_bytes()
    assert "shared" in why
    assert counts["f_mapped"] == 0
    assert found == []


def test_text_on_a_read_only_mount_is_traced(account: Account) -> None:
    with folder(account) as place:
        library = compile_c(place, LIBRARY, *SELF_CONTAINED, name="library.so")
        offset = f"{addresses(library)['f_mapped']:x}"
        mount = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
        script = f'{mount} || exit; touch {place}/x 2>/dev/null || exec "$@"'
        alone = ["unshare", "-m" if account.uid == 0 else "-Urm", "sh", "-c", script, "sh"]
        probe = ["sh", "-c", "echo READY; exec cat"]
        with fed(*alone, *probe, account=account, first="") as program:
            try:
                program.target.await_condition(lambda: program.lines() == ["READY"], "mounted")
            except AssertionError:
                missing("the right to mount in a namespace of one's own")
        with fed(*alone, build("mapped.c"), "m", library, offset, account=account) as program:
            before = program.quiet()

            def controller() -> tuple[str, Counter[str]]:
                with attach(program.pid, tracing.SMALL) as session:
                    ops = session.register(tracing.counting("f_mapped"))
                    return program.ask("call"), tracing.counted(session, ops)

            said, counts = account.run(controller)
            found = diff(before, program.quiet())
            assert program.ask("call") == said == "16"
    assert counts == {"f_mapped": 1}
    assert found == []


# 27


def fnv(content: bytes) -> str:
    """The checksum that selfhash.c makes, FNV-1a."""
    value = 14695981039346656037
    for byte in content:
        value = (value ^ byte) * 1099511628211 % 2**64
    return f"{value:016x}"


def text_of(path: Path) -> bytes:
    """The code segment of a file, by readelf."""
    match = re.search(
        r"LOAD +0x(\w+) 0x\w+ 0x\w+ 0x(\w+) 0x\w+ R E", run("readelf", "-lW", str(path))
    )
    assert match is not None
    offset, size = (int(word, 16) for word in match.groups())
    return path.read_bytes()[offset : offset + size]


def test_a_program_that_hashes_its_own_code_sees_the_change_until_the_detach(
    account: Account,
) -> None:
    file = build("selfhash.c")
    wanted = f"{fnv(text_of(file))} 16"
    with fed(file, account=account) as program:
        before = program.ask("hash")

        def controller() -> tuple[str, str]:
            with attach(program.pid, tracing.SMALL) as session:
                attached = program.ask("hash")
                session.register(tracing.counting("f_hashed"))
                return attached, program.ask("hash")

        attached, traced = account.run(controller)
        after = program.ask("hash")
    assert before == attached == after == wanted
    assert traced != wanted and traced.endswith(" 16")


# 86


def made_code(pid: int) -> dict[int, bytes]:
    """What the program's own anonymous and memfd memory for code holds, by address."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        found = {}
        for mapped in read_maps(pid):
            if "x" in mapped.perms and (not mapped.path or mapped.path.startswith("/memfd:code")):
                memory.seek(mapped.start)
                found[mapped.start] = memory.read(mapped.end - mapped.start)
    return found


def test_code_made_at_run_time_is_never_touched_while_it_changes(account: Account) -> None:
    with start(build("jit.c"), account=account) as target:
        target.await_calls("rounds", 100)
        target.hold()
        reached = target.counters()
        before, made = snapshot(target.pid), made_code(target.pid)
        assert len(made) >= 6  # pages side by side are one mapping

        def controller() -> tuple[Counter[str], Counter[str], bool, dict[int, bytes]]:
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting("f_target"))
                library = tracing.counting("libc!m*")
                session.register(library)
                memory = made_code(target.pid)  # ours may lie beside it, and be one mapping with it
                same = all(content in b"".join(memory.values()) for content in made.values())
                target.go()
                for _ in range(10):
                    target.await_calls("rounds", 100)
                    session.unregister(library)
                    session.register(library)
                calls = target.hold() - reached
                return calls, tracing.counted(session, ops), same, made_code(target.pid)

        calls, counts, same, traced = account.run(controller)
        after = made_code(target.pid)
        found = diff(before, snapshot(target.pid))
        target.go()
        end = target.stop()
    assert same
    assert all(content in b"".join(traced.values()) for content in after.values())
    assert after.keys() == made.keys()
    # Only the program itself has changed its code.
    assert [line for line in found if not re.match(r"text: \S+ (|/memfd:\S+ .*): ", line)] == []
    assert counts == {"f_target": calls["f_target"]}
    assert end.is_well, end.err


NODE = """
let seen = 0;
console.log("READY");
require("readline").createInterface({input: process.stdin}).on("line", (line) => {
    let sum = 0;
    for (let round = 0; round < 200; round++) {
        const add = new Function("a", "b", `return (a * ${seen % 7} + b) % 1000003;`);
        for (let i = 0; i < 2000; i++) sum = add(sum, i + round);
        const text = JSON.stringify({sum, round, list: Array.from({length: 50}, (_, i) => i)});
        sum = (sum + text.length) % 1000003;
        if (round % 50 === 49) seen++;
    }
    seen = 0;
    console.log(sum);
});
"""


def test_node_compiles_and_collects_while_its_libraries_are_traced(account: Account) -> None:
    node = need_tool("node")
    with folder(account) as place:
        script = place / "script.js"
        script.write_text(NODE)
        with fed(node, "--expose-gc", script, account=account) as program:
            wanted = program.ask("warm up")
            text = snapshot(program.pid).text

            def controller() -> tuple[set[str], int]:
                with attach(program.pid) as session:
                    said = set()
                    for _ in range(3):
                        ops = session.register(tracing.counting("libc!*"))
                        said.add(program.ask("go"))
                        calls = tracing.counted(session, ops).total()
                        session.unregister(ops)
                    return said, calls

            said, calls = account.run(controller)
            after = snapshot(program.pid).text
            assert program.ask("once more") == wanted
    assert said == {wanted}
    assert calls > 1000
    assert {name: text[name] for name in text if "/" in name} == {
        name: after[name] for name in after if "/" in name
    }


# 94

GNU_LD, LLD, GOLD, MOLD = "ld.bfd", "ld.lld", "ld.gold", "mold"
SCRIPT = f"-Wl,-T,{TARGETS / 'odd.ld'}"
LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ld": (GNU_LD, ()),
    "ld-one-segment": (GNU_LD, ("-Wl,-z,noseparate-code",)),
    "ld-writable-text": (GNU_LD, ("-Wl,-N",)),
    "ld-high": (GNU_LD, ("-Wl,-Ttext-segment=0x30000000",)),
    "ld-text-at": (GNU_LD, ("-Wl,-Ttext=0x12345670",)),
    "ld-script": (GNU_LD, (SCRIPT,)),
    "ld-script-frames": (GNU_LD, (SCRIPT, "-Wl,--eh-frame-hdr")),
    "ld-static-pie": (GNU_LD, ("-static-pie", "-fPIE")),
    "ld-static-pie-high": (GNU_LD, ("-static-pie", "-fPIE", "-Wl,-Ttext-segment=0x30000000")),
    "lld": (LLD, ()),
    "lld-separate": (LLD, ("-Wl,-z,separate-code",)),
    "lld-image-base": (LLD, ("-Wl,--image-base=0x20000000",)),
    "lld-script": (LLD, (SCRIPT,)),
    "lld-one-segment": (LLD, ("-Wl,--no-rosegment",)),
    "mold": (MOLD, ()),
    "gold": (GOLD, ()),
    "gold-huge-pages": (GOLD, ("-Wl,-z,max-page-size=0x200000",)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_functions_are_found_whatever_linker_laid_the_program_out(
    account: Account, layout: str
) -> None:
    linker, flags = LAYOUTS[layout]
    need_tool(linker)
    program = build("layout.c", flags=(f"-fuse-ld={linker.removeprefix('ld.')}", *flags))
    assert traced_layout(account, program) == {"f_plain": 40, "f_local": 20, "f_both": 20}


@pytest.mark.parametrize(
    "options",
    [
        ("--set-section-alignment", ".text=4096"),
        ("--remove-section", ".eh_frame"),
        ("--strip-debug", "--keep-symbol=f_local", "--add-section", ".extra=/etc/hostname"),
    ],
    ids=lambda options: options[0].strip("-"),
)
def test_functions_are_found_in_a_program_that_objcopy_has_rewritten(
    account: Account, options: tuple[str, ...]
) -> None:
    with folder(account) as place:
        copy = place / "rewritten"
        run("objcopy", *options, str(build("layout.c", flags=("-Wl,--build-id",))), str(copy))
        assert traced_layout(account, copy) == {"f_plain": 40, "f_local": 20, "f_both": 20}


def traced_layout(account: Account, path: Path) -> Counter[str]:
    """The calls of 20 rounds of layout.c, after which it is as it was."""
    with fed(path, account=account) as program:
        before = program.quiet()

        def controller() -> tuple[set[str], Counter[str]]:
            with attach(program.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting("f_*"))
                return {program.ask("3") for _ in range(20)}, tracing.counted(session, ops)

        said, counts = account.run(controller)
        after = program.quiet()
        assert said == {program.ask("3")} == {"5"}
    assert before.text == after.text
    assert before.maps == after.maps
    return counts


# 95


@pytest.mark.parametrize("kind", ["plain", "stripped-of-debug", "lld-icf", "gold-icf"])
def test_functions_of_one_name_are_told_apart_and_folded_ones_are_one(
    account: Account, kind: str
) -> None:
    flags: tuple[str, ...] = ("-Wl,-S",) if kind == "stripped-of-debug" else ()
    if kind.endswith("icf"):
        linker = kind.removesuffix("-icf")
        need_tool(f"ld.{linker}")
        flags = (f"-fuse-ld={linker}", "-Wl,--icf=all")
    path = build("twins.c", flags=flags)
    with fed(path, account=account) as program:

        def controller() -> tuple[dict[str, dict[int, int]], str]:
            with attach(program.pid, tracing.SMALL) as session:
                said = []
                found = {
                    name: by_ip(session, name, lambda: said.append(program.ask("call")))
                    for name in ("f_twin", "f_alike", "f_same", "f_*")
                }
                assert len(set(said)) == 1
                return found, said[0]

        found, said = account.run(controller)
        assert program.ask("call") == said
    assert said == str(16 + 125 + 130 + 2 * (5 ^ 0x1234567))
    assert sorted(found["f_twin"].values()) == [1, 2]
    folded = kind.endswith("icf")
    assert (found["f_alike"] == found["f_same"]) == folded
    assert [*found["f_alike"].values()] == [*found["f_same"].values()] == [2 if folded else 1]
    assert found["f_*"] == found["f_twin"] | found["f_alike"] | found["f_same"]


def test_all_names_of_a_function_are_listed(account: Account) -> None:
    need_tool("ld.lld")
    path = build("twins.c", flags=("-fuse-ld=lld", "-Wl,--icf=all"))
    listed = fentry(account, "list", path, "f_same")
    assert listed.code == 0, listed.err
    assert set(re.findall(r"\bf_\w+", listed.out)) == {"f_alike", "f_same"}


def test_functions_of_one_name_have_different_rows(account: Account) -> None:
    path = build("twins.c")
    counted = fentry(account, "stat", "--all", "-F", f"{path.name}!f_twin", "--", path)
    assert counted.code == 0, counted.err
    rows = [line for line in counted.out.splitlines() if "f_twin" in line]
    assert len(rows) == len(set(rows)) == 2, counted.out


PLUG = ("-O2", "-shared", "-fPIC", "-fcf-protection=none")
VERSIONED = """
#define FUNCTION __attribute__((noipa))
FUNCTION long old(long x) { return x * 3 + 1; }
FUNCTION long new(long x) { return x * 5 + 1; }
asm(".symver old, f_versioned@OLD\\n.symver new, f_versioned@@NEW");
FUNCTION long plug(long x) { return old(x) + new(x) + new(x + 1); }
"""
VERSIONS = "OLD { }; NEW { global: plug; local: old; new; };\n"
CONSTRUCTED = """
struct Base { long value; __attribute__((noipa)) Base(long x); };
Base::Base(long x) : value(x * 3 + 1) {}
struct Other : Base { long more; Other(long x); };
__attribute__((noipa)) Other::Other(long x) : Base(x + 1), more(x) {}
extern "C" __attribute__((noipa)) long plug(long x) {
    Base one(x);
    Other other(x);
    return one.value + other.value + other.more;
}
"""


@pytest.mark.parametrize("stripped", [False, True], ids=["", "stripped"])
def test_versions_of_a_symbol_are_functions_of_their_own(account: Account, stripped: bool) -> None:
    flags = (*PLUG, *(["-s"] if stripped else []))
    with folder(account) as place:
        script = place / "versions"
        script.write_text(VERSIONS)
        library = compile_c(place, VERSIONED, *flags, f"-Wl,--version-script={script}")
        (found,), said = plugged(account, library, "f_versioned")
    assert said == {"73"}
    assert sorted(found.values()) == [1, 2]


def test_two_constructors_of_one_address_are_one_function(account: Account) -> None:
    names = ("_ZN4BaseC1El", "_ZN4BaseC2El")
    with folder(account) as place:
        library = compile_cpp(place, CONSTRUCTED, *PLUG)
        symbols = addresses(library)
        found, said = plugged(account, library, "Base::Base", "Base::Base(long)", *names)
    assert symbols[names[0]] == symbols[names[1]]
    assert said == {"40"}
    assert [*found[0].values()] == [2]
    assert found == [found[0]] * 4


def plugged(
    account: Account, library: Path, *patterns: str
) -> tuple[list[dict[int, int]], set[str]]:
    """Calls by ip for each pattern while the library's plug(5) is called once, and its answers."""
    with fed(build("swap.c"), account=account, first="ready") as program:
        assert program.ask(f"o {library}") != "(nil)"

        def controller() -> tuple[list[dict[int, int]], set[str]]:
            with attach(program.pid, tracing.SMALL) as session:
                said: set[str] = set()
                call = lambda: said.add(program.ask("c"))  # noqa: E731
                return [by_ip(session, pattern, call) for pattern in patterns], said

        return account.run(controller)


# 97


def stub_ranges(path: Path) -> list[tuple[int, int]]:
    """Where a file has its linkage stubs, by readelf."""
    found = re.findall(r"\.i?plt\S* +PROGBITS +(\w+) \w+ (\w+)", run("readelf", "-SW", str(path)))
    return [(int(start, 16), int(start, 16) + int(size, 16)) for start, size in found]


@pytest.mark.parametrize("linker", ["bfd", "lld", "gold"])
@pytest.mark.parametrize("headers", [True, False], ids=["", "no-section-headers"])
def test_stubs_and_the_vdso_are_refused_and_what_they_lead_to_is_traced(
    account: Account, linker: str, headers: bool
) -> None:
    need_tool(f"ld.{linker}")
    whole = build("stubs.c", flags=(f"-fuse-ld={linker}",))
    stubs = stub_ranges(whole)
    assert stubs
    with folder(account) as place:
        path = place / "stubs"
        content = bytearray(whole.read_bytes())
        if not headers:
            content[40:48], content[60:64] = bytes(8), bytes(4)  # e_shoff, e_shnum, e_shstrndx
        path.write_bytes(content)
        path.chmod(0o755)
        with fed(path, account=account) as program:
            before = program.quiet()

            def controller() -> tuple[Counter[str], set[Reason], set[Reason], str]:
                with attach(program.pid, tracing.SMALL) as session:
                    ops = session.register(tracing.counting("libc!clock_gettime", "libc!getppid"))
                    session.register(tracing.counting("stubs!*"))
                    said = program.ask("go")
                    table, modules = session.functions.table, session.functions.modules
                    (own,) = (m for m in modules if m.path == str(path))
                    kernel = [i for i, m in enumerate(modules) if m.is_vdso]
                    session.functions.analyse()
                    inside = np.zeros(len(table), bool)
                    for low, high in stubs:
                        ips = table.ip - np.uint64(own.bias)
                        inside |= (ips >= np.uint64(low)) & (ips < np.uint64(high))
                    told = {Reason(value) for value in table.reason[inside].tolist()}
                    vdso = {Reason(v) for v in table.reason[np.isin(table.module, kernel)].tolist()}
                    return tracing.counted(session, ops), told, vdso, said

            counts, told, vdso, said = account.run(controller)
            assert diff(before, program.quiet()) == []
            assert program.ask("go") == said == "100"
    assert {"clock_gettime": 100, "getppid": 100}.items() <= counts.items()
    assert told <= {Reason.PLT}
    assert told or headers or linker == "lld"  # whose stubs no frame describes
    assert vdso == {Reason.VDSO}


# 98

PIECES = {  # of pieces.c, calls for each line
    "f_split": 100,
    "f_constant.constprop.0": 100,
    "f_unused.constprop.0.isra.0": 100,
}


@pytest.mark.parametrize("stripped", [False, True], ids=["", "stripped"])
def test_pieces_of_functions_are_never_entered_in_the_middle(
    account: Account, stripped: bool
) -> None:
    symbols = addresses(build("pieces.c"))
    cold = {vaddr for name, vaddr in symbols.items() if name.endswith(".cold")}
    early = symbols["f_early.part.0"]
    assert len(cold) == 2 and PIECES.keys() <= symbols.keys()
    path = build("pieces.c", stripped=stripped)
    with fed(path, account=account) as program:
        wanted = program.ask("go")
        before = program.quiet()

        def controller() -> tuple[dict[int, int], set[int], str]:
            with attach(program.pid, tracing.SMALL) as session:
                (own,) = (m for m in session.functions.modules if m.path == str(path))
                said: list[str] = []
                calls = by_ip(session, f"{own.name}!*", lambda: said.append(program.ask("go")))
                table = session.functions.table
                traced = table.ip[table.traceable] - np.uint64(own.bias)
                traced = traced[~table.part[table.traceable]]
                return {ip - own.bias: n for ip, n in calls.items()}, set(traced.tolist()), said[0]

        calls, traced, said = account.run(controller)
        assert diff(before, program.quiet()) == []
        assert program.ask("go") == said == wanted
    assert {name: calls.get(symbols[name]) for name in PIECES} == PIECES
    assert calls[early] == 198  # entered by calls: a function
    assert not traced & cold
