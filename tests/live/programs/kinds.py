"""The kinds of targets of docs/support.md, each at work and ready to be attached to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.live.programs.fed import fed, folder
from tests.support.build import build
from tests.support.cli import fentry
from tests.support.machine import missing, need_tool
from tests.support.namespaces import fentry_inside
from tests.support.process import Target, start
from tests.support.tracers import traced_by
from tests.support.unprivileged import UNPRIVILEGED_UID, Account, Completed

from fentry.process.proc import children_of, is_dead, list_tids

Run = Callable[..., Completed]
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


@dataclass(frozen=True, slots=True)
class Subject:
    """A target: `words` choose functions of it, `is_busy` whether those are called all the time.

    `run(*words)` is the command line as whoever traces it runs it, who knows the target as process
    `pid`; `tid` is a thread of it as it is known here, alive. `moves` says that it maps memory and
    makes threads by itself.
    """

    pid: int
    tid: int
    words: tuple[str, ...]
    run: Run
    is_busy: bool = True
    moves: bool = False


Kind = Callable[[Account], AbstractContextManager[Subject]]


def subject(account: Account, pid: int, *words: str, **more: bool) -> Subject:
    """A target that `account` looks at from here."""
    living = [tid for tid in list_tids(pid) if not is_dead(pid, tid)]
    return Subject(pid, living[0], words or ("f_*",), partial(fentry, account), **more)


# Programs


def bed(source: str = "hot.c", words: str = "f_*", **options: object) -> Kind:
    """A program of tests/targets, built with some options."""

    @contextmanager
    def kind(account: Account) -> Iterator[Subject]:
        program = build(source, **options)  # type: ignore[arg-type]  # those of build()
        with start(program, "threads=2", "pause_us=200", account=account) as target:
            if target.counters()["skip"]:
                missing("what the program needs of the kernel")
            yield subject(account, target.pid, words)

    return kind


def musl(account: Account) -> AbstractContextManager[Subject]:
    """One with another C library."""
    return bed(compiler=need_tool("musl-gcc"))(account)


def stripped(account: Account) -> AbstractContextManager[Subject]:
    """One without symbols: its functions are known by their frames."""
    return bed(words="hot*!*", stripped=True)(account)


@contextmanager
def narrow(account: Account) -> Iterator[Subject]:
    """A 32-bit program."""
    program = build("narrow.S")
    with start(program, account=account, control=False) as target:
        await_program(target, program)
        yield subject(account, target.pid, "*")


@contextmanager
def deleted(account: Account) -> Iterator[Subject]:
    """One whose file is gone."""
    with folder(account) as place:
        program = place / "program"
        shutil.copy(build("hot.c"), program)
        with start(program, "threads=2", "pause_us=200", account=account) as target:
            program.unlink()
            yield subject(account, target.pid)


@contextmanager
def setuid(account: Account) -> Iterator[Subject]:
    """A setuid program of root, which a user without privileges runs."""
    if os.getuid():
        missing("root, to make a setuid program")
    runner = Account("unprivileged", UNPRIVILEGED_UID)
    with folder(runner) as place:
        program = place / "program"
        shutil.copy(build("hot.c"), program)
        program.chmod(0o4755)
        with start(program, "threads=2", "pause_us=200", account=runner) as target:
            yield subject(account, target.pid)


@contextmanager
def of_another_user(account: Account) -> Iterator[Subject]:
    """One that a user runs who is not the one that traces."""
    if os.getuid():
        missing("root, to start a process of another user")
    stranger = Account("stranger", UNPRIVILEGED_UID + 1)
    with start(build("hot.c"), "threads=2", "pause_us=200", account=stranger) as target:
        yield subject(account, target.pid)


# Languages


@contextmanager
def go(account: Account) -> Iterator[Subject]:
    """A Go program that waits for input; C functions are in it as well."""
    with fed(need_tool("fzf"), "--filter=x", account=account, first="") as program:
        await_program(program.target, Path(need_tool("fzf")))
        yield subject(account, program.pid, "libc!*read*", is_busy=False, moves=True)


@contextmanager
def rust(account: Account) -> Iterator[Subject]:
    """A Rust program that reads bytes."""
    with fed(need_tool("hexyl"), account=account, first="") as program:
        await_program(program.target, Path(need_tool("hexyl")))
        with program.fed_on("a line"):
            yield subject(account, program.pid, "hexyl!*", moves=True)


@contextmanager
def node(account: Account) -> Iterator[Subject]:
    """JavaScript with a timer."""
    script = "console.log('READY'); setInterval(() => process.stdout.write('.'), 5)"
    with start(need_tool("node"), "-e", script, account=account, control=False) as target:
        target.await_condition(lambda: target.out.startswith("READY"), "started")
        yield subject(account, target.pid, "libc!write", "libc!epoll_wait", moves=True)


@contextmanager
def jvm(account: Account) -> Iterator[Subject]:
    """Java that waits for input, in the tool for keys that every runtime has."""
    if shutil.which("java") is None:
        pytest.skip("no java on this machine; this test is not needed where there is none")
    tool = ("sun.security.tools.keytool.Main", "-genkeypair")
    with fed(need_tool("java"), *tool, account=account, first="") as program:
        program.target.await_condition(lambda: "password" in program.target.err, "started")
        yield subject(account, program.pid, "libc!pthread_cond_*", moves=True)


# Confined


def confined(how: str) -> Kind:
    """A program under what a service manager puts around it."""

    @contextmanager
    def kind(account: Account) -> Iterator[Subject]:
        words = [how, build("hot.c"), "threads=2", "pause_us=200"]
        with start(build("confined.c"), *words, account=account, ready=False) as target:
            try:
                target.await_ready()
            except AssertionError:
                assert "Invalid argument" in target.err, target.story()
                missing(f"a kernel that can do {how}")
            yield subject(account, target.pid)

    return kind


@contextmanager
def contained(account: Account) -> Iterator[Subject]:
    """A program in namespaces of its own, where its file is on a file system of theirs alone."""
    new = "-pfm" if os.getuid() == account.uid == 0 else "-Urpfm"
    script = 'mount -t proc proc /proc && mount -t tmpfs none /mnt && cp "$0" /mnt && exec "$@"'
    program = build("hot.c")
    inner = f"/mnt/{program.name}"
    words = [new, "sh", "-c", script, program, inner, "threads=2", "pause_us=200"]
    with start(need_tool("unshare"), *words, account=account, ready=False) as target:
        try:
            target.await_ready()
        except AssertionError:
            missing("the right to make namespaces")
        (child,) = children_of(target.pid)
        yield subject(account, child)


@contextmanager
def contained_with_us(account: Account) -> Iterator[Subject]:
    """The same, and whoever traces is in there, too."""
    with contained(account) as outside:
        yield Subject(1, outside.tid, outside.words, partial(fentry_inside, account, outside.pid))


# Traced already, or not to be traced


def under(tool: str) -> Kind:
    """A program that another tool is attached to."""

    @contextmanager
    def kind(account: Account) -> Iterator[Subject]:
        with start(build("hot.c"), "threads=2", "pause_us=200", account=account) as target:
            with traced_by(tool, target, account):
                yield subject(account, target.pid)

    return kind


def yama(scope: int) -> Kind:
    """A program while kernel.yama.ptrace_scope is 1 or 2, and it allows no tracer."""

    @contextmanager
    def kind(account: Account) -> Iterator[Subject]:
        if not YAMA.exists() or os.getuid():
            pytest.skip("this kernel has no Yama, or it is not ours to set")
        if os.environ.get("PYTEST_XDIST_WORKER") or int(YAMA.read_text()) > scope:
            pytest.skip("other tests run meanwhile, or the machine is stricter already")
        before = YAMA.read_text()
        try:
            YAMA.write_text(str(scope))
            with confined("alone")(account) as target:
                yield target
        finally:
            YAMA.write_text(before)

    return kind


def await_program(target: Target, program: Path) -> None:
    """Wait until a program that something else executes runs, with its libraries."""
    real = str(program.resolve())

    def runs() -> bool:
        maps = Path(f"/proc/{target.pid}/maps").read_text()
        waits = Path(f"/proc/{target.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return real in maps and waits == "S"

    target.await_condition(runs, "running")


KINDS: dict[str, Kind] = {
    "dynamic": bed(),
    "static": bed(static=True),
    "static-pie": bed(flags=["-static-pie"]),
    "musl": musl,
    "stripped": stripped,
    "file deleted": deleted,
    "code sealed (mseal)": bed("sealed.c"),
    "main thread ended": bed("zombie_leader.c"),
    "Rust": rust,
    "Go": go,
    "node": node,
    "JVM": jvm,
    "container, from outside": contained,
    "container, from inside": contained_with_us,
    "`PR_SET_MDWE`": confined("mdwe"),
    "`MemoryDenyWriteExecute=`": confined("memory"),
    "`SystemCallFilter=`": confined("calls"),
    "setuid": setuid,
    "of another user": of_another_user,
    "under gdb": under("gdb"),
    "under strace": under("strace"),
    "32-bit": narrow,
    "Yama 1": yama(1),
    "Yama 2": yama(2),
}
