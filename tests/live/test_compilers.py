"""What compilers make of ordinary C, C++ and Rust is traced exactly, however they are told to."""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tests.live.programs.fed import fed, folder
from tests.support import tracing
from tests.support.build import build, building, run_compiler, target_directory
from tests.support.c_programs import Build, program_of
from tests.support.compiled import addresses, compile_c, run
from tests.support.machine import missing, need_tool
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, accounts

from fentry.dispatch.ops import Ops
from fentry.errors import SymbolNotFound
from fentry.session import Options, Session, attach
from fentry.sites.site import Reason

COUNT = 200
COUNT_OF_VARIANT = 150
BIG = Options(buffer_bytes=16 << 20)
HERE = Path(__file__).resolve().parent
# value, type, name of a function or a clone of it; parameters and templates left aside; no parts
SYMBOL = re.compile(
    r"([0-9a-f]+) [tTWi] (?!.*(?: thunk to |\)::|\.cold|\.part|\.resolver))"
    r"(?:[^{(]*[ :]|__regcall3__)?(f_\w+)(?:\[abi:\w+\])?(?:<[^{(]*>)?(?:\([^{}]*\))?(?: const)?"
    r"(?: \[clone .*\]|\..*)?"
)


class Family(NamedTuple):
    """Names in the source and vaddrs that belong together: clones, aliases, folded functions."""

    names: frozenset[str]
    at: frozenset[int]


def families_of(program: Path) -> list[Family]:
    """What nm says about the functions f_... of a program."""
    places: dict[str, set[int]] = defaultdict(set)
    for line in run("nm", "--demangle", "--defined-only", str(program)).splitlines():
        if match := SYMBOL.fullmatch(line):
            places[match[2]].add(int(match[1], 16))
    families: list[Family] = []
    for name, at in places.items():
        same = [family for family in families if family.at & at]
        families = [family for family in families if not family.at & at]
        names = frozenset({name}.union(*(family.names for family in same)))
        families.append(Family(names, frozenset(at.union(*(family.at for family in same)))))
    return families


def cold_parts_of(program: Path) -> set[int]:
    """Where the pieces of functions are that nobody calls."""
    return {vaddr for name, vaddr in addresses(program).items() if name.endswith(".cold")}


# What a session saw


@dataclass(frozen=True, slots=True)
class Seen:
    """What a session counted, recorded and refused, by vaddr of the program; calls dropped."""

    counts: Counter[int]
    records: Counter[int]
    dropped: int
    refused: dict[int, Reason]


def seen_by(session: Session, ops: Ops, program: Path) -> Seen:
    """Counts of `ops`, and the records not read before."""
    (bias,) = (m.bias for m in session.functions.modules if m.path == str(program))
    table = session.functions.table
    chosen = ops.members & ~table.traceable
    reasons = zip(table.ip[chosen].tolist(), table.reason[chosen].tolist(), strict=True)
    ips, calls = session.counts(ops)
    by_key: Counter[int] = Counter()
    for batch in session.consume():
        keys, number = np.unique(batch.records["key"], return_counts=True)
        by_key.update(dict(zip(keys.tolist(), number.tolist(), strict=True)))
    keys, places = session.keys()
    ip_of = dict(zip(keys.tolist(), places.tolist(), strict=True))
    return Seen(
        Counter({i - bias: n for i, n in zip(ips.tolist(), calls.tolist(), strict=True) if n}),
        Counter({ip_of[key] - bias: number for key, number in by_key.items()}),
        tracing.dropped(session),
        {ip - bias: Reason(reason) for ip, reason in reasons},
    )


def check(program: Path, calls: Mapping[str, int], seen: Seen) -> Counter[Reason]:
    """All calls of all traced functions were seen; the reasons for those that are refused.

    `program` has symbols; the one that ran may have none.
    """
    refused: Counter[Reason] = Counter()
    more: dict[frozenset[str], int] = {}
    known: set[str] = set()
    for names, at in families_of(program):
        known |= names
        reasons = {seen.refused[vaddr] for vaddr in at if vaddr in seen.refused}
        if reasons:
            refused[min(reasons)] += 1
            continue
        found = sum(seen.counts[vaddr] for vaddr in at) - sum(calls[name] for name in names)
        # a compiler may make a loop of what calls itself
        if found and found != sum(calls.get(f"again.{name}", 0) for name in names):
            more[names] = found
    # gold and link time optimisation leave out the names of functions that they fold
    folded = {name: n for name, n in calls.items() if name[:2] == "f_" and name not in known}
    assert sum(more.values()) == sum(folded.values()), (more, folded)
    assert all(found > 0 for found in more.values()), more
    assert seen.counts.keys().isdisjoint(cold_parts_of(program))
    assert seen.records == seen.counts or seen.dropped
    assert seen.records.total() + seen.dropped == seen.counts.total()
    return refused


