"""Builds the programs of tests/targets, once per content, safely from parallel runs.

The first comment of a target holds its build line, for example
`// build: gcc -O2 -pthread hot.c check.S leaves.c`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

TARGETS = Path(__file__).resolve().parent.parent / "targets"
CHECKOUT = TARGETS.parent.parent
SOURCE_SUFFIXES = (".c", ".cpp", ".S")
WARNINGS = ("-Wall", "-Wextra", "-Werror")  # deep.c has a recursion without an end, on purpose
BUILD_LINE = re.compile(r"^(?://|#) build: (.+)$", re.MULTILINE)


class BuildFailed(Exception):
    """The compiler refused a target; the text is its complete output."""


def build(
    source: str,
    *,
    flags: Sequence[str] = (),
    static: bool = False,
    pie: bool | None = None,
    compiler: str | None = None,
    stripped: bool = False,
) -> Path:
    """The executable of `source` (a file name in tests/targets), readable by every user.

    `flags` come after those of the build line, so that they win. `pie=None` leaves the
    compiler's default. The file stays in build/targets of the checkout under the hash of all
    sources, headers, flags and the compiler's version. Raises BuildFailed, for a warning of the
    compiler of the build line as well.
    """
    words = build_line(source)
    command = [
        compiler or words[0],
        *(() if compiler or source == "deep.c" else WARNINGS),
        *(word for word in words[1:] if not word.endswith(SOURCE_SUFFIXES)),
        *(["-static"] if static else []),
        *([] if pie is None else ["-fPIE", "-pie"] if pie else ["-fno-pie", "-no-pie"]),
        *(["-s"] if stripped else []),
        *flags,
    ]
    sources = [word for word in words[1:] if word.endswith(SOURCE_SUFFIXES)]
    libraries = [word for word in command if word.startswith("-l")]
    options = [word for word in command if not word.startswith("-l")]

    stem = Path(source).stem
    suffix = ".so" if "-shared" in command else ""
    output = target_directory() / f"{stem}-{content_hash(options + libraries)}{suffix}"
    if output.exists():
        return output
    with building(output) as unfinished:
        paths = [str(TARGETS / name) for name in sources]
        if unfinished is not None:
            run_compiler([*options, *paths, *libraries, "-o", str(unfinished)])
    return output


def build_line(source: str) -> list[str]:
    """The words of the build line of `source`; raises BuildFailed if it has none."""
    match = BUILD_LINE.search((TARGETS / source).read_text())
    if match is None:
        raise BuildFailed(f"{source} has no line `// build: gcc ...`")
    return match.group(1).split()


@cache
def target_directory() -> Path:
    """build/targets of the checkout, or a directory in /tmp if others cannot reach that."""
    wanted = CHECKOUT / "build" / "targets"
    reachable = all(parent.stat().st_mode & 0o001 for parent in [CHECKOUT, *CHECKOUT.parents])
    if reachable and is_ours(wanted):
        return wanted
    place = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12]
    wanted = Path(tempfile.gettempdir()) / f"fentry-targets-{os.getuid()}-{place}"
    if not is_ours(wanted):
        raise BuildFailed(f"{wanted} belongs to another user")
    return wanted


def is_ours(directory: Path) -> bool:
    """True if the directory, made if need be, can be changed by nobody else (or root)."""
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except PermissionError:
        return False
    return directory.lstat().st_uid == os.getuid()


def content_hash(command: Sequence[str]) -> str:
    """Twelve hex digits over the command, the compiler and every file of tests/targets."""
    digest = hashlib.sha256("\0".join([*command, compiler_version(command[0])]).encode())
    digest.update(sources_hash())
    return digest.hexdigest()[:12]


def sources_hash() -> bytes:
    digest = hashlib.sha256()
    for path in sorted(TARGETS.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


@cache
def compiler_version(compiler: str) -> str:
    if shutil.which(compiler) is None:
        raise BuildFailed(f"no {compiler} on this machine; `make setup` installs it")
    return subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout


@contextmanager
def building(output: Path) -> Iterator[Path | None]:
    """A path to build at, under a lock; None if another run built `output` meanwhile."""
    with open(output.with_name(f".{output.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if output.exists():
            yield None
            return
        unfinished = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            yield unfinished
            unfinished.chmod(0o755)
            unfinished.rename(output)
        finally:
            unfinished.unlink(missing_ok=True)


def run_compiler(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(" ".join(command) + "\n" + done.stderr + done.stdout)
