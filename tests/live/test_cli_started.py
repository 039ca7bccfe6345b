"""`fentry record -- CMD` and `stat -- CMD`: from the first call to the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import compile_c, end, fentry, folder_of
from tests.support.machine import need_tool
from tests.support.process import start
from tests.support.unprivileged import Account, Completed

from fentry.process.proc import is_dead

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <unistd.h>
static volatile int sink;
#define TRACED __attribute__((noipa, patchable_function_entry(5)))
TRACED int f_early(int x) { return x * 3 + 1; }
TRACED int f_main(int x) { return x * 5 + 1; }
__attribute__((constructor)) static void begin(void)
{
    for (int i = 0; i < 3; i++)
        sink += f_early(i);
}
int main(int argc, char **argv)
{
    char line[64] = "";
    for (int i = 0; i < 40; i++)
        sink += f_main(i);
    if (argc > 1 && !strcmp(argv[1], "signal"))
        kill(getpid(), atoi(argv[2]));
    if (argc > 1 && !strcmp(argv[1], "echo") && fgets(line, sizeof line, stdin))
        fputs(line, stdout);
    return argc > 2 ? atoi(argv[2]) : 0;
}
"""

PAUSES = r"""
#include <unistd.h>
__attribute__((noipa, patchable_function_entry(5))) void f_wait(void) { pause(); }
int main(void) { for (;;) f_wait(); }
"""

BUILDS = {
    "dynamic": ("gcc", ()),
    "static": ("gcc", ("-static",)),
    "static-pie": ("gcc", ("-static-pie",)),
    "musl": ("musl-gcc", ()),
    "musl-static": ("musl-gcc", ("-static",)),
}


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


def record(account: Account, folder: Path, *words: object) -> Completed:
    return fentry(account, "record", "-o", folder / "t", "-F", "f_*", *words)


def counts(account: Account, folder: Path) -> dict[str, int]:
    shown = fentry(account, "report", "-i", folder / "t", "--counts", "--json")
    return {row["function"]: row["calls"] for row in json.loads(shown.out)}


@pytest.mark.parametrize("kind", BUILDS)
def test_a_command_is_traced_from_before_its_constructors(
    account: Account, folder: Path, kind: str
) -> None:
    compiler, flags = BUILDS[kind]
    program = compile_c(folder, PROGRAM, *flags, compiler=need_tool(compiler))
    done = record(account, folder, "--", program, "code", "23")
    assert done.code == 23, done.err
    assert counts(account, folder) == {"f_early": 3, "f_main": 40}
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("43 events, 0 dropped; 2 functions traced, 0 refused; ")
    counted = fentry(account, "stat", "-F", "f_*", "--json", "--", program, "code", "5")
    assert counted.code == 5
    assert {row["function"]: row["calls"] for row in json.loads(counted.out)} == {
        "f_early": 3,
        "f_main": 40,
    }


def test_what_is_advised_after_the_end_works_without_the_process(
    account: Account, folder: Path
) -> None:
    program = compile_c(folder, PROGRAM)
    counted = fentry(account, "stat", "-F", "f_*", "--", program)
    assert counted.err.endswith("; the process ended; next: fentry record ... -F GLOB\n")
    refused = fentry(account, "stat", "-F", "_start", "--", program)
    assert refused.code == 5
    assert f"fentry list {program} tells the reason" in refused.err
    listed = fentry(account, "list", program, "_start")
    assert "the entry point of the file" in listed.out


def test_a_file_of_which_no_function_is_known_is_said_to_be_one(
    account: Account, folder: Path
) -> None:
    flags = ("-nostdlib", "-static", "-s", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none")
    program = compile_c(folder, "void _start(void) { for (;;); }", *flags)
    done = fentry(account, "list", program)
    assert done.code == 2
    assert f"no function of {program} is known" in done.err
    assert "neither symbols nor frame descriptions" in done.err


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGPIPE])
def test_death_by_a_signal_is_passed_on_as_a_shell_does(
    account: Account, folder: Path, number: signal.Signals
) -> None:
    program = compile_c(folder, PROGRAM)
    done = record(account, folder, "--", program, "signal", int(number))
    assert done.code == 128 + number
    assert counts(account, folder) == {"f_early": 3, "f_main": 40}


def test_words_behind_the_command_belong_to_it(account: Account, folder: Path) -> None:
    done = fentry(account, "record", "-o", folder / "t", "-F", "libc!*", "/bin/sh", "-c", "exit 3")
    assert done.code == 3, done.err


def test_a_command_keeps_its_own_input_and_output(account: Account, folder: Path) -> None:
    program = compile_c(folder, PROGRAM)

    def run() -> Completed:
        from tests.support.unprivileged import _captured_main

        from fentry.cli.__main__ import main

        reader, writer = os.pipe()
        os.write(writer, b"a line of its own\n")
        os.close(writer)
        os.dup2(reader, 0)
        words = ["fentry", "record", "-o", str(folder / "t"), "-F", "f_*", "--", str(program)]
        return _captured_main(main, [*words, "echo"])

    done = account.run(run)
    assert done.code == 0
    assert done.out == "a line of its own\n"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("/no/such/command", "No such file or directory"),
        ("{folder}/not-executable", "Permission denied"),
        ("{folder}/no-program", "Exec format error"),
        ("/", "Permission denied"),
    ],
)
def test_a_command_that_cannot_be_run_is_one_error(
    account: Account, folder: Path, name: str, cause: str
) -> None:
    name = name.format(folder=folder)
    (folder / "not-executable").write_text("x")
    (folder / "no-program").write_text("x")
    (folder / "no-program").chmod(0o755)
    done = record(account, folder, "--", name, "-x")
    assert done.code == 2
    assert done.err.splitlines() == [
        f"fentry: cannot run {name!r}: {cause}",
        "  try: an executable file, or one in PATH",
    ]
    assert not (folder / "t").exists()


