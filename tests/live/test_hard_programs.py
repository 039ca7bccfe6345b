"""Unmodified programs of the distribution, all of their functions traced while they work."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.live.programs.fed import Fed, fed, folder, guests
from tests.live.programs.servers import PAGE, ask_redis, fetch, nginx_server, redis_server
from tests.support import tracing
from tests.support.machine import need_tool
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, accounts

from fentry.process.proc import children_of
from fentry.session import Options, attach

BIG = Options(buffer_bytes=16 << 20)
HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"  # the distribution's own, with its libcrypto and libsqlite3


@contextmanager
def readable(source: Path, account: Account) -> Iterator[Path]:
    """A copy of a file that the account can read, wherever the checkout lies."""
    with folder(account) as place:
        copy = place / source.name
        shutil.copyfile(source, copy)
        copy.chmod(0o644)
        yield copy


@pytest.fixture(scope="module")
def caches() -> Iterator[dict[str, Path]]:
    """For each account a folder in which analyses of modules are kept."""
    with ExitStack() as stack:
        yield {account.name: stack.enter_context(folder(account)) for account in accounts()}


@pytest.fixture(autouse=True)
def cached(account: Account, caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever traces can use the analyses of the tests before."""
    monkeypatch.setenv("FENTRY_CACHE", str(caches[account.name]))


@contextmanager
def traced_all(pid: int) -> Iterator[Callable[[], Counter[str]]]:
    """Inside, every function of the main module and of libc is counted, and every part of one;
    yields who reads it."""
    exe = os.readlink(f"/proc/{pid}/exe")
    with attach(pid, tracing.SMALL) as session:
        own = next(module.name for module in session.functions.modules if module.path == exe)
        words = (f"{own}!*", "libc.so.6!*")
        ops = session.register(tracing.counting(*words, *(f"part:{word}" for word in words)))
        yield lambda: tracing.counted(session, ops)


def traced_round(account: Account, program: Fed, line: str) -> tuple[str, Counter[str], list[str]]:
    """Answer and calls of one round with everything traced, and what detach left different.

    The program works before, too, so that what it maps at first is not taken for ours.
    """
    program.ask(line)
    before = program.quiet()

    def controller() -> tuple[str, Counter[str]]:
        with traced_all(program.pid) as calls:
            said = program.ask(line)
            program.quiet()
            return said, calls()

    def untouched() -> None:
        with traced_all(program.pid):
            pass

    said, counts = account.run(controller)
    found = diff(before, program.quiet(), ignore=("maps",)) + guests(program.pid)
    before = program.quiet()
    account.run(untouched)  # without any work the mappings must be the same, too
    return said, counts, found + diff(before, program.quiet())


# CPython, hashing and querying


def expected_of_work(line: str) -> str:
    """What programs/work.py answers, by the interpreter that runs the tests."""
    digest = line.encode()
    for _ in range(300):
        digest = hashlib.sha256(digest * 20).digest()
    sevens = [n for n in range(2000) if "7" in str(n)]
    return f"{digest.hex()} {sum(n * n for n in sevens)} {max(len(f'name {n}') for n in sevens)}"


def test_python_that_hashes_and_queries_works_on_with_all_functions_traced(
    account: Account,
) -> None:
    work = HERE / "programs" / "work.py"
    with readable(work, account) as script, fed(PYTHON, script, account=account) as program:
        said, counts, found = traced_round(account, program, "a line")
    assert said == expected_of_work("a line")
    assert counts["sqlite3_step"] == 0  # of another module, which was not chosen
    assert counts.total() > 10_000
    assert found == []


