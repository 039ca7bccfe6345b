"""What can be seen of a process from outside, before and after, and the difference.

Meant for a quiet moment (gate closed): text bytes, mappings, descriptors, threads, signal
dispositions, tracer, and how many pages of its text are its own copies.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

THREAD_FIELDS = ("SigPnd", "SigBlk", "TracerPid", "Seccomp", "NoNewPrivs", "CapEff")
PROCESS_FIELDS = ("ShdPnd", "SigIgn", "SigCgt", "Uid", "Groups")
# Private_Dirty would change by itself: a program just built is written back to the disk.
SMAPS_FIELDS = ("Anonymous", "VmFlags")
MAP_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) \S+ \d+ *(.*)")


# All but SIGKILL and SIGSTOP; the same without the signals 32 to 34, which musl keeps for itself.
ALL_BLOCKED = ("fffffffffffbfeff", "fffffffc7ffbfeff")
START_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Mapped:
    """One line of maps; start and end are addresses in the process."""

    start: int
    end: int
    perms: str
    offset: int
    path: str


@dataclass(frozen=True, slots=True)
class State:
    """Each part is a mapping from a name to a text, so that one rule compares them all."""

    text: dict[str, str]
    maps: dict[str, str]
    descriptors: dict[str, str]
    threads: dict[str, str]
    signals: dict[str, str]
    pages: dict[str, str]


def snapshot(pid: int) -> State:
    """The state of a live process; raises FileNotFoundError if there is none.

    The end of the heap and the start of the stack are left out: they grow by themselves.
    """
    deadline = time.monotonic() + START_SECONDS
    while _is_starting_a_thread(pid) and time.monotonic() < deadline:
        time.sleep(0.001)
    mapped = read_maps(pid)
    return State(
        text=_text_hashes(pid, mapped),
        maps={_map_key(m): f"{m.perms} {m.path}" for m in mapped},
        descriptors=_descriptors(pid),
        threads=_threads(pid),
        signals=_fields(Path(f"/proc/{pid}/status"), PROCESS_FIELDS),
        pages=_text_pages(pid),
    )


def diff(before: State, after: State, *, ignore: Collection[str] = ()) -> list[str]:
    """One line per difference ("text: /lib/x: old -> new"); [] when nothing differs.

    `ignore` names parts not to compare, such as "threads" for a target that makes threads.
    """
    lines = []
    for part in State.__dataclass_fields__:
        if part in ignore:
            continue
        old: dict[str, str] = getattr(before, part)
        new: dict[str, str] = getattr(after, part)
        for name in sorted(old.keys() | new.keys()):
            was, now = old.get(name, "absent"), new.get(name, "absent")
            if was != now:
                lines.append(f"{part}: {name}: {was} -> {now}")
    return lines


def read_maps(pid: int) -> list[Mapped]:
    """The mappings, by address."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        match = MAP_LINE.fullmatch(line)
        assert match is not None, line
        start, end, perms, offset, path = match.groups()
        found.append(Mapped(int(start, 16), int(end, 16), perms, int(offset, 16), path))
    return found


def text_hash(pid: int) -> str:
    """One sha256 over all executable mappings: the short form for a loop."""
    hashes = _text_hashes(pid, read_maps(pid))
    return hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()


def _map_key(mapped: Mapped) -> str:
    if mapped.path == "[heap]":
        return f"{mapped.start:x}-[heap]"
    if mapped.path == "[stack]":
        return f"[stack]-{mapped.end:x}"
    return f"{mapped.start:x}-{mapped.end:x}"


def _text_hashes(pid: int, mapped: list[Mapped]) -> dict[str, str]:
    hashes = {}
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for m in mapped:
            if "x" in m.perms and "r" in m.perms:
                memory.seek(m.start)
                content = memory.read(m.end - m.start)
                name = f"{m.start:x}-{m.end:x} {m.path}"
                hashes[name] = hashlib.sha256(content).hexdigest()[:16]
    return hashes


def _descriptors(pid: int) -> dict[str, str]:
    directory = f"/proc/{pid}/fd"
    return {number: os.readlink(f"{directory}/{number}") for number in os.listdir(directory)}


def _is_starting_a_thread(pid: int) -> bool:
    # A C library blocks all signals around clone, in the new thread too: a passing state.
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            fields = _fields(Path(f"/proc/{pid}/task/{tid}/status"), ("State", "SigBlk"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields["SigBlk"] in ALL_BLOCKED and fields["State"].startswith("R"):
            return True
    return False


def _threads(pid: int) -> dict[str, str]:
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        fields = _fields(Path(f"/proc/{pid}/task/{tid}/status"), THREAD_FIELDS)
        found[tid] = " ".join(f"{name}={value}" for name, value in fields.items())
    return found


def _fields(path: Path, names: Collection[str]) -> dict[str, str]:
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[name] = " ".join(value.split())
    return found


def _text_pages(pid: int) -> dict[str, str]:
    """Copied kB and kernel flags of each executable mapping of a file."""
    found: dict[str, str] = {}
    key = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := MAP_LINE.fullmatch(line):
            start, end, perms, _, path = match.groups()
            key = f"{start}-{end} {path}" if "x" in perms and path.startswith("/") else None
        elif key is not None:
            name, _, value = line.partition(":")
            if name in SMAPS_FIELDS:
                found[key] = f"{found.get(key, '')} {name}={' '.join(value.split())}".strip()
    return found
