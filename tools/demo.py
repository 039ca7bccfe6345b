"""make demo: trace a live, unmodified program, and show that it is left exactly as it was.

Starts a Python interpreter that hashes with OpenSSL and queries SQLite, records what it calls
while it works, prints that, detaches, and proves with the kernel's own files and with its own
arithmetic that the program's code is byte for byte what it was and that its results are right.
Exit status 1 if a proof fails.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fentry.cli.__main__ import main as fentry_main

TRACED_S = 1.0
LIMIT_S = 30.0
LINES = 10
LIBRARIES = {"libcrypto": "libcrypto!EVP_*", "libsqlite3": "libsqlite3!sqlite3_*"}
FALLBACK = "libc!*"

# The traced program. It ends when its input is closed, and prints how many rounds it made, how
# many rows SQLite has, and a digest over what OpenSSL computed and SQLite kept.
PROGRAM = r"""
import hashlib, select, sqlite3, sys, time
database = sqlite3.connect(":memory:")
database.execute("create table entry (number integer primary key, digest text)")
rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    digest = hashlib.sha256(b"round %d" % rounds).hexdigest()
    database.execute("insert into entry values (?, ?)", (rounds, digest))
    rounds += 1
    if rounds == 100:
        print("at work", flush=True)
    time.sleep(0.0002)
(rows,) = database.execute("select count(*) from entry").fetchone()
total = hashlib.sha256()
for (digest,) in database.execute("select digest from entry order by number"):
    total.update(digest.encode())
print(rounds, rows, total.hexdigest(), flush=True)
"""

LIBRARIES_OF = "import hashlib, sqlite3; print(open('/proc/self/maps').read())"


class Failed(Exception):
    """A proof that does not hold, or something the demonstration needs that is missing."""


@dataclass(frozen=True, slots=True)
class State:
    """What can be seen of a process from outside: sha256 of each executable mapping by name and
    address, descriptors, threads."""

    text: dict[str, str]
    descriptors: list[str]
    threads: list[str]


def main() -> int:
    """Run the demonstration; 0 when every proof holds."""
    began = time.monotonic()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # we fork
    try:
        interpreter, patterns = find_interpreter()
        with tempfile.TemporaryDirectory(prefix="fentry-demo-") as folder:
            program = start(interpreter)
            try:
                demonstrate(program, patterns, Path(folder) / "trace.fentry")
            finally:
                end(program)
    except Failed as error:
        say(f"\nFAIL  {error}")
        return 1
    say(f"\nPASS  in {time.monotonic() - began:.1f} s. Next: fentry record -p PID, fentry list -h")
    return 0


def demonstrate(program: subprocess.Popen[bytes], patterns: Sequence[str], trace: Path) -> None:
    """Trace `program` and prove that it is unharmed. Raises Failed."""
    before = look(program.pid)
    step(f"1. process {program.pid} is at work; {len(before.text)} executable mappings hashed")
    step("2. record it, live")
    chosen = [word for pattern in patterns for word in ("-F", pattern)]
    words = ["record", "-p", str(program.pid), *chosen, "-o", str(trace)]
    recorder = run_fentry(words)
    try:
        await_trace(trace, recorder)
        step(f"3. what it calls at this moment (the first {LINES} calls)")
        wait_for(run_fentry(["report", "-i", str(trace), "--head", str(LINES)], quiet=True))
        during = look(program.pid)
        time.sleep(TRACED_S)
    finally:
        step("4. Ctrl-C: detach")
        os.kill(recorder, signal.SIGINT)
        wait_for(recorder)
    after = look(program.pid)
    step("5. how often it called what")
    wait_for(run_fentry(["report", "-i", str(trace), "--counts"], rows=12))
    step("6. proofs")
    prove_text(before, during, after)
    prove_result(program)


def find_interpreter() -> tuple[str, list[str]]:
    """A Python that no one changed, and what to trace of it. Raises Failed without any."""
    usable: tuple[str, list[str]] | None = None
    for name in ("/usr/bin/python3", "python3", getattr(sys, "_base_executable", sys.executable)):
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run([path, "-c", LIBRARIES_OF], capture_output=True, text=True)
        if done.returncode:
            continue
        found = [pattern for library, pattern in LIBRARIES.items() if f"/{library}" in done.stdout]
        if len(found) == len(LIBRARIES):
            return path, found
        usable = usable or (path, found or [FALLBACK])
    if usable is None:
        raise Failed("no python3 here has the modules hashlib and sqlite3")
    say(f"{usable[0]} has OpenSSL or SQLite built in: tracing {', '.join(usable[1])} instead")
    return usable


def start(interpreter: str) -> subprocess.Popen[bytes]:
    """The program at work. Raises Failed when it does not get there."""
    say(f"$ {interpreter} -c '... hash with OpenSSL, insert into and query SQLite ...' &")
    libc = ctypes.CDLL(None)
    program = subprocess.Popen(
        [interpreter, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Where Yama lets only parents trace (Ubuntu), it must allow its siblings to:
        # PR_SET_PTRACER, PR_SET_PTRACER_ANY
        preexec_fn=lambda: libc.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0),
    )
    if read_line(program) != "at work":
        end(program)
        raise Failed("the program did not start")
    return program


def end(program: subprocess.Popen[bytes]) -> None:
    """Kill the program if it still runs, and reap it."""
    if program.poll() is None:
        program.kill()
    program.wait()


def run_fentry(words: Sequence[str], *, quiet: bool = False, rows: int = 0) -> int:
    """Run a fentry command in a child, as the shell would; its pid.

    `quiet` hides what it says on stderr, `rows` shows only so many rows of a table.
    """
    say("$ fentry " + " ".join(f"'{w}'" if "*" in w else w for w in words) + (
        f" | head -n {rows + 1}" if rows else ""
    ))  # fmt: skip
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if quiet:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if rows:
            head = subprocess.Popen(["head", "-n", str(rows + 1)], stdin=subprocess.PIPE)
            assert head.stdin is not None
            os.dup2(head.stdin.fileno(), 1)
            head.stdin.close()
        sys.argv = ["fentry", *words]
        fentry_main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        if rows:
            os.close(1)
            head.wait()
        os._exit(code)


def wait_for(child: int) -> None:
    """Wait for a child; raises Failed when it failed."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 141):  # 141: head had enough
        raise Failed(f"fentry ended with status {code}")


