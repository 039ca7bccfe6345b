"""How fast records get from the ring to the disk, and how fast a large file opens and answers.

A ring that is full is emptied into a file by what `fentry record` has for that: the reader, which
looks at every record's lap, and the writer. Beside it, in turn, write() of the same memory in one
call to another file of the same file system, and nothing else.
"""

from __future__ import annotations

import mmap
import os
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fentry.formats.tracefile import (
    ClockPair,
    CpuLosses,
    Module,
    Symbol,
    TraceMeta,
    TraceReader,
    TraceWriter,
)
from fentry.ring import layout
from fentry.ring.buffer import Geometry, RingBuffer
from fentry.ring.reader import Reader
from support import (
    CHECKOUT,
    Table,
    environment,
    fentry,
    ratios,
    scratch,
    take_turns,
    target_cpu,
)  # fmt: skip

RING_BYTES = 8 << 20  # what `fentry record` has by default
ROUNDS = 40  # rings of records, so a file of 320 MB
SYNCED_ROUNDS = 8
SYNCED_RINGS = 12  # rings of records before each fsync()
PROMISED_RATIO = 0.85
PROMISED_RECORDS = 40e6
SIZES = (128 << 20, 512 << 20, 2048 << 20)
FREE_BYTES = 8 << 30  # else only files of which three have room are made
FUNCTIONS = 1000
TIMES = 3
SHOWN = re.compile(rb"(\d+) of (\d+) events")


class OwnMemory:
    """Memory like SharedMemory, of this process alone."""

    def __init__(self, count: int) -> None:
        self.bytes = np.frombuffer(mmap.mmap(-1, count), np.uint8)

    def __len__(self) -> int:
        return len(self.bytes)