class Outcome(NamedTuple):
    """Calls that a program counted itself while it was traced, and what was seen of them."""

    calls: Counter[str]
    seen: Seen


def outcome_of(
    program: Path, account: Account, pattern: str = "*f_*", **environment: str
) -> Outcome:
    """Some rounds of a program of which all is counted and recorded; it is well all the time."""
    with start(program, account=account, hold=True, environment=environment) as target:
        before, earlier = snapshot(target.pid), target.counters()

        def controller() -> Outcome:
            with attach(target.pid, BIG) as session:
                ops = session.register(tracing.counting(f"{program.name}!{pattern}"))
                session.register(tracing.recording(f"{program.name}!{pattern}"))
                target.go()
                target.await_calls("rounds", 16)
                return Outcome(target.hold() - earlier, seen_by(session, ops, program))

        outcome = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        target.await_calls("rounds", 4)
        end = target.stop()
    assert end.is_well, end.err
    assert found == []
    return outcome


# C, generated

# Those that remain, at most: loops that begin at the entry; what lies so near to the linkage stubs
# that their bytes could be a branch into it; functions shorter than the five bytes where no padding
# is near (-Os aligns nothing); `goto *` by a table of differences between labels where the compiler
# adds them in a way that is not known; an endbr64 at a label within the bytes; NOPs in two pages.
MOST_REFUSED = {
    Reason.LOOP: 4,
    Reason.BRANCH: 4,
    Reason.TOO_SHORT: 3,
    Reason.INDIRECT_JUMP: 5,
    Reason.NOT_MOVABLE: 2,
    Reason.PAGE: 1,
}
MOST_REFUSED_AT_O0 = {Reason.INDIRECT_JUMP: 5}


def gcc(*flags: str, link: tuple[str, ...] = ()) -> Build:
    """Functions alike stay two: where gcc folds them it may make one call the other."""
    return Build("gcc", ("-fno-ipa-icf", *flags), link)


def clang(*flags: str, link: tuple[str, ...] = ()) -> Build:
    """The other one, which folds nothing by itself."""
    return Build("clang", flags, link)


KINDS = {"fixed": ("-fno-pie", "-no-pie"), "pie": ("-fPIE", "-pie")}
LEVELS = {
    f"{make.__name__}{level}-{kind}": make(level, KINDS[kind][0], link=KINDS[kind][1:])
    for make, kinds in ((gcc, ("pie", "fixed")), (clang, ("fixed", "pie")))
    for level, kind in zip(("-O0", "-O1", "-O2", "-O3", "-Os"), 3 * kinds, strict=False)
}


def refused_too_much(refused: Counter[Reason], how: Build) -> dict[str, int]:
    """Reasons for which more are refused than was measured for programs of that kind."""
    most = MOST_REFUSED_AT_O0 if "-O0" in how.flags else MOST_REFUSED
    return {reason.name: n for reason, n in refused.items() if n > most.get(reason, 0)}


@pytest.mark.parametrize("name", LEVELS)
def test_each_level_of_a_compiler(account: Account, name: str) -> None:
    program = program_at(name)
    calls, seen = outcome_of(program, account)
    refused = check(program, calls, seen)
    assert calls["rounds"] >= 16
    assert refused_too_much(refused, LEVELS[name]) == {}


