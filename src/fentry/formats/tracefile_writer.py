"""TraceWriter: appends sections to a trace file, pipe or descriptor.

Records go from the caller's memory to the kernel in one writev, without a copy and without
work per record, unless they are to be compressed.  Memory is bounded: the list of sections is
itself written out every INDEX_ENTRIES sections, as a chain that END points to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import select
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput, TraceFileError
from fentry.events.clock import ClockPair
from fentry.formats import tracefile_layout as layout
from fentry.formats import tracefile_payloads as payloads
from fentry.formats.tracefile_layout import SectionKind
from fentry.formats.tracefile_packing import pack
from fentry.ring.layout import record_dtype

_ZEROS = bytes(layout.SECTION_ALIGN)

_MODE = 0o600  # a trace holds addresses, which undo address space randomisation, and names

_CAUSES = {
    errno.ENOSPC: ("the disk is full", "free space and record again, or choose another -o"),
    errno.EDQUOT: ("the disk quota is used up", "free space and record again"),
    errno.EFBIG: ("the file size limit is reached", "raise it with ulimit -f, or record less"),
    errno.EPIPE: ("the reader of the pipe has gone", "keep it running, or write to a file"),
    errno.EACCES: ("no permission", "choose a path you may write to with -o"),
    errno.EROFS: ("the file system is read-only", "choose another path with -o"),
    errno.ENOENT: ("the folder does not exist", "create it, or choose another path with -o"),
    errno.EISDIR: ("it is a folder", "give the name of a file with -o"),
}


class TraceWriter:
    """A trace file being written; a context manager that ends in close().

    `target` is a path, or an open descriptor of a file, pipe or socket, which stays the
    caller's to close.  A new file has mode 0600.  An existing fentry trace or empty file is
    replaced (by a new inode: whoever reads the old one keeps it); any other regular file is
    refused with TraceFileError.  With `compress` records are stored in PACKED sections, and the
    file has the version that says so.

    Every write_ method raises TraceFileError when the bytes cannot be written.  After that the
    file ends with its last whole section, further writes are refused with the same error, and
    close() does not write END; what is in the file stays readable.

    names  the MODULES and SYMBOLS sections so far, as copy_sections() takes them
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | int,
        meta: payloads.TraceMeta,
        *,
        compress: bool = False,
    ) -> None:
        if meta.record_bytes not in (16, 24) or meta.capacity <= 0:
            raise BadInput(
                f"cannot write records of {meta.record_bytes} bytes "
                f"from a ring of {meta.capacity} records",
                cause="records have 16 or 24 bytes and a ring has at least one",
            )
        self.meta = meta
        self._compress = compress
        self._owns_fd = not isinstance(target, int)
        self._name = "descriptor" if isinstance(target, int) else os.fspath(target)
        self._fd = target if isinstance(target, int) else _create(Path(target))
        self._start, self._regular = _start_of(self._fd)
        self._offset = 0
        self._sequence = 0
        self._records = 0
        self._last_index = 0
        self._index: list[tuple[int, int, int, int, int, int]] = []
        self.names: list[tuple[SectionKind, int, int]] = []
        self._error: TraceFileError | None = None
        self._closed = False
        self._file_id = secrets.randbits(32)
        try:
            version = layout.PACKED_VERSION if compress else layout.VERSION
            self._write([_file_header(self._file_id, version)])
            self._section(SectionKind.META, payloads.encode_meta(meta))
        except TraceFileError:
            self.close()
            raise

    @property
    def bytes_written(self) -> int:
        """Bytes of whole sections written so far, file header included."""
        return self._offset

    @property
    def records_written(self) -> int:
        """Records written so far."""
        return self._records

    def write_records(self, cpu: int, first_position: int, records: memoryview) -> None:
        """Append the records of one CPU whose first has position `first_position`.

        `records` is any contiguous buffer of whole records, exactly as they lie in the ring;
        nothing is written for an empty one.  Raises BadInput for a part of a record.
        """
        view = memoryview(records).cast("B")
        count, rest = divmod(len(view), self.meta.record_bytes)
        if rest:
            raise BadInput(
                f"cannot write {len(view)} bytes of records of CPU {cpu}",
                cause=f"that is not a multiple of {self.meta.record_bytes} bytes",
            )
        if not count:
            return
        if self._compress:
            self._write_packed(cpu, first_position, view)
            return
        head = layout.RECORDS_STRUCT.pack(
            cpu, self.meta.record_bytes, first_position, count, self.meta.capacity
        )
        self._section(SectionKind.RECORDS, head, view, cpu=cpu, records=count)
        self._records += count

    def _write_packed(self, cpu: int, first_position: int, view: memoryview) -> None:
        records = np.frombuffer(view, record_dtype(self.meta.record_bytes))
        for start in range(0, len(records), layout.PACKED_RECORDS):
            part = records[start : start + layout.PACKED_RECORDS].copy()  # the ring's may change
            head = layout.PACKED_STRUCT.pack(
                cpu,
                self.meta.record_bytes,
                first_position + start,
                len(part),
                self.meta.capacity,
                int(part["time"][0]),
            )
            self._section(SectionKind.PACKED, head + pack(part), cpu=cpu, records=len(part))
            self._records += len(part)

    def write_sites(self, keys: NDArray[np.uint32], ips: NDArray[np.uint64]) -> None:
        """Say that site key keys[i] stands for the function entry ips[i]; keys are not reused."""
        self._section(SectionKind.SITES, payloads.encode_sites(keys, ips))

    def write_symbols(self, symbols: Sequence[payloads.Symbol]) -> None:
        """Name functions; `module` counts over all modules written, in order, from 0."""
        self._section(SectionKind.SYMBOLS, payloads.encode_symbols(symbols))

    def write_modules(self, modules: Sequence[payloads.Module]) -> None:
        """Add files mapped in the target to the trace's list."""
        self._section(SectionKind.MODULES, payloads.encode_modules(modules))

    def write_tasks(self, tasks: Sequence[payloads.Task]) -> None:
        """Name threads; a thread may be named again later."""
        self._section(SectionKind.TASKS, payloads.encode_tasks(tasks))

    def write_clock(self, pairs: Sequence[ClockPair]) -> None:
        """Add moments seen on all clocks; needed before the first record and after the last."""
        self._section(SectionKind.CLOCK, payloads.encode_clock(pairs))

    def write_losses(self, losses: Sequence[payloads.CpuLosses]) -> None:
        """State the counts of some CPUs since tracing began; the last statement holds."""
        self._section(SectionKind.LOSSES, payloads.encode_losses(losses))

    def write_event(self, kind: str, time_ns: int, **fields: payloads.Json) -> None:
        """Note what happened to the trace itself: "stop", "gap", "detach" ... with its fields."""
        value: dict[str, payloads.Json] = {"kind": kind, "time_ns": time_ns, **fields}
        self._section(SectionKind.EVENTS, payloads.encode_json(value))

    @contextmanager
    def reading(self) -> Iterator[int]:
        """A descriptor that reads what was written to a path, also when the file is closed or has
        another name. Raises TraceFileError."""
        try:
            fd = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise cannot(self._name, "read", error) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def copy_sections(self, source: int, places: Sequence[tuple[SectionKind, int, int]]) -> None:
        """Append sections of another trace: (kind, offset of the payload, its size) in `source`."""
        for kind, offset, payload_bytes in places:
            try:
                payload = os.pread(source, payload_bytes, offset)
            except OSError as error:
                raise cannot(self._name, "read the file before", error) from error
            if len(payload) != payload_bytes:
                raise TraceFileError(
                    f"cannot go on in {self._name}", cause="the file before it was cut off"
                )
            self._section(kind, payload)

    def close(self) -> None:
        """Write the index and END unless a write had failed; close the file if we opened it."""
        if self._closed:
            return
        try:
            if self._error is None:
                self._write_end()
        finally:
            self._closed = True
            if self._owns_fd:
                os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_end(self) -> None:
        if self._index:
            self._write_index()
        end = np.array(
            (self._offset, self._last_index, self._sequence, self._records, time.time_ns()),
            layout.END_PAYLOAD,
        )
        self._section(SectionKind.END, end.tobytes())

    def _write_index(self) -> None:
        head = np.array((self._last_index, len(self._index)), layout.INDEX_HEADER)
        entries = np.array(self._index, layout.INDEX_ENTRY)
        offset = self._offset
        self._index.clear()
        self._section(SectionKind.INDEX, head.tobytes() + entries.tobytes())
        self._last_index = offset

    def _section(
        self,
        kind: SectionKind,
        head: bytes,
        bulk: memoryview | None = None,
        *,
        cpu: int = 0,
        records: int = 0,
    ) -> None:
        # The checksum covers `head` only: `bulk` is shared memory that may change meanwhile.
        if self._closed:
            raise TraceFileError(f"cannot write to {self._name}", cause="it is closed")
        payload_bytes = len(head) + (0 if bulk is None else len(bulk))
        header = layout.SECTION_STRUCT.pack(
            layout.SECTION_MAGIC,
            kind,
            0,
            payload_bytes,
            self._sequence & 0xFFFF_FFFF,
            self._file_id,
            zlib.crc32(head),
            0,
        )[:-4]
        parts: list[bytes | memoryview] = [header + zlib.crc32(header).to_bytes(4, "little") + head]
        if bulk is not None:
            parts.append(bulk)
        if layout.padding(payload_bytes):
            parts.append(_ZEROS[: layout.padding(payload_bytes)])
        offset = self._offset
        self._write(parts)
        if kind in (SectionKind.MODULES, SectionKind.SYMBOLS):
            self.names.append((kind, offset + len(header) + 4, payload_bytes))
        if kind not in (SectionKind.INDEX, SectionKind.END):
            self._index.append((offset, payload_bytes, self._sequence, kind, cpu, records))
        self._sequence += 1
        if len(self._index) >= layout.INDEX_ENTRIES:
            self._write_index()

    def _write(self, parts: list[bytes | memoryview]) -> None:
        if self._error is not None:
            raise self._error
        wanted = sum(len(part) for part in parts)
        try:
            _write_all(self._fd, parts, wanted)
        except OSError as error:
            self._error = cannot(self._name, "write to", error, self._offset)
            self._cut_to_whole_sections()
            raise self._error from error
        self._offset += wanted

    def _cut_to_whole_sections(self) -> None:
        if not self._regular:
            return
        try:
            os.ftruncate(self._fd, self._start + self._offset)
            os.lseek(self._fd, self._start + self._offset, os.SEEK_SET)
        except OSError as error:
            # a reader leaves the cut section out by itself; only say that it is there
            assert self._error is not None
            self._error.add_note(f"the unfinished section could not be cut off: {error}")


