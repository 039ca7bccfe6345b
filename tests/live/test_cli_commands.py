"""Each word of the command line on a live process: what it prints, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import fentry, fentry_with_signals, folder_of
from tests.support.compiled import assemble
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.session import attach


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


@pytest.fixture
def target(account: Account) -> Iterator[Target]:
    with start(build("hot.c"), "threads=2", "pause_us=200", account=account) as running:
        yield running


def counts_of(account: Account, trace: Path) -> dict[str, int]:
    shown = fentry(account, "report", "-i", trace, "--counts", "--json")
    assert shown.code == 0, shown.err
    return {row["function"]: row["calls"] for row in json.loads(shown.out)}


def test_record_ends_after_its_time_and_leaves_nothing(
    account: Account, folder: Path, target: Target
) -> None:
    before = snapshot(target.pid)
    done = fentry(account, "record", "-p", target.pid, "-F", "f_*", "-d", "100ms",
                  "-o", folder / "t")  # fmt: skip
    assert done.code == 0
    assert done.out == ""
    line = done.err.splitlines()
    assert len(line) == 1
    assert " events, 0 dropped; 21 functions traced, 1 refused; stopped " in line[0]
    assert line[0].endswith(f"; time is up; next: fentry report -i {folder}/t")
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert counts_of(account, folder / "t")["f_plain"] > 10
    assert target.stop().is_well


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", ["memfd:fentry-registry", "memfd:fentry-ring"])
def test_record_restores_the_target_when_interrupted_twice(
    account: Account, folder: Path, target: Target, number: int, after: str
) -> None:
    before = snapshot(target.pid)
    done = fentry_with_signals(
        account, target.pid, [number, number],
        "record", "-p", target.pid, "-F", "f_*", "-o", folder / "t", after=after,
    )  # fmt: skip
    why = "interrupted" if number == signal.SIGINT else "terminated"
    assert done.code == 0, done.err
    assert f"; {why}; next: fentry report" in done.err
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    shown = fentry(account, "report", "-i", folder / "t")
    assert shown.code == 0
    assert shown.err.endswith("no damage\n")
    target.go()
    assert target.stop().is_well


def test_stat_prints_its_counts_when_interrupted(account: Account, target: Target) -> None:
    before = snapshot(target.pid)
    done = fentry_with_signals(
        account, target.pid, [signal.SIGINT, signal.SIGINT],
        "stat", "-p", target.pid, "-F", "f_*", "--all", "--json", after="memfd:fentry-counters",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert {row["function"] for row in json.loads(done.out)} >= {"f_plain", "f_nop5"}
    assert "; interrupted; next: fentry " in done.err
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well


def test_status_shows_ops_and_sites_and_detach_removes_them(
    account: Account, target: Target
) -> None:
    before = snapshot(target.pid)

    def leave_traced() -> None:
        session = attach(target.pid, tracing.SMALL)
        session.register(tracing.recording("f_plain", "f_nop5"))
        os._exit(0)  # as a controller that was killed: nothing is restored

    child = os.fork()
    if not child:
        try:
            account.become()
            leave_traced()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    shown = fentry(account, "status", "-p", target.pid, "--sites")
    machine = json.loads(fentry(account, "status", "-p", target.pid, "--json").out)
    restored = fentry(account, "detach", "-p", target.pid)
    again = fentry(account, "detach", "-p", target.pid)
    after = fentry(account, "status", "-p", target.pid)
    assert shown.code == 0
    assert "record" in shown.out
    assert "f_plain" in shown.out and "f_nop5" in shown.out and "f_lea" not in shown.out
    assert machine["sites"] == 2
    assert restored.out == f"{target.pid}: 2 sites restored\n"
    assert again.out == f"{target.pid}: nothing of fentry is there\n"
    assert after.out == f"{target.pid}: not traced\n"
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well


def test_record_ends_when_another_controller_detaches(
    account: Account, folder: Path, target: Target
) -> None:
    def detach_when_traced() -> int:
        sender = os.fork()
        if not sender:
            try:
                while not (folder / "t").exists() or (folder / "t").stat().st_size < 10_000:
                    select.select([], [], [], 0.001)
                tracing.detach_as_command(target.pid)
            finally:
                os._exit(0)
        return sender

    def run() -> tuple[int, str]:
        from tests.support.unprivileged import _captured_main

        from fentry.cli.__main__ import main

        sender = detach_when_traced()
        words = ["fentry", "record", "-p", str(target.pid), "-F", "f_*", "-o", str(folder / "t")]
        done = _captured_main(main, words)
        os.waitpid(sender, 0)
        return done.code, done.err

    before = snapshot(target.pid)
    code, err = account.run(run)
    assert code == 0, err
    assert "; another controller detached it; next: " in err
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well


def test_list_counts_every_function_once(account: Account, target: Target) -> None:
    done = fentry(account, "list", "-p", target.pid, "f_*")
    rows = dict(
        (line.partition("\t")[0].partition("!")[2], line.partition("\t")[2])
        for line in done.out.splitlines()
    )
    assert done.code == 0
    assert rows["f_plain"] == ""
    assert re.fullmatch(r"a branch jumps between .* \(0x[0-9a-f]+\)", rows["f_loop_at_one"])
    assert len(rows) == 22
    assert "21 traceable + 1 refused = 22" in done.err


WORDS = {
    "a regular expression": (("re:^f_(plain|n.p5)$",), {"f_plain", "f_nop5"}),
    "one less": (("f_*nop5", "!f_endbr*"), {"f_nop5"}),
    "in their order": (("f_nop5", "!f_*", "f_lea"), {"f_lea"}),
    "all but": (("!re:^(?!f_tiny$)",), {"f_tiny"}),
}


@pytest.mark.parametrize("kind", WORDS)
def test_filters_take_words_as_of_set_ftrace_filter(
    account: Account, target: Target, kind: str
) -> None:
    words, expected = WORDS[kind]
    options = [part for word in words for part in ("-F", word)]
    done = fentry(account, "stat", "-p", target.pid, *options, "-d", "300ms", "--all", "--json")
    assert done.code == 0, done.err
    assert {row["function"] for row in json.loads(done.out)} == expected
    listed = fentry(account, "list", "-p", target.pid, *words, "--json")
    assert {json.loads(line)["name"] for line in listed.out.splitlines()} == expected


def test_a_function_is_chosen_by_its_index_or_address(account: Account, target: Target) -> None:
    listed = fentry(account, "list", "-p", target.pid, "f_lea", "--json")
    lea = json.loads(listed.out)
    shown = fentry(account, "list", "-p", target.pid, "f_lea", "--index")
    assert shown.out.split()[0] == str(lea["index"])
    for word in (str(lea["index"]), hex(lea["ip"])):
        stat = ("stat", "-p", target.pid, "-d", "300ms", "--all", "--json")
        done = fentry(account, *stat, "-F", word)
        assert [row["function"] for row in json.loads(done.out)] == ["f_lea"], done.err
        less = fentry(account, *stat, "-F", "f_lea,f_nop5", "-F", f"!{word}")
        assert [row["function"] for row in json.loads(less.out)] == ["f_nop5"], less.err
    refused = fentry(account, "stat", "-p", target.pid, "-F", "999999999")
    assert (refused.code, "no function matches '999999999'" in refused.err) == (5, True)


def test_list_of_a_file_needs_no_process(account: Account) -> None:
    done = fentry(account, "list", build("hot.c"), "f_plain", "--json")
    assert done.code == 0
    assert [json.loads(line)["traceable"] for line in done.out.splitlines()] == [True]


def test_list_says_how_much_code_it_knows_no_function_of(account: Account, folder: Path) -> None:
    for size, said in ((5000, True), (10, False)):
        function = ".globl f\n.type f, @function\nf: mov %rdi, %rax; nop; ret\n.size f, . - f\n"
        source = f".text\n{function}.fill {size}, 1, 0x90\n"
        program = assemble(folder, source, name=f"{size}.so")
        done = fentry(account, "list", program)
        assert "1 traceable + 0 refused = 1" in done.err
        assert (f"{size}.so: 5,000 of 5,005 bytes of code are of no function" in done.err) is said


def test_list_says_which_are_parts_and_counts_them(account: Account) -> None:
    program = build("parts.cpp")
    done = fentry(account, "list", program, "f_*", "part:f_*", "--json")
    listed = {one["name"]: one for one in map(json.loads, done.out.splitlines())}
    assert [one["kind"] for _, one in sorted(listed.items())] == ["function", "part"] * 5
    assert all(one["traceable"] for one in listed.values())
    assert (
        "10 traceable + 0 refused = 10\n  of these 5 traceable + 0 refused = 5 are parts"
        in done.err
    )
    words = fentry(account, "list", program, "part:f_leaf").out.split()
    assert words == [f"part:{program.name}!f_leaf.cold"]
    again = fentry(account, "list", program, *words, "!main")  # a line is a word
    assert (again.out.split(), "1 traceable + 0 refused = 1" in again.err) == (words, True)
    every = fentry(account, "list", program)
    assert {f"{program.name}!f_leaf", *words} <= set(every.out.split())
    plain = fentry(account, "list", program, "f_leaf*")
    assert plain.out.split() == [f"{program.name}!f_leaf"]
    assert plain.err == "1 traceable + 0 refused = 1\n"


def test_doctor_looks_without_stopping(account: Account, target: Target) -> None:
    before = snapshot(target.pid)
    done = fentry(account, "doctor", "-p", target.pid)
    target.hold()
    assert f"process {target.pid} (" in done.out
    assert "its memory can be read and written" in done.out
    assert diff(before, snapshot(target.pid)) == []
    target.go()


def test_stat_counts_stay_readable_when_the_target_has_ended(account: Account) -> None:
    with start(build("exits.c"), "how=kill", "at=50000000", account=account, hold=True) as target:

        def run() -> tuple[int, str, str, int]:
            from tests.support.unprivileged import _captured_main

            from fentry.cli.__main__ import main

            sender = os.fork()
            if not sender:
                try:
                    while "fentry-counters" not in Path(f"/proc/{target.pid}/maps").read_text():
                        os.sched_yield()
                    target.go()
                finally:
                    os._exit(0)
            done = _captured_main(
                main, ["fentry", "stat", "-p", str(target.pid), "-F", "f_last", "--json"]
            )
            os.waitpid(sender, 0)
            return done.code, done.out, done.err, target.counters()["f_last"]

        code, out, err, calls = account.run(run)
    assert code == 0
    # the gate opens when the counters are there, the site follows a moment later
    assert 0 < json.loads(out)[0]["calls"] <= calls + 1
    assert "; the process ended; next: " in err


def test_a_full_file_ends_the_recording_with_what_was_written(
    account: Account, folder: Path
) -> None:
    import resource

    with start(build("overflow.c"), "threads=2", account=account) as target:
        before = snapshot(target.pid)

        def run() -> tuple[int, str]:
            from tests.support.unprivileged import _captured_main

            from fentry.cli.__main__ import main

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 20, resource.RLIM_INFINITY))
            words = ["fentry", "record", "-p", str(target.pid), "-F", "f_*", "-d", "20",
                     "-o", str(folder / "t")]  # fmt: skip
            done = _captured_main(main, words)
            return done.code, done.err

        code, err = account.run(run)
        target.hold()
        assert diff(before, snapshot(target.pid)) == []
        target.go()
    assert code == 10
    assert "the file size limit is reached" in err
    assert "not written; 1 functions traced" in err
    shown = fentry(account, "report", "-i", folder / "t", "--counts", "--json")
    assert shown.code == 0
    assert json.loads(shown.out)[0]["calls"] > 10_000
    assert "is not complete: what is whole was read" in shown.err


def test_a_closed_pipe_ends_list_quietly(account: Account, target: Target) -> None:
    def run() -> int:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        import sys

        from fentry.cli.__main__ import main

        sys.stdout = open(1, "w", closefd=False)
        sys.argv = ["fentry", "list", "-p", str(target.pid)]
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    assert account.run(run) == 141


def test_output_to_a_full_device_is_one_error(account: Account, target: Target) -> None:
    def run() -> tuple[int, str]:
        import io
        import sys

        from fentry.cli.__main__ import main

        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 1)
        sys.stdout = open(1, "w", closefd=False)
        sys.stderr = errors = io.StringIO()
        sys.argv = ["fentry", "status", "-p", str(target.pid)]
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), errors.getvalue()
        return 0, ""

    code, err = account.run(run)
    assert code == 1
    assert err == "fentry: No space left on device\n  cause: the output cannot be written\n"