def test_a_command_does_not_run_when_nothing_of_it_can_be_traced(
    account: Account, folder: Path
) -> None:
    witness = folder / "it-ran"
    done = fentry(account, "record", "-o", folder / "t", "-F", "no_such_function", "--",
                  "/bin/sh", "-c", f": > {witness}")  # fmt: skip
    assert done.code == 5
    assert not witness.exists()


def test_a_command_does_not_run_when_the_output_cannot_be_written(
    account: Account, folder: Path
) -> None:
    witness = folder / "it-ran"
    done = fentry(account, "record", "-o", "/dev/full", "-F", "libc!m*", "--",
                  "/bin/sh", "-c", f": > {witness}")  # fmt: skip
    assert done.code == 10
    assert not witness.exists()


def test_a_command_runs_on_untraced_when_time_is_up(account: Account, folder: Path) -> None:
    done = fentry(account, "record", "-o", folder / "t", "-F", "libc!*", "-d", "50ms", "--",
                  "/bin/sh", "-c", "sleep 2; exit 4")  # fmt: skip
    assert done.code == 4
    assert "; time is up; next: " in done.err


def test_a_command_that_execs_another_keeps_its_exit_code(account: Account, folder: Path) -> None:
    done = fentry(account, "record", "-o", folder / "t", "-F", "libc!*", "--",
                  "/bin/sh", "-c", "exec /bin/sh -c 'sleep 2; exit 6'")  # fmt: skip
    assert done.code == 6
    assert "replaced itself by exec" in done.err
    assert sum(counts(account, folder).values()) > 20


def test_stat_keeps_what_it_counted_before_an_exec(account: Account) -> None:
    done = fentry(account, "stat", "-F", "libc!*", "--json", "--",
                  "/bin/sh", "-c", "exec /bin/sh -c 'sleep 2; exit 7'")  # fmt: skip
    assert done.code == 7
    assert "replaced itself by exec" in done.err
    assert sum(row["calls"] for row in json.loads(done.out)) > 20


def test_sigterm_is_passed_on_to_the_command(account: Account, folder: Path) -> None:
    program = compile_c(folder, PAUSES)

    def run() -> Completed:
        from tests.support.unprivileged import _captured_main

        from fentry.cli.__main__ import main

        controller = os.getpid()
        sender = os.fork()
        if not sender:
            try:
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline and not _traced_child(controller):
                    time.sleep(0.001)
                os.kill(controller, signal.SIGTERM)
            finally:
                os._exit(0)
        words = ["fentry", "record", "-o", str(folder / "t"), "-F", "f_*", "--", str(program)]
        done = _captured_main(main, words)
        os.waitpid(sender, 0)
        return done

    done = account.run(run)
    assert done.code == 128 + signal.SIGTERM
    assert "; terminated; next: " in done.err


def _traced_child(parent: int) -> bool:
    children = set(Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    children -= {str(os.getpid())}  # who asks may have a ring of an earlier test mapped
    return any("fentry-ring" in Path(f"/proc/{child}/maps").read_text() for child in children)


def test_a_held_command_dies_with_its_controller(account: Account, folder: Path) -> None:
    witness = folder / "it-ran"

    def run() -> int:
        from fentry.process.start import start as start_command

        return start_command(["/bin/sh", "-c", f": > {witness}"])

    pid = account.run(run)  # the controller has ended: so has the command
    deadline = time.monotonic() + 20
    while not is_dead(pid, pid):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not witness.exists()


def test_an_unprivileged_user_is_refused_a_setuid_command(account: Account, folder: Path) -> None:
    if account.uid == 0:
        return  # root traces them: nothing to refuse
    done = fentry(account, "record", "-o", folder / "t", "--", "su", "--help")
    assert done.code == 3
    assert "is setuid, setgid, or has capabilities" in done.err


def test_help_starts_without_the_assembler_and_numpy() -> None:
    code = (
        "import sys, fentry.cli.__main__ as m\n"
        "sys.argv = ['fentry', '--help']\n"
        "try:\n    m.main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'iced_x86', 'elftools')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "record" in done.stdout


def test_a_process_that_was_recorded_is_not_left_stopped(account: Account, folder: Path) -> None:
    with start("/bin/sleep", "30", account=account, control=False) as target:
        call = Path(f"/proc/{target.pid}/syscall")
        target.await_condition(lambda: call.read_text().startswith("230 "), "in clock_nanosleep")
        done = fentry(account, "record", "-p", target.pid, "-F", "libc!*", "-d", "20ms",
                      "-o", folder / "t")  # fmt: skip
        assert done.code == 0, done.err
        stat = Path(f"/proc/{target.pid}/stat")
        target.await_condition(lambda: stat.read_text().split()[2] == "S", "asleep again")
        end(target.process)
