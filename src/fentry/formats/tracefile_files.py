"""The files of a recording: one, or with rotation PATH, PATH.1, PATH.2 ..., the newest first.

Each is a trace by itself. What has to be written again into a next file is copied here as far as
it is in the file before: modules and names of functions. The rest is the recording's.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from fentry.errors import BadInput
from fentry.formats.tracefile_payloads import TraceMeta
from fentry.formats.tracefile_writer import (
    TraceWriter,
    cannot,
    refuse_recorded,
    refuse_unless_replaceable,
)

SMALLEST_BYTES = 4 << 20
"""Of a limit: some batches of the ring's reader, and the end of a file."""

CLOSING_BYTES = 256 << 10
"""Kept free below a limit for what completes a file: list of sections, counts, names of threads."""

_WORST_RECORD_BYTES = 25  # of 24, with its part of the table of planes


@dataclass(frozen=True, slots=True)
class Storage:
    """How a recording is stored.

    compress     records in PACKED sections
    limit_bytes  size of a file, 0 for any; twice that of the names of functions if that is more
    rotates      at the limit a next file begins; else the recording ends
    keep         files that are kept at most, the newest included; 0 for all
    """

    compress: bool = False
    limit_bytes: int = 0
    rotates: bool = False
    keep: int = 0

    def __post_init__(self) -> None:
        """Raises BadInput for limits that no recording can keep."""
        if self.limit_bytes and self.limit_bytes < SMALLEST_BYTES:
            raise BadInput(
                f"a trace file of {self.limit_bytes} bytes is too small",
                cause="records are written some MB at a time",
                remedy=f"{SMALLEST_BYTES >> 20}M or more",
            )
        if self.keep == 1:
            raise BadInput(
                "one file alone cannot be rotated", remedy="2 or more, or --max-size to end there"
            )


ONE_FILE = Storage()
"""Plain records in one file of any size."""


class TraceFiles:
    """The file being written, `writer`, and what became of those before it.

    nr_files         files written so far, the present one included
    removed          of these, those that were removed as too many, and
    removed_records  the records that were in them
    """

    def __init__(self, path: str | os.PathLike[str], meta: TraceMeta, storage: Storage) -> None:
        """Raises TraceFileError as TraceWriter, and where the name of a rotated file is taken by
        something else."""
        self.storage = storage
        self._path = Path(path)
        self._meta = dataclasses.replace(meta, recording=secrets.token_hex(8))
        self.nr_files = 1
        self.removed = self.removed_records = 0
        self._before = 0
        self._records: deque[int] = deque()  # of rotated files that are kept, newest first
        if storage.rotates:
            self._path = self._path.resolve()
            if self._path.exists():
                refuse_recorded(self._path)
                self._shift()
        self.writer = TraceWriter(self._path, self._meta, compress=storage.compress)

    @property
    def records_written(self) -> int:
        """Records in all files, the removed ones included."""
        return self._before + self.writer.records_written

    def has_room(self, count: int) -> bool:
        """Whether `count` records more are within the limit, however badly they compress."""
        if not self.storage.limit_bytes:
            return True
        names_bytes = sum(payload_bytes for _, _, payload_bytes in self.writer.names)
        limit = max(self.storage.limit_bytes, 2 * names_bytes)
        return self.writer.bytes_written + count * _WORST_RECORD_BYTES + CLOSING_BYTES <= limit

    def rotate(self) -> None:
        """Complete the present file and begin a next one, with its modules and names of functions.

        Raises TraceFileError; no file is lost, and `writer` may then be closed only.
        """
        before = self.writer
        with before.reading() as source:
            before.close()
            self._shift()
            self._count_removed(before.records_written)
            meta = dataclasses.replace(self._meta, part=self.nr_files)
            self.writer = TraceWriter(self._path, meta, compress=self.storage.compress)
            self._before += before.records_written
            self.nr_files += 1
            self.writer.copy_sections(source, before.names)

    def _shift(self) -> None:
        try:
            refuse_unless_replaceable(self._path)
            for number in reversed(rotated(self._path)):
                if self.storage.keep and number >= self.storage.keep - 1:
                    numbered(self._path, number).unlink(missing_ok=True)
                else:
                    numbered(self._path, number).rename(numbered(self._path, number + 1))
            self._path.rename(numbered(self._path, 1))
        except OSError as error:
            raise cannot(str(self._path), "rotate", error) from error

    def _count_removed(self, records: int) -> None:
        # After a file with so many became the first of the rotated ones.
        if not self.storage.keep:
            return
        self._records.appendleft(records)
        if len(self._records) == self.storage.keep:
            self.removed += 1
            self.removed_records += self._records.pop()


def numbered(path: Path, number: int) -> Path:
    """The name of a file that was rotated `number` times."""
    return path.with_name(f"{path.name}.{number}")


def rotated(path: Path) -> list[int]:
    """The numbers of the rotated files of a path, from 1 to the first that is not there.

    Raises TraceFileError where one is something else than a trace.
    """
    numbers: list[int] = []
    while (file := numbered(path, len(numbers) + 1)).exists():
        refuse_unless_replaceable(file)
        numbers.append(len(numbers) + 1)
    return numbers
