"""The command line as a person meets it: a word run by an account, and what it printed."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fentry.cli.__main__ import COMMANDS, main
from fentry.formats.exports import FORMATS
from tests.support.build import run_compiler
from tests.support.unprivileged import PATIENCE_S, Account, Completed

POLL_SECONDS = 0.001

# An account may not be able to read the interpreter's files: all are loaded before it is one.
for _module in [row[0] for row in (*COMMANDS.values(), *FORMATS.values())]:
    importlib.import_module(_module)


def fentry(account: Account, *arguments: object, seconds: float = PATIENCE_S) -> Completed:
    """What `fentry ARGUMENTS` prints when `account` runs it; no new interpreter starts."""
    words = ["fentry", *map(str, arguments)]
    return account.call_main(main, words, seconds=seconds)


def fentry_with_signals(
    account: Account, pid: int, numbers: Sequence[int], *arguments: object, after: str
) -> Completed:
    """The same, but it is sent the signals `numbers` once the maps of `pid` hold `after`."""

    def run() -> Completed:
        controller = os.getpid()
        sender = os.fork()
        if not sender:
            _send(controller, pid, numbers, after)
        from tests.support.unprivileged import _captured_main

        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        completed = _captured_main(main, ["fentry", *map(str, arguments)])
        os.waitpid(sender, 0)
        return completed

    return account.run(run)


def _send(controller: int, pid: int, numbers: Sequence[int], after: str) -> None:
    code = 1
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if after in Path(f"/proc/{pid}/maps").read_text():
                for number in numbers:
                    os.kill(controller, number)
                code = 0
                break
            time.sleep(POLL_SECONDS)
    finally:
        os._exit(code)


@contextmanager
def folder_of(account: Account) -> Iterator[Path]:
    """A new folder that belongs to `account`; it is removed with what is in it."""
    with tempfile.TemporaryDirectory(prefix="fentry-cli-") as name:
        os.chmod(name, 0o755)
        if not account.is_current:
            os.chown(name, account.uid, account.uid)
        yield Path(name)


def compile_c(folder: Path, source: str, *flags: str, compiler: str = "gcc") -> Path:
    """The program of a few lines of C, executable by everybody."""
    text, program = folder / "program.c", folder / "program"
    text.write_text(source)
    run_compiler([compiler, "-O1", *flags, str(text), "-o", str(program)])
    program.chmod(0o755)
    return program


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill and reap a process that a test started."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