def test_libraries_of_python_are_counted_and_recorded_alike(account: Account) -> None:
    libraries = ("libcrypto!*", "libsqlite3!*", "libc!*")
    work = HERE / "programs" / "work.py"
    with readable(work, account) as script, fed(PYTHON, script, account=account) as program:
        plain = program.ask("the line")
        before = program.quiet()

        def controller() -> tuple[str, Counter[str], Counter[str], int]:
            with attach(program.pid, BIG) as session:
                ops = session.register(tracing.counting(*libraries))
                session.register(tracing.recording(*libraries))
                known = len(program.lines())
                program.tell("the line")
                records: Counter[str] = Counter()
                while len(program.lines()) == known:
                    records += tracing.recorded(session)
                program.quiet()
                records += tracing.recorded(session)
                counts = tracing.counted(session, ops)
                return program.lines()[known], counts, records, tracing.dropped(session)

        said, counts, records, lost = account.run(controller)
        found = diff(before, program.quiet(), ignore=("maps",)) + guests(program.pid)
    assert said == plain == expected_of_work("the line")
    assert records.total() + lost == counts.total()
    assert records == counts or lost
    assert {"SHA256_Update", "sqlite3_step"} & set(counts)
    assert found == []


# bash, and the shell of SQLite

LOOP = (
    "sum=0; for ((i = 0; i < 3000; i++)); do sum=$((sum + i)); done; echo $sum $(echo of a child)"
)


def test_bash_loops_and_forks_with_all_functions_traced(account: Account) -> None:
    with fed("/bin/bash", account=account, first="") as program:
        said, counts, found = traced_round(account, program, LOOP)
    assert said == "4498500 of a child"
    assert counts.total() > 10_000
    assert found == []


QUERY = (
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) "
    "select sum(i), count(distinct i % 97), max(i * i) from n;"
)


def test_sqlite_shell_answers_right_with_all_functions_traced(account: Account) -> None:
    with fed(need_tool("sqlite3"), ":memory:", account=account, first="") as program:
        said, counts, found = traced_round(account, program, QUERY)
    assert said == "4501500|97|9000000"
    assert counts.total() > 100
    assert found == []


# Redis, over a unix socket


def test_redis_answers_right_with_all_functions_traced(account: Account) -> None:
    with redis_server(account) as (target, path):
        ask_redis(path, 50)
        before = snapshot(target.pid)

        def controller() -> tuple[tuple[int, str, str], Counter[str]]:
            with traced_all(target.pid) as calls:
                return ask_redis(path, 150), calls()

        answer, counts = account.run(controller)
        found = diff(before, snapshot(target.pid), ignore=("maps", "descriptors"))
        left = guests(target.pid)
        assert ask_redis(path, 50) == (1225, "50", "value " * 7)
        end = target.kill(signal.SIGTERM)
    assert answer == (11175, "150", "value " * 7)
    assert counts["main"] == 0
    assert counts.total() > 2000
    assert found == left == []
    assert end.code == 0


# nginx, with worker processes


def nginx_waits(pid: int) -> bool:
    """Whether the master is in rt_sigsuspend or a worker in epoll_wait, with no signal blocked: a
    worker begins with the mask of its master."""
    number = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    blocked = re.search(r"^SigBlk:\t(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return number == "130" or (number == "232" and blocked is not None and not int(blocked[1], 16))


def test_nginx_workers_serve_right_with_all_functions_traced(account: Account) -> None:
    with nginx_server(account) as (target, port):
        pids = [target.pid, *children_of(target.pid)]
        fetch(port, 20)
        target.await_condition(lambda: all(map(nginx_waits, pids)), "all set up, and waiting")
        before = [snapshot(pid) for pid in pids]

        def controller() -> tuple[set[bytes], list[Counter[str]]]:
            with ExitStack() as stack:
                readers = [stack.enter_context(traced_all(pid)) for pid in pids]
                return fetch(port, 150), [calls() for calls in readers]

        bodies, counts = account.run(controller)
        found = [
            diff(was, snapshot(pid), ignore=("maps", "descriptors"))
            for pid, was in zip(pids, before, strict=True)
        ]
        left = [guests(pid) for pid in pids]
        assert fetch(port, 20) == {PAGE}
        end = target.kill(signal.SIGTERM)
    assert bodies == {PAGE}
    assert sum(count.total() for count in counts[1:]) > 10_000
    assert found == left == [[], [], []]
    assert end.code == 0
