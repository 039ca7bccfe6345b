"""TraceSet: several files of one recording, read as one trace."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from fentry.errors import TraceFileError
from fentry.events.columns import Addresses, Events
from fentry.events.merge import Merge
from fentry.formats.tracefile_files import numbered
from fentry.formats.tracefile_payloads import CpuLosses, Json
from fentry.formats.tracefile_reader import TraceReader, within
from fentry.formats.tracefile_sections import Damage


class TraceSet:
    """Files that follow one another in time, in any order; a context manager.

    Its attributes are those of TraceReader: sums and lists over the files. Names are those of the
    file that has most, as each repeats those before it. Raises TraceFileError as TraceReader, and
    for files that are not of one recording.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        with ExitStack() as opened:
            found = [opened.enter_context(TraceReader(path)) for path in dict.fromkeys(paths)]
            self._parts = sorted(found, key=lambda part: part.meta.part)
            _check(self._parts)
            self._opened = opened.pop_all()
        newest = self._parts[-1]
        self.path, self.meta, self.has_time = newest.path, newest.meta, newest.has_time
        richest = max(self._parts, key=lambda part: len(part.symbols))
        self.symbols, self.symbol_names = richest.symbols, richest.symbol_names
        self.modules = richest.modules
        self.tasks = list(dict.fromkeys(task for part in self._parts for task in part.tasks))
        self.events: list[dict[str, Json]] = [e for part in self._parts for e in part.events]
        self.records = sum(part.records for part in self._parts)
        self.complete = all(part.complete for part in self._parts)
        self.late = 0
        self._missing = _missing(self._parts)

    @classmethod
    def rotated(cls, path: str | os.PathLike[str]) -> Self:
        """PATH with PATH.1, PATH.2 ... as far as they are of the same recording."""
        paths = [Path(path)]
        with TraceReader(path) as newest:
            recording = newest.meta.recording
        while recording and (file := numbered(paths[0], len(paths))).exists():
            with TraceReader(file) as part:
                if not part.meta.recording and part.damage:
                    raise TraceFileError(
                        f"cannot read {file}",
                        cause="what recording it is of is in a part of it that is damaged",
                        remedy="-i for each of the others, and for it alone",
                    )
                if part.meta.recording != recording:
                    break
            paths.append(file)
        return cls(paths)

    @property
    def torn(self) -> int:
        """Torn records met so far, in all files."""
        return sum(part.torn for part in self._parts)

    @property
    def damage(self) -> list[Damage]:
        """Damage met so far, with the file's name, and files that are missing."""
        found = [
            Damage(one.offset, f"{one.what} ({part.path.name})")
            for part in self._parts
            for one in part.damage
        ]
        return self._missing + found

    @property
    def losses(self) -> list[CpuLosses]:
        """Losses by CPU number: each file states those of its time."""
        rows: dict[int, list[int]] = {}
        for part in self._parts:
            for cpu, *counts in part.losses:
                known = rows.setdefault(cpu, [0] * len(counts))
                rows[cpu] = [a + b for a, b in zip(known, counts, strict=True)]
        return [CpuLosses(cpu, *rows[cpu]) for cpu in sorted(rows)]

    @property
    def entries(self) -> Addresses:
        """The function entries of all files."""
        return np.unique(np.concatenate([part.entries for part in self._parts]))

    def batches(
        self,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        only: Addresses | None = None,
    ) -> Iterator[Events]:
        """Events in the order of the files."""
        for part in self._parts:
            yield from part.batches(start_ns=start_ns, end_ns=end_ns, only=only)

    def merged(
        self,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        only: Addresses | None = None,
    ) -> Iterator[Events]:
        """Events in order of time across CPUs, also where one file ends and the next begins."""
        cpus = sorted({cpu for part in self._parts for cpu in part.cpus})
        streams = [self._cpu_events(cpu, only) for cpu in cpus]
        if not self.has_time:
            for stream in streams:
                yield from stream
            return
        merge = Merge(streams)
        for events in merge:
            self.late = merge.late
            yield from within(iter((events,)), start_ns, end_ns)

    def _cpu_events(self, cpu: int, only: Addresses | None) -> Iterator[Events]:
        for part in self._parts:
            yield from part.cpu_events(cpu, only)

    def close(self) -> None:
        """Unmap the files; Events already delivered stay valid."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check(parts: Sequence[TraceReader]) -> None:
    first = parts[0]
    for earlier, part in itertools.pairwise(parts):
        if not first.meta.recording or part.meta.recording != first.meta.recording:
            cause = f"{first.path} and {part.path} are not files of one recording"
        elif part.meta.part == earlier.meta.part:
            cause = f"{earlier.path} and {part.path} are the same part of it"
        else:
            continue
        raise TraceFileError(
            "cannot read these files as one trace", cause=cause, remedy="each by itself"
        )


def _missing(parts: Sequence[TraceReader]) -> list[Damage]:
    # The oldest may have been removed; what lies between two files was left out by somebody.
    return [
        Damage(0, f"{lost} files of the recording are missing before {part.path.name}")
        for earlier, part in itertools.pairwise(parts)
        if (lost := part.meta.part - earlier.meta.part - 1)
    ]