VARIANTS = {
    "cet-gcc": gcc("-O2", "-fcf-protection=full"),
    "cet-clang": clang("-O1", "-fcf-protection=full"),
    "fentry": gcc("-O2", "-pg", "-mfentry"),
    "fentry-nops": gcc("-O2", "-pg", "-mfentry", "-mnop-mcount", "-mrecord-mcount", "-fno-pie",
                       link=("-no-pie",)),
    "mcount": gcc("-O1", "-pg", link=("-pg",)),
    "hooks-gcc": gcc("-O2", "-finstrument-functions"),
    "hooks-clang": clang("-O1", "-finstrument-functions"),
    "patchable-5": clang("-O2", "-fpatchable-function-entry=5"),
    "patchable-2": gcc("-O2", "-fpatchable-function-entry=2"),
    "patchable-16,8": gcc("-O1", "-fpatchable-function-entry=16,8", "-fcf-protection=full"),
    "xray": clang("-O2", "-fxray-instrument", "-fxray-instruction-threshold=1",
                  link=("-fxray-instrument",)),
    "icf-lld": clang("-O2", "-ffunction-sections", link=("-fuse-ld=lld", "-Wl,--icf=all")),
    "icf-gold": gcc("-O1", "-ffunction-sections", link=("-fuse-ld=gold", "-Wl,--icf=all")),
    "lto-gcc": gcc("-O2", "-flto", link=("-flto",)),
    "lto-clang": clang("-O2", "-flto", link=("-flto", "-fuse-ld=lld")),
    "static": gcc("-O2", link=("-static",)),
    "static-pie": clang("-O1", "-fPIE", link=("-static-pie",)),
    "no-frame": gcc("-O0", "-fomit-frame-pointer"),
    "frame": clang("-O3", "-fno-omit-frame-pointer"),
    "thunks": gcc("-O2", "-mindirect-branch=thunk", "-mfunction-return=thunk"),
    "split-stack": gcc("-O1", "-fsplit-stack", link=("-fsplit-stack", "-fuse-ld=gold")),
    "large": gcc("-O2", "-mcmodel=large", "-fno-pie", link=("-no-pie",)),
    "packed": gcc("-O2", "-falign-functions=1"),
    "hot-cold": clang("-O2", "-mllvm", "-hot-cold-split=true"),
    "asan": gcc("-O1", "-fsanitize=address", link=("-fsanitize=address",)),
}  # fmt: skip
HOOKED = ("fentry", "hooks-gcc", "hooks-clang")
TURNS = [(who, name) for number, name in enumerate(VARIANTS)
         for who in accounts()[number % len(accounts()):][:1]]  # fmt: skip


def program_at(name: str, *, stripped: bool = False) -> Path:
    """The program of LEVELS of that name."""
    need_tool(LEVELS[name].compiler)
    return program_of(list(LEVELS).index(name), COUNT, LEVELS[name], stripped=stripped)


def variant(name: str) -> Path:
    """The program of VARIANTS of that name."""
    how = VARIANTS[name]
    need_tool(how.compiler)
    for linker in ("lld", "gold"):
        if f"-fuse-ld={linker}" in how.link:
            need_tool(f"ld.{linker}")
    if "-fxray-instrument" in how.link:
        runtime = run(how.compiler, "-print-file-name=libclang_rt.xray-x86_64.a").strip()
        if not Path(runtime).exists():
            missing("XRay's runtime (the package libclang-rt-dev)")
    return program_of(len(LEVELS) + list(VARIANTS).index(name), COUNT_OF_VARIANT, how)


@pytest.mark.parametrize(("account", "name"), TURNS, ids=lambda part: getattr(part, "name", part))
def test_each_way_of_building(account: Account, name: str) -> None:
    program = variant(name)
    with folder(account) as place:  # for what -pg writes at its end
        calls, seen = outcome_of(program, account, GMON_OUT_PREFIX=str(place / "gmon"))
    refused = check(program, calls, seen)
    assert refused_too_much(refused, VARIANTS[name]) == {}
    untraced = [names for names, at in families_of(program) if at & seen.refused.keys()]
    unseen = sum(calls[name] for names in untraced for name in names)
    assert calls["hooked"] == (seen.counts.total() + unseen if name in HOOKED else 0)


@pytest.mark.parametrize("name", ["gcc-O2-pie", "clang-O2-fixed"])
def test_a_stripped_program(account: Account, name: str) -> None:
    calls, seen = outcome_of(program_at(name, stripped=True), account, "*")
    refused = check(program_at(name), calls, seen)
    assert sum(refused.values()) < COUNT / 10


# In assembly, inline or not, loops may begin within the five bytes and be entered again from behind

ROUNDS = r"""
#include <stdio.h>
#define FUNCTION(name, body) __asm__(".p2align 4\n.globl " #name "\n.type " #name ", @function\n" \
    #name ":" body "\nret\n.size " #name ", .-" #name "\n.p2align 5\n")
FUNCTION(f_two, "xor %eax, %eax\n1: loop 1b\nadd $5, %rcx\ninc %eax\ncmp $3, %eax\njne 1b");
FUNCTION(f_skip, "jrcxz 1f\ncld\n1: add $7, %rax\ndec %rcx\njg 1b");
static long call(const char *name, long n)
{
    long sum = 0;
    if (*name == 't')
        __asm__ volatile("call f_two" : "+a"(sum), "+c"(n) : : "memory", "cc");
    else
        __asm__ volatile("call f_skip" : "+a"(sum), "+c"(n) : : "memory", "cc");
    return sum;
}
int main(void)
{
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin))
        printf("%ld %ld\n", call("two", 3), call("skip", 4));
    return 0;
}
"""