def await_trace(trace: Path, recorder: int) -> None:
    """Wait until the trace has calls in it. Raises Failed when the recorder ends or hangs."""
    pidfd = os.pidfd_open(recorder)
    deadline = time.monotonic() + LIMIT_S
    try:
        while not trace.exists() or trace.stat().st_size < 100_000:
            if select.select([pidfd], [], [], 0.01)[0]:
                raise Failed("fentry record ended too early")
            if time.monotonic() > deadline:
                raise Failed(f"nothing was recorded in {LIMIT_S:g} s")
    finally:
        os.close(pidfd)


def look(pid: int) -> State:
    """The state of a process, from /proc alone."""
    text = {}
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps.read().splitlines():
            span, perms, _, _, _, *name = line.split(maxsplit=5)
            if perms.startswith("r-x"):
                low, high = (int(word, 16) for word in span.split("-"))
                memory.seek(low)
                key = f"{low:x} {os.path.basename(name[0]) if name else '(anonymous)'}"
                text[key] = hashlib.sha256(memory.read(high - low)).hexdigest()
    descriptors = sorted(os.listdir(f"/proc/{pid}/fd"))
    return State(text, descriptors, sorted(os.listdir(f"/proc/{pid}/task")))


def prove_text(before: State, during: State, after: State) -> None:
    """Print each mapping's hash, and raise Failed unless all is as before."""
    for key, digest in before.text.items():
        traced = "patched while traced" if during.text.get(key) != digest else "never touched"
        now = "same" if after.text.get(key) == digest else "DIFFERENT"
        say(f"   {now:9} sha256 {digest[:16]}  {key.split(maxsplit=1)[1]:34} {traced}")
    if during.text == before.text:
        raise Failed("no text was patched while it was traced")
    if after.text != before.text:
        raise Failed("the text is not what it was")
    say(f"   ok  {len(after.text)} executable mappings, byte for byte as before, none added")
    if (after.descriptors, after.threads) != (before.descriptors, before.threads):
        raise Failed("descriptors or threads are not what they were")
    say(f"   ok  the same {len(after.descriptors)} descriptors and {len(after.threads)} threads")


def prove_result(program: subprocess.Popen[bytes]) -> None:
    """End the program and compute its result again. Raises Failed when it differs."""
    assert program.stdin is not None
    program.stdin.close()
    words = read_line(program).split()
    if program.wait(LIMIT_S) != 0 or len(words) != 3:
        raise Failed(f"the program ended with {program.returncode} and printed {words}")
    rounds, rows, digest = int(words[0]), int(words[1]), words[2]
    total = hashlib.sha256()
    for number in range(rounds):
        total.update(hashlib.sha256(b"round %d" % number).hexdigest().encode())
    if rows != rounds or digest != total.hexdigest():
        raise Failed("the program computed something wrong while it was traced")
    say(f"   ok  {rounds} rounds, {rows} rows, digest {digest[:16]}: right; exit status 0")


def read_line(program: subprocess.Popen[bytes]) -> str:
    """The next line that the program prints, "" when it ends or takes too long."""
    assert program.stdout is not None
    if not select.select([program.stdout], [], [], LIMIT_S)[0]:
        return ""
    return program.stdout.readline().decode().strip()


def step(text: str) -> None:
    """Print the heading of a step."""
    say(f"\n{text}")


def say(text: str) -> None:
    """Print at once: children print, too."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
