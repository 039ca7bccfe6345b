"""Names of C++ functions (Itanium C++ ABI), demangled within bounds.

A name of 255 bytes can refer to itself so often that it unfolds to gigabytes, and the C++ library's
`__cxa_demangle` knows no limit. So it is called in a process of its own, a child that has the
memory and the time that real names need; a name that needs more ends it and stays mangled.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from struct import Struct

_LONGEST_BYTES = 8192  # of a mangled name
_CPU_S = 0.1  # of CPU time a name: thousands of times what real ones take
_MEMORY_BYTES = 256 << 20  # more than it has at first
_MOST_LOST = 16  # children that names have ended: two seconds
_REQUEST_BYTES = 32 << 10  # less than a pipe holds: writing them never waits for the reader
_LENGTH = Struct("<I")  # of what follows
_LIBRARIES = ("libstdc++.so.6", "libc++abi.so.1", "libc++.so.1")
# What can make a demangled name longer than its mangled one by any factor: references to what was
# there before, and packs.
_UNFOLDS = re.compile(rb"[ST][0-9A-Z]*_|Dp|sZ|sP")


def demangle_cxx(names: Sequence[str]) -> list[str]:
    """The names as c++filt prints them; those that are no C++ names, or would be too long, as they
    are. Many together take half of the time of one after the other."""
    found = list(names)
    with _state.lock:
        for number, plain in _state.demangled(names):
            found[number] = plain
    return found


def longest(mangled_bytes: int) -> int:
    """How many bytes the demangled form of a name of so many bytes may have.

    Of 90,000 names of C++ libraries of Debian the longest has 4,015, for 226.
    """
    return 2048 + 16 * mangled_bytes


class _Worker:
    """A child that demangles what it is sent: u32 how many bytes follow, then names, each with a
    zero byte behind it. It answers each by u32 how many bytes follow, and as many; 0 for none."""

    def __init__(self, read: Callable[[bytes], bytes]) -> None:
        self._owner = os.getpid()
        self._has_ended = False
        taken, self._requests = os.pipe()
        answers, given = os.pipe()
        # Until it has handlers of its own: Ctrl-C in the child would go on in its parent's code.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._pid = os.fork()
            if not self._pid:
                _work(read, taken, given)
        except OSError:
            for descriptor in (taken, given, answers, self._requests):
                os.close(descriptor)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(taken)
        os.close(given)
        self._answers = os.fdopen(answers, "rb")

    def ask(self, names: Sequence[bytes]) -> Iterator[bytes]:
        """The answers, up to a name that ended it."""
        body = b"".join(names)
        try:
            _write(self._requests, _LENGTH.pack(len(body)) + body)
        except BrokenPipeError:
            return  # it has ended for some other reason
        for _ in names:
            header = self._answers.read(_LENGTH.size)
            size = _LENGTH.unpack(header)[0] if len(header) == _LENGTH.size else 0
            answer = self._answers.read(size)
            if len(header) < _LENGTH.size or len(answer) < size:
                return
            yield answer

    def has_ended(self) -> bool:
        """Whether it is there no longer: killed, or waited for by somebody else."""
        if not self._has_ended:
            try:
                self._has_ended = os.waitpid(self._pid, os.WNOHANG)[0] != 0
            except ChildProcessError:
                self._has_ended = True
        return self._has_ended

    def close(self) -> None:
        """End it, where it is a child of this process."""
        os.close(self._requests)
        self._answers.close()
        if self._owner == os.getpid() and not self.has_ended():  # its pid may be another's by now
            with suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)


class _State:
    # The worker of this process, if there is one, and how many have been lost.

    def __init__(self, worker: _Worker | None = None) -> None:
        self.lock = threading.Lock()
        self._worker = worker
        self._lost = 0
        self._read: Callable[[bytes], bytes] | None = None

    def demangled(self, names: Sequence[str]) -> Iterator[tuple[int, str]]:
        # (number, demangled name) of those that have one.
        waiting = [(i, raw) for i, name in enumerate(names) if (raw := _encoded(name))]
        waiting.reverse()
        while waiting:
            if self._lost >= _MOST_LOST:
                waiting = [(i, raw) for i, raw in waiting if not _UNFOLDS.search(raw)]
            asked, count = [], 0
            while waiting and count < _REQUEST_BYTES - _LONGEST_BYTES:
                asked.append(waiting.pop())
                count += len(asked[-1][1])
            try:
                answers = self._ask([raw for _, raw in asked])
            except OSError:  # there is no C++ library, or no process can be made: no names
                return
            for (number, _), plain in zip(asked, answers, strict=False):
                with suppress(UnicodeError):
                    if plain:
                        yield number, plain.decode()
            # The one that ended the worker has no answer; those behind it are asked again.
            waiting += reversed(asked[len(answers) + 1 :])

    def _ask(self, names: Sequence[bytes]) -> list[bytes]:
        # The answers, up to a name that ended the worker.
        if not names:
            return []
        if self._worker is not None and self._worker.has_ended():
            self.end()  # not by one of these
        if self._worker is None:
            self._read = self._read or _reader()
            self._worker = _Worker(self._read)
        answers: list[bytes] = []
        try:
            answers.extend(self._worker.ask(names))
        finally:
            if len(answers) < len(names):  # or Ctrl-C: the next answer would be one to this
                self._lost += 1
                self.end()
        return answers

    def end(self) -> None:
        # The worker; another is started when somebody asks again.
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def _reader() -> Callable[[bytes], bytes]:
    # What demangles a name with a zero byte behind it, without bounds. Raises OSError.
    for name in _LIBRARIES:
        with suppress(OSError):
            # char *__cxa_demangle(const char *, char *buffer, size_t *, int *status): 3.4 of the
            # Itanium C++ ABI
            demangle = ctypes.CDLL(name).__cxa_demangle
            break
    else:
        raise FileNotFoundError("no C++ library")
    demangle.restype = ctypes.c_void_p
    demangle.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]

    def read(name: bytes) -> bytes:
        found = demangle(name, None, None, None)
        plain = ctypes.string_at(found) if found else b""
        free(found)
        return plain

    return read


def _work(read: Callable[[bytes], bytes], taken: int, given: int) -> None:
    # The child: it has nothing else of its parent, and never returns.
    try:
        os.setsid()  # Ctrl-C is not for it
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # also one from before
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _keep_only(taken, given)
        _unmap_shared()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = _address_space_bytes() + _MEMORY_BYTES
        if most == resource.RLIM_INFINITY or wanted < most:
            resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
        with os.fdopen(0, "rb") as requests:
            while len(header := requests.read(_LENGTH.size)) == _LENGTH.size:
                for name in requests.read(*_LENGTH.unpack(header)).split(b"\0")[:-1]:
                    signal.setitimer(signal.ITIMER_PROF, _CPU_S)
                    plain = read(name)
                    plain = plain if len(plain) <= longest(len(name)) else b""
                    _write(1, _LENGTH.pack(len(plain)) + plain)
    finally:
        os._exit(0)


def _keep_only(taken: int, given: int) -> None:
    # The pipes, as descriptors 0 and 1; memory and terminal of others end with them.
    nothing = os.open(os.devnull, os.O_RDWR)
    above = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 3) for one in (taken, given, nothing)]
    for number, descriptor in enumerate(above):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def _unmap_shared() -> None:
    # Rings would stay in memory as long as the child lives. Nobody here looks at them any more: no
    # object of the parent's is freed.
    gc.disable()
    unmap = ctypes.CDLL(None).munmap
    unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with open("/proc/self/maps", "rb") as file:
        mappings = [line.split(None, 2)[:2] for line in file]
    for place, rights in mappings:
        if rights[1:2] == b"w" and rights.endswith(b"s"):
            low, high = (int(one, 16) for one in place.split(b"-"))
            unmap(low, high - low)


def _write(descriptor: int, data: bytes) -> None:
    # All of it: a pipe takes less when its writer is stopped for a while, or has a signal.
    while data:
        data = data[os.write(descriptor, data) :]


def _address_space_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _encoded(name: str) -> bytes:
    # With the zero byte behind it; nothing for what is no name of the C++ ABI.
    try:
        raw = name.encode()
    except UnicodeError:
        return b""
    is_one = raw.startswith(b"_Z") and b"\0" not in raw and len(raw) < _LONGEST_BYTES
    return raw + b"\0" if is_one else b""


_state = _State()


def _forget() -> None:
    # In a forked child: the worker is the parent's.
    global _state
    worker, _state = _state._worker, _State()
    if worker is not None:
        worker.close()


os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _state.end())
