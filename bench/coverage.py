"""Which functions of Debian's own files can be traced: python bench/coverage.py [FILE ...]

Writes docs/coverage.md, or with FILEs prints their rows. A function is an address that a symbol
(STT_FUNC, STT_GNU_IFUNC) or a frame description names; debug files are not looked for.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import subprocess
import sys
import time

import numpy as np

from fentry.sites.find import analyse
from fentry.sites.site import Reason
from fentry.symbols.elf import ElfImage
from support import CHECKOUT, Table, describe

PAGE = CHECKOUT / "docs" / "coverage.md"
FILES = (
    "libc.so.6", "libm.so.6", "libcrypto.so.3", "libssl.so.3", "libstdc++.so.6",
    "libsqlite3.so.0", "libz.so.1", "/usr/sbin/nginx", "/usr/bin/redis-server", "/usr/bin/bash",
    "/usr/bin/sqlite3", "/usr/bin/python3.11",
)  # fmt: skip
COLUMNS = (
    "file", "functions", "parts of others", "traceable", "of all", "without parts", "refused for",
    "analysis, s",
)  # fmt: skip
HEAD = """# Coverage

Of each file of Debian's packages, stripped as they are: how many functions can be traced, and why
the others cannot. A function is every address that a symbol or a frame description (`.eh_frame`)
names. Parts of other functions (`.cold`) are entered by jumps in the middle of a call: there
is nothing to trace, and they are never patched. [design/sites.md](design/sites.md) says how each
is decided.

`make coverage` writes this page; `fentry list FILE --count` counts any other file.
"""
WORDS = {
    Reason.TOO_SHORT: "too short", Reason.PAGE: "page", Reason.BRANCH: "branch",
    Reason.POINTER: "pointer", Reason.INDIRECT_JUMP: "computed jump", Reason.START: "entry point",
    Reason.RESTORER: "signal return", Reason.PLT: "linkage stub", Reason.LOOP: "loop",
    Reason.SIZE_UNKNOWN: "end unknown", Reason.SYSTEM_CALL: "system call",
    Reason.NOT_MOVABLE: "not movable", Reason.CALL: "call",
}  # fmt: skip


def find(name: str) -> str:
    """The path of a file, of a library in the usual places; "" if it is not here."""
    if "/" in name:
        return name if os.path.exists(name) else ""
    found = glob.glob(f"/lib/*/{name}") + glob.glob(f"/usr/lib/{name}")
    return found[0] if found else ""


def row(name: str) -> list[str]:
    """One line of the table."""
    path = find(name)
    if not path:
        return [name, *["not installed"] * (len(COLUMNS) - 1)]
    begun = time.perf_counter()
    found = analyse(ElfImage.open(path))
    seconds = time.perf_counter() - begun
    total, traceable = len(found.sites), int(found.traceable.sum())
    parts = int(np.sum(found.sites["reason"] == Reason.COLD))
    reasons = ", ".join(
        f"{WORDS.get(reason, reason.name.lower())} {count}"
        for reason, count in found.counts().items()
        if reason is not Reason.COLD
    )
    return [
        f"{os.path.basename(path)} {version(path)}", f"{total:,}", f"{parts:,}", f"{traceable:,}",
        f"{100 * traceable / total:.2f} %", f"{100 * traceable / (total - parts):.2f} %",
        reasons, f"{seconds:.2f}",
    ]  # fmt: skip


def version(path: str) -> str:
    """The version of the Debian package that has a file, "" if none is known to."""
    for candidate in (path, os.path.realpath(path), os.path.realpath(path).removeprefix("/usr")):
        done = subprocess.run(
            ["dpkg-query", "-S", candidate], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            package = done.stdout.partition(": ")[0]
            asked = ["dpkg-query", "-W", "-f", "${Version}", package]
            return subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return ""


def main() -> None:
    """Write the page, or print rows of the files that are named."""
    table = Table("Functions of Debian's files", COLUMNS)
    for name in sys.argv[1:] or FILES:
        table.add(*row(name))
    if sys.argv[1:]:
        table.print()
        return
    with contextlib.redirect_stdout(io.StringIO()) as text:
        table.print()
    PAGE.write_text(f"{HEAD}\n{describe()}\n\n{text.getvalue().strip()}\n")
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
