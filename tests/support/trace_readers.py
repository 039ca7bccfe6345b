"""Exported traces as trace-cmd and uftrace show them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.machine import need_tool

_LINE = re.compile(
    r" *(?P<comm>.*)-(?P<tid>\d+) +\[(?P<cpu>\d+)\]"
    r"(?: +[.a-zA-Z][.\w]{3,5}(?= ))?"  # flags, which newer ones print
    r" *(?P<time>[\d.]+): function: +(?P<name>\S+)(?: <-- (?P<parent>\S+) *)?"
)


class Shown(NamedTuple):
    """A call as trace-cmd shows it: the time is in ns."""

    comm: str
    tid: int
    cpu: int
    time_ns: int
    function: str
    parent: str


def trace_cmd(path: Path, *options: str) -> list[str]:
    """The lines that `trace-cmd report` prints, which must not complain."""
    command = [need_tool("trace-cmd"), "report", "-i", str(path), *options]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode("utf-8", "surrogateescape").splitlines()


def shown_by_trace_cmd(path: Path, *options: str) -> list[Shown]:
    """The calls of a trace.dat, in the order of `trace-cmd report`; lost ones are passed over."""
    lines = trace_cmd(path, "-t", "-O", "parent", *options)
    assert lines[0].startswith("cpus=")
    return [_shown(line) for line in lines[1:] if "EVENTS DROPPED" not in line]


def _shown(line: str) -> Shown:
    match = _LINE.fullmatch(line)
    assert match, line
    time_ns = int(match["time"].replace(".", ""))
    tid, cpu = int(match["tid"]), int(match["cpu"])
    return Shown(match["comm"], tid, cpu, time_ns, match["name"], match["parent"] or "")


def uftrace(word: str, folder: Path, *options: str) -> list[str]:
    """The lines that `uftrace WORD -d FOLDER` prints, which must not complain."""
    command = [need_tool("uftrace"), word, "-d", str(folder), "--no-pager", *options]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode("utf-8", "surrogateescape").splitlines()


def calls_by_uftrace(folder: Path, *options: str) -> dict[str, int]:
    """The calls of each function, as `uftrace report` counts them."""
    lines = uftrace("report", folder, *options)[2:]
    # times are blank: a call has none
    return {name: int(count) for count, name in (line.split(maxsplit=1) for line in lines)}