class FullRing:
    """A ring of one CPU that is filled again and again, as a program would, only faster."""

    def __init__(self, record_bytes: int) -> None:
        capacity = 1 << ((RING_BYTES // record_bytes).bit_length() - 1)
        geometry = Geometry(1, capacity, record_bytes)
        self.buffer = RingBuffer(OwnMemory(geometry.segment_bytes), geometry)  # type: ignore[arg-type]
        self.buffer.format(0, 0)
        self.reader = Reader(self.buffer)
        self.records = self.buffer.records[0]
        chance = np.random.default_rng(1)
        self._steps = np.cumsum(chance.integers(20, 80, capacity, np.uint64), dtype=np.uint64)
        self.records["key"] = chance.integers(0, FUNCTIONS, capacity, np.uint32)
        if record_bytes == 24:
            keys = self.records["key"].astype(np.uint64)
            self.records["parent_ip"] = keys * np.uint64(7) % np.uint64(FUNCTIONS) * np.uint64(64)

    @property
    def nbytes(self) -> int:
        """Bytes of records in it."""
        return self.records.nbytes

    def fill(self) -> None:
        """A lap of new records."""
        head = int(self.buffer.lines["head"][0])
        self.records["time"] = self._steps + np.uint64(head * 80)
        lap = head // len(self.records) % layout.LAPS
        self.records["word"] = 1234 | lap << layout.TID_BITS
        self.buffer.lines["head"][0] = head + len(self.records)

    def empty(self, writer: TraceWriter) -> None:
        """What `fentry record` does with what is in it."""
        for batch in self.reader.consume():
            records = np.ascontiguousarray(batch.records)
            writer.write_records(batch.cpu, batch.first, records.view(np.uint8).data)


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@contextmanager
def plain_file(path: Path) -> Iterator[int]:
    """A descriptor of a new file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def measure(
    folder: Path, record_bytes: int, rounds: int, rings: int, *, synced: bool, compress: bool
) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Seconds of each round of `rings` full rings, with fsync() or without; bytes of a round."""
    ring = FullRing(record_bytes)
    meta = TraceMeta(record_bytes=record_bytes, capacity=len(ring.records), nr_cpus=1)
    ours, theirs = folder / "ours", folder / "theirs"
    with TraceWriter(ours, meta, compress=compress) as writer, plain_file(theirs) as fd:

        def emptied() -> float:
            spent = 0.0
            for _ in range(rings):
                ring.fill()
                spent += seconds_of(lambda: ring.empty(writer))
            return spent + (seconds_of(lambda: os.fsync(writer._fd)) if synced else 0)

        def written() -> float:
            spent = 0.0
            for _ in range(rings):
                ring.records["time"] += np.uint64(1)  # the memory is warm for both
                spent += seconds_of(lambda: os.write(fd, ring.records.view(np.uint8).data))
            return spent + (seconds_of(lambda: os.fsync(fd)) if synced else 0)

        found = take_turns({"fentry": emptied, "write()": written}, rounds)
    ours.unlink()
    theirs.unlink()
    return found, ring.nbytes * rings


def recording() -> Table:
    """Full rings into a file beside write()."""
    table = Table(
        "From the ring to a file, one core, beside write() of the same bytes",
        ("record", "M records/s, best", "median", "MB/s, best", "write() alone, MB/s, best",
         "of write(), best", "median of rounds", f">= {PROMISED_RATIO:.2f} of write()",
         f">= {PROMISED_RECORDS / 1e6:.0f} M/s"),
    )  # fmt: skip
    cases = (
        ("16 bytes", 16, ROUNDS, 1, False, False),
        ("24 bytes", 24, ROUNDS, 1, False, False),
        ("16 bytes, fsync() each 96 MB", 16, SYNCED_ROUNDS, SYNCED_RINGS, True, False),
        ("24 bytes, fsync() each 96 MB", 24, SYNCED_ROUNDS, SYNCED_RINGS, True, False),
        ("16 bytes, --compress", 16, ROUNDS // 4, 1, False, True),
        ("24 bytes, --compress", 24, ROUNDS // 4, 1, False, True),
    )
    with scratch() as folder:
        for name, size, rounds, rings, synced, compress in cases:
            found, count = measure(folder, size, rounds, rings, synced=synced, compress=compress)
            ours, theirs = found["fentry"], found["write()"]
            best, median = (1 / ratio for ratio in ratios(found, "fentry", "write()"))
            records = count / size
            table.add(
                name, f"{records / ours.min() / 1e6:.0f}",
                f"{records / np.median(ours) / 1e6:.0f}", f"{count / ours.min() / 1e6:.0f}",
                f"{count / theirs.min() / 1e6:.0f}", f"{best:.2f}", f"{median:.2f}",
                "" if compress else kept(median, PROMISED_RATIO),
                "" if compress or size != 16 else kept(records / ours.min(), PROMISED_RECORDS),
            )  # fmt: skip
    table.notes.append(
        f"a ring of {RING_BYTES >> 20} MB at most, filled again before each turn, which is not "
        "measured; without fsync() the bytes are in the page cache"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    table.notes.append(f"most memory of this process, ring and all: {peak} MB")
    return table


def kept(value: float, promise: float) -> str:
    """Whether a figure is as large as was promised."""
    return "kept" if value >= promise * 0.995 else "missed"


def write_large(path: Path, count: int, compress: bool) -> int:
    """A trace of about `count` bytes of records of 24 bytes; how many they are."""
    ring = FullRing(24)
    meta = TraceMeta(record_bytes=24, capacity=len(ring.records), nr_cpus=1, tsc_hz=2_000_000_000)
    with TraceWriter(path, meta, compress=compress) as writer:
        writer.write_clock([ClockPair(0, 0, 0)])
        writer.write_modules([Module("/usr/bin/demo", "", 0, 64 * FUNCTIONS)])
        keys = np.arange(FUNCTIONS)
        writer.write_sites(keys.astype(np.uint32), (keys * 64).astype(np.uint64))
        writer.write_symbols([Symbol(64 * i, 64, f"f{i}", 0, 64 * i) for i in range(FUNCTIONS)])
        for _ in range(max(1, count // ring.nbytes)):
            ring.fill()
            ring.empty(writer)
        writer.write_losses([CpuLosses(0, writer.records_written, 0, 0, 0)])
        return writer.records_written


def opened(path: Path) -> None:
    """A trace that is opened and closed again."""
    with TraceReader(path):
        pass


def answered(path: Path) -> tuple[float, int]:
    """Seconds of a `fentry report` of one function in a thousand, and its events."""
    begin = time.perf_counter()
    done = subprocess.run(
        fentry("report", "-i", str(path), "-F", "f7", "--counts"), env=environment(),
        capture_output=True, check=True, cwd=CHECKOUT,
    )  # fmt: skip
    spent = time.perf_counter() - begin
    match = SHOWN.search(done.stderr)
    if match is None:
        raise RuntimeError(done.stderr.decode())
    return spent, int(match[1])


def opening() -> Table:
    """Files of growing size: how long until they are open, and until a filter is answered."""
    table = Table(
        "A large file",
        ("file, MB", "records, M", "open, ms, min", "answer to a filter, s, min", "M records/s",
         "of a file of 10 GB, s"),
    )  # fmt: skip
    with scratch() as folder:
        file = folder / "trace"
        for size, compress in (*((size, False) for size in SIZES), (SIZES[1], True)):
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            if free < FREE_BYTES and size * 3 > free:
                table.missing(f"{size >> 20}", "the disk has no room")
                continue
            records = write_large(file, size, compress)
            opens = min(seconds_of(lambda: opened(file)) for _ in range(5))
            answer = min(answered(file)[0] for _ in range(TIMES))
            nbytes = file.stat().st_size
            table.add(
                f"{nbytes / 1e6:.0f}" + (", --compress" if compress else ""),
                f"{records / 1e6:.1f}", f"{opens * 1e3:.1f}", f"{answer:.2f}",
                f"{records / answer / 1e6:.0f}",
                "" if compress else f"{answer / nbytes * 1e10:.0f}",
            )  # fmt: skip
            file.unlink()
    table.notes.append(
        "the filter chooses one function of 1000 and looks at every record; start-up is included, "
        "the file is in the page cache; the last column is the same speed carried on; functions "
        "and times are random, which real ones are not, so compressed files are smaller by less"
    )
    return table


def main() -> None:
    """Measure and print."""
    target_cpu()  # and one processor is left for the rest
    recording().print()
    opening().print()


if __name__ == "__main__":
    main()
