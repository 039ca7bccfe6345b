"""Input that cannot work: one line of what, one of cause and remedy, an exit code by kind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.build import BuildFailed, build
from tests.support.cli import compile_c, end, fentry, folder_of
from tests.support.machine import missing
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, Completed

from fentry.cli.__main__ import __file__ as main_module

WORDS = ["record", "stat", "list", "status", "detach"]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A new folder of the account (if there is one): everything runs there."""
    named = "account" in request.fixturenames
    account = request.getfixturevalue("account") if named else Account("current", os.getuid())
    with folder_of(account) as path:
        path.chmod(0o755 if named else 0o777)
        monkeypatch.chdir(path)
        yield path


@pytest.fixture
def target(account: Account) -> Iterator[Target]:
    with start(build("hot.c"), "threads=1", "pause_us=500", account=account) as running:
        yield running


def refused(done: Completed, code: int, what: str, rest: str = "") -> None:
    """One line of what failed, at most one of cause and remedy, and the exit code."""
    lines = done.err.splitlines()
    assert done.code == code, done.err
    assert done.out == ""
    assert lines[0].startswith(f"fentry: {what}"), done.err
    assert len(lines) <= 2
    assert rest in "".join(lines[1:]), done.err


@pytest.mark.parametrize("word", WORDS)
def test_no_such_process(account: Account, word: str) -> None:
    refused(fentry(account, word, "-p", 4194303), 4, "no process 4194303", "pgrep")


@pytest.mark.parametrize("word", WORDS)
def test_a_pid_that_cannot_be_one(account: Account, word: str) -> None:
    refused(fentry(account, word, "-p", -5), 2, "-5 is no process id")
    refused(fentry(account, word, "-p", 0), 2, "0 is no process id")


def test_a_pid_that_is_no_number(account: Account) -> None:
    done = fentry(account, "record", "-p", "abc")
    assert done.code == 2
    assert "'abc' is not a valid integer" in done.err


def test_the_own_process(account: Account) -> None:
    def run() -> Completed:
        from tests.support.unprivileged import _captured_main

        from fentry.cli.__main__ import main

        return _captured_main(main, ["fentry", "stat", "-p", str(os.getpid())])

    refused(account.run(run), 2, "fentry cannot attach to itself")


def test_a_thread_of_a_process(account: Account, target: Target) -> None:
    tid = max(set(target.tids()) - {target.pid})
    refused(
        fentry(account, "record", "-p", tid),
        2, f"{tid} is a thread of process {target.pid}", f"-p {target.pid}",
    )  # fmt: skip


def test_a_kernel_thread(account: Account) -> None:
    if not Path("/proc/2/comm").read_text().startswith("kthreadd"):
        missing("a view of kernel threads (a container has none)")
    done = fentry(account, "record", "-p", 2)
    assert done.code == 3
    assert len(done.err.splitlines()) == 2


@pytest.mark.parametrize("word", ["record", "stat", "detach"])
def test_a_zombie(account: Account, word: str) -> None:
    with subprocess.Popen(["true"], user=account.uid, stdout=subprocess.DEVNULL) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        refused(fentry(account, word, "-p", process.pid), 4,
                f"process {process.pid} (true) is a zombie", "it has exited")  # fmt: skip


def test_a_32_bit_program(account: Account, folder: Path) -> None:
    try:
        program = compile_c(
            folder,
            'void _start(void) { for (;;) __asm__ volatile("int $0x80" :: "a"(29)); }',
            "-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie",
        )  # fmt: skip
    except BuildFailed:
        missing("a compiler for 32-bit programs")
    with start(program, account=account, control=False) as target:
        target.await_condition(
            lambda: str(program) in Path(f"/proc/{target.pid}/maps").read_text(), "running"
        )
        before = snapshot(target.pid)
        done = fentry(account, "record", "-p", target.pid)
        refused(done, 3, f"cannot attach to {target.pid} (program): not a 64-bit x86 program")
        assert diff(before, snapshot(target.pid)) == []
        end(target.process)
    done = fentry(account, "record", "-o", folder / "t", "--", program)
    assert done.code == 3