def test_a_loop_within_the_bytes_that_is_entered_from_behind(account: Account) -> None:
    with folder(account) as place:
        path = compile_c(place, ROUNDS, "-O1", "-mno-red-zone")
        at = addresses(path)
        with fed(path, account=account) as program:
            untraced = program.ask("untraced")
            before = program.quiet()

            def controller() -> tuple[set[str], Seen]:
                with attach(program.pid, tracing.SMALL) as session:
                    ops = session.register(tracing.counting("f_*"))
                    said = {program.ask("traced") for _ in range(5)}
                    program.quiet()
                    return said, seen_by(session, ops, path)

            said, seen = account.run(controller)
            found = diff(before, program.quiet())
    assert {untraced} == said == {"3 28"}
    assert seen.counts == {at["f_two"]: 5, at["f_skip"]: 5}  # by two bytes and a hole
    assert found == []


# XRay, which patches its sleds in the same way as we do


def test_functions_that_xray_has_patched_are_refused(account: Account) -> None:
    program = variant("xray")
    with start(program, "xray=1", account=account, hold=True) as target:
        before, earlier = snapshot(target.pid), target.counters()

        def controller() -> str:
            with attach(target.pid, tracing.SMALL) as session:
                with pytest.raises(SymbolNotFound) as refusal:
                    session.register(tracing.counting(f"{program.name}!*f_*"))
                target.go()
                target.await_calls("rounds", 16)
                return str(refusal.value)

        told = account.run(controller)
        calls = target.hold() - earlier
        found = diff(before, snapshot(target.pid))
        end = target.stop()
    assert Reason.FOREIGN.text in told
    assert 0 < calls["hooked"] == sum(n for name, n in calls.items() if name.startswith("f_"))
    assert found == []
    assert end.is_well, end.err


# C++ and Rust


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3"])
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_exceptions_of_all_kinds_pass(account: Account, compiler: str, level: str) -> None:
    program = build("unwinds.cpp", compiler=need_tool(compiler), flags=(level,))
    calls, seen = outcome_of(program, account)
    assert check(program, calls, seen) == {}
    assert min(n for name, n in calls.items() if name.startswith("f_")) > 0


def rust(level: int) -> Path:
    """The program shapes.rs, where there is a compiler."""
    if shutil.which("rustc") is None:
        pytest.skip("no rustc on this machine; this test is not needed where there is none")
    source = HERE / "programs" / "shapes.rs"
    output = target_directory() / f"shapes-{level}-{source.stat().st_mtime_ns:x}"
    with building(output) as unfinished:
        if unfinished is not None:
            options = ["--edition=2021", "-Ccodegen-units=1", f"-Copt-level={level}"]
            run_compiler(["rustc", *options, f"-o{unfinished}", str(source)])
    return output


@pytest.mark.parametrize("level", [0, 3])
def test_shapes_of_rust(account: Account, level: int) -> None:
    path = rust(level)
    with fed(path, account=account) as program:
        untraced = answer(program.ask("untraced"))
        before = program.quiet()

        def controller() -> tuple[list[tuple[str, Counter[str]]], Seen]:
            with attach(program.pid, BIG) as session:
                ops = session.register(tracing.counting(f"{path.name}!*f_*"))
                session.register(tracing.recording(f"{path.name}!*f_*"))
                said = [answer(program.ask("traced")) for _ in range(5)]
                program.quiet()
                return said, seen_by(session, ops, path)

        said, seen = account.run(controller)
        found = diff(before, program.quiet())
        again = answer(program.ask("once more"))
    assert {text for text, _ in (untraced, *said, again)} == {untraced[0]}
    calls = said[-1][1] - untraced[1]
    assert check(path, calls, seen) == {}
    assert len(calls) == 14
    assert found == []


def answer(line: str) -> tuple[str, Counter[str]]:
    """What a round answered, and the calls of each function up to then."""
    result, *counts = line.split()
    pairs = (word.split("=") for word in counts)
    return result, Counter({name: int(calls) for name, calls in pairs})


# What the programs are worth


def test_generated_programs_have_the_shapes_that_are_hard() -> None:
    names = run("nm", str(program_at("gcc-O2-pie")))
    code = run("objdump", "-d", "--no-show-raw-insn", str(program_at("gcc-O2-pie")))
    assert len(set(re.findall(r" f_\d+", names))) > COUNT * 0.9
    for clone in ("cold", "constprop", "resolver"):
        assert re.search(rf" f_\d+\.{clone}", names), clone
    entries = "\n".join(re.findall(r"<f_\d+[^>]*>:\n.*\n.*", code))
    firsts = "call", "test", "jmp", "lea .*rip", "mov .*%fs", "and ", "sub .*rsp", "lea .*rsp"
    assert [first for first in firsts if not re.search(first, entries)] == []
    assert len(re.findall(r"jmp +\*%", code)) > 5