def _write_all(fd: int, parts: list[bytes | memoryview], wanted: int) -> None:
    # One writev is the rule; it comes back short on signals, pipes, limits and above 2 GiB.
    written = _writev(fd, parts)
    if written == wanted:
        return
    queue = [memoryview(part) for part in parts]
    while True:
        while queue and written >= len(queue[0]):
            written -= len(queue.pop(0))
        if not queue:
            return
        queue[0] = queue[0][written:]
        written = _writev(fd, queue)


def _writev(fd: int, parts: Sequence[bytes | memoryview]) -> int:
    while True:
        try:
            return os.writev(fd, parts)
        except BlockingIOError:  # somebody made our pipe non-blocking
            select.select([], [fd], [])


def _create(path: Path) -> int:
    try:
        path = path.resolve() if path.is_symlink() else path
        if path.exists():
            if not path.is_file():
                return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            refuse_unless_replaceable(path)
            refuse_recorded(path)
            path.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(path, flags, _MODE)
        fcntl.flock(fd, fcntl.LOCK_EX)  # until it is closed: see refuse_recorded()
        return fd
    except OSError as error:
        raise cannot(str(path), "create", error, 0) from error


def refuse_recorded(path: str | Path) -> None:
    """Raise TraceFileError where another recording is writing the file at this moment."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # whoever opens it for writing will be told
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TraceFileError(
            f"cannot write a trace to {path}",
            cause="another fentry is recording into it",
            remedy="another name with -o",
        ) from error
    finally:
        os.close(fd)


def refuse_unless_replaceable(path: Path) -> None:
    """Raise TraceFileError for what is neither a trace nor an empty file, or cannot be read."""
    start = b""
    try:
        if is_file := path.is_file():
            with path.open("rb") as file:
                start = file.read(len(layout.FILE_MAGIC))
    except OSError as error:
        raise cannot(str(path), "replace", error) from error
    if start not in (b"", layout.FILE_MAGIC) or not is_file:
        raise TraceFileError(
            f"cannot write a trace to {path}",
            cause="it exists and is not a fentry trace",
            remedy="another name with -o, or remove the file",
        )


def _start_of(fd: int) -> tuple[int, bool]:
    # where our first byte will lie, and whether an unfinished section can be cut off
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return 0, False
    return os.lseek(fd, 0, os.SEEK_CUR), True


def _file_header(file_id: int, version: int) -> bytes:
    header = np.zeros((), layout.FILE_HEADER)
    header["magic"] = layout.FILE_MAGIC
    header["version"] = version
    header["header_bytes"] = layout.FILE_HEADER.itemsize
    header["file_id"] = file_id
    header["created_ns"] = time.time_ns()
    header["header_crc"] = zlib.crc32(header.tobytes()[:-4])
    return header.tobytes()


def cannot(name: str, verb: str, error: OSError, offset: int = 0) -> TraceFileError:
    """The error of a file that cannot be written, with the cause and remedy for its errno."""
    usual = (os.strerror(error.errno or 0), "another path with -o")
    cause, remedy = _CAUSES.get(error.errno or 0, usual)
    return TraceFileError(f"cannot {verb} {name}", offset=offset, cause=cause, remedy=remedy)