def test_another_users_process() -> None:
    if os.getuid():
        missing("root, to start a process of another user")
    stranger = Account("unprivileged", 64532)
    with start("/bin/sleep", "30", control=False) as target:
        target.await_condition(
            lambda: "libc.so" in Path(f"/proc/{target.pid}/maps").read_text(), "loaded"
        )
        for word in ("record", "stat", "list"):
            refused(
                fentry(stranger, word, "-p", target.pid),
                3, f"cannot attach to {target.pid} (sleep, uid 0)",
                "it belongs to another user (uid 0) and we have no CAP_SYS_PTRACE",
            )  # fmt: skip


def test_a_process_that_is_not_dumpable(account: Account, folder: Path) -> None:
    program = compile_c(
        folder,
        "#include <sys/prctl.h>\n#include <unistd.h>\n"
        'int main(void) { prctl(PR_SET_DUMPABLE, 0); write(1, "go", 2); for (;;) pause(); }',
    )
    with start(program, account=account, control=False) as target:
        target.await_condition(lambda: target.out == "go", "not dumpable")
        done = fentry(account, "stat", "-p", target.pid, "-F", "main", "-d", "10ms")
        if account.uid == 0:
            assert done.code == 0, done.err  # CAP_SYS_PTRACE
        else:
            refused(done, 3, f"cannot attach to {target.pid}", "it is not dumpable")
        end(target.process)


@pytest.mark.parametrize(
    ("pattern", "code", "what"),
    [
        ("f_plian", 5, "no function matches 'f_plian'"),
        ("f_loop_at_one", 5, "none of the 1 functions that match can be traced"),
        ("nosuchmodule!f_plain", 5, "no function matches 'nosuchmodule!f_plain'"),
        ("libc!", 2, "malformed pattern"),
        ("!", 2, "malformed pattern"),
        ("re:f_(", 2, "malformed pattern"),
        ("f_[abc", 2, "malformed pattern"),
    ],
)
def test_patterns_that_choose_nothing(
    account: Account, target: Target, folder: Path, pattern: str, code: int, what: str
) -> None:
    before = snapshot(target.pid)
    for words in (["record", "-o", folder / "t"], ["stat"]):
        done = fentry(account, *words, "-p", target.pid, "-F", pattern)
        assert done.code == code, done.err
        assert done.err.startswith(f"fentry: {what}")
        assert "try: " in done.err
        assert not (folder / "t").exists()
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()


def test_a_misspelt_name_gets_near_names(account: Account, target: Target) -> None:
    done = fentry(account, "stat", "-p", target.pid, "-F", "f_plian")
    assert "f_plain" in done.err.splitlines()[1]


def test_a_malformed_pattern_gets_a_caret(account: Account, target: Target) -> None:
    done = fentry(account, "stat", "-p", target.pid, "-F", "f_[abc")
    assert done.err.splitlines()[:3] == ["fentry: malformed pattern", "    f_[abc", "      ^"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["-d", "-1"], "'-1' is no time"),
        (["-d", "0"], "'0' is no time"),
        (["-d", "nan"], "'nan' is no time"),
        (["-d", "1e999"], "'1e999' is no time"),
        (["-d", "100000000m"], "'100000000m' is no time"),
        (["-d", "5 parsecs"], "'5 parsecs' is no time"),
        (["-m", "0"], "'0' is no size"),
        (["-m", "-4M"], "'-4M' is no size"),
        (["-m", "4X"], "'4X' is no size"),
        (["-m", "1"], "a buffer of 1 bytes a CPU is not possible"),
        (["-m", "8E20G"], "a buffer of 8"),
        (["-m", "60G"], "a ring of "),
        (["--max-stop", "-1s"], "'-1s' is no time"),
    ],
)
def test_sizes_and_times_that_make_no_sense(
    account: Account, target: Target, folder: Path, options: list[str], what: str
) -> None:
    before = snapshot(target.pid)
    done = fentry(account, "record", "-p", target.pid, "-F", "f_*", "-o", folder / "t", *options)
    refused(done, 2, what)
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()


@pytest.mark.parametrize("word", ["record", "stat"])
def test_a_process_and_a_command_or_neither(account: Account, word: str) -> None:
    refused(fentry(account, word), 2, f"say what to {word}", "neither was given")
    refused(fentry(account, word, "-p", 1, "--", "true"), 2, f"say what to {word}", "both were")


