"""Names of system calls by number, read from the kernel's header of this machine."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

HEADERS = (
    Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    Path("/usr/include/asm/unistd_64.h"),
)
DEFINITION = re.compile(r"#define __NR_(\w+)\s+(\d+)")


@cache
def names() -> dict[int, str]:
    """Number -> name for x86-64; empty where no kernel headers are installed."""
    for header in HEADERS:
        if header.exists():
            found = DEFINITION.findall(header.read_text())
            return {int(number): name for name, number in found}
    return {}


def name_of(number: int) -> str:
    """`openat`, or `call 999` for a number without a name here."""
    return names().get(number, f"call {number}")
