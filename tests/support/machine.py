"""What this machine has: a test that needs more says so, and fails where CI promises it."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def need_tool(name: str) -> str:
    """The path of a program; skips the test where it is missing, fails it if CI is set."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        missing(f"the program {name} (`make setup` installs it)")
    return path


def missing(what: str) -> NoReturn:
    """End the test: skipped by hand, failed under CI, with the capability that is missing."""
    if os.environ.get("CI"):
        pytest.fail(f"this machine lacks {what}")
    pytest.skip(f"this machine lacks {what}")


def describe() -> str:
    """One line: CPU, cores, kernel, Python; the head of every measured figure."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}"
    )