def test_outputs_that_cannot_be_written(account: Account, target: Target, folder: Path) -> None:
    before = snapshot(target.pid)
    text = folder / "notes"
    text.write_text("not a trace")
    text.chmod(0o666)
    for output, cause in (
        (folder / "absent" / "t", "does not exist"),
        (folder, "it is a folder"),
        (text, "it exists and is not a fentry trace"),
        ("/dev/full", "the disk is full"),
        ("/proc/version", "it exists and is not a fentry trace" if account.uid == 0 else "no perm"),
    ):
        done = fentry(account, "record", "-p", target.pid, "-F", "f_*", "-o", output)
        refused(done, 10, "cannot write", cause)
    assert text.read_text() == "not a trace"
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()


def test_a_folder_one_may_not_write_to(account: Account, target: Target) -> None:
    if account.uid == 0:
        return  # root may write anywhere
    done = fentry(account, "record", "-p", target.pid, "-o", "/etc/trace.fentry")
    refused(done, 10, "cannot write /etc/trace.fentry", "no permission to write there")


def test_a_trace_is_replaced_by_the_next(account: Account, target: Target, folder: Path) -> None:
    for _ in range(2):
        done = fentry(account, "record", "-p", target.pid, "-F", "f_*", "-d", "10ms",
                      "-o", folder / "t")  # fmt: skip
        assert done.code == 0, done.err


@pytest.mark.parametrize("content", [b"", b"no trace at all", bytes(5000)])
def test_files_that_are_no_trace(account: Account, folder: Path, content: bytes) -> None:
    (folder / "t").write_bytes(content)
    (folder / "t").chmod(0o644)
    refused(fentry(account, "report", "-i", folder / "t"), 10, "cannot read ")
    refused(fentry(account, "report", "-i", folder / "absent"), 10, "cannot read ", "no such file")


def test_a_cut_trace_is_shown_as_far_as_it_is_whole(
    account: Account, target: Target, folder: Path
) -> None:
    trace = folder / "t"
    fentry(account, "record", "-p", target.pid, "-F", "f_*", "-d", "50ms", "-o", trace)
    whole = trace.read_bytes()
    trace.write_bytes(whole[:-10])
    done = fentry(account, "report", "-i", trace)
    assert done.code == 0
    assert "what is whole was read" in done.err
    assert "f_plain" in done.out


def test_listing_what_is_no_program(account: Account, folder: Path) -> None:
    (folder / "x").write_text("text")
    (folder / "x").chmod(0o644)
    refused(fentry(account, "list"), 2, "say which functions")
    refused(fentry(account, "list", folder / "absent"), 2, "no such file")
    refused(fentry(account, "list", folder / "x"), 2, "x is not an ELF file")


@pytest.mark.parametrize("moment", ["fentry-registry", "fentry-ring", None])
def test_a_target_killed_while_it_is_attached_to_or_recorded(
    account: Account, target: Target, folder: Path, moment: str | None
) -> None:
    maps = Path(f"/proc/{target.pid}/maps")

    def kill_at_moment() -> None:
        while moment and moment not in maps.read_text():
            os.sched_yield()
        if not moment:
            while not (folder / "t").exists() or (folder / "t").stat().st_size < 10_000:
                select.select([], [], [], 0.001)
        os.kill(target.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_at_moment)
    killer.start()
    done = fentry(account, "record", "-p", target.pid, "-F", "f_*", "-o", folder / "t")
    killer.join()
    if done.code:
        assert done.code == 4, done.err
        assert done.err.startswith("fentry: ")
        assert "Traceback" not in done.err
        return
    assert "; the process ended; next: fentry report" in done.err
    shown = fentry(account, "report", "-i", folder / "t")
    assert shown.code == 0
    assert shown.err.endswith("no damage\n")


def test_closed_standard_streams_do_not_matter(account: Account, target: Target) -> None:
    if not account.can_execute(sys.executable):
        missing("an interpreter that this user can execute")
    for closing in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        command = f"exec {sys.executable} -m fentry.cli.__main__ status -p {target.pid} {closing}"
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            user=account.uid,
            group=account.uid,
            extra_groups=[],
            env={**os.environ, "PYTHONPATH": str(Path(main_module).parents[2])},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
