"""What /proc tells of a process and its threads, parsed: proc(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fentry.errors import TargetGone

_PF_IO_WORKER = 0x00000010  # include/linux/sched.h
_PF_USER_WORKER = 0x00004000
_PF_KTHREAD = 0x00200000


@dataclass(frozen=True, slots=True)
class Status:
    """/proc/PID/status, the lines that matter here.

    `ns_pids` are the ids of the process from our pid namespace down to its own, `permitted` its
    capabilities (bit n is capability n), `vm_bytes` the size of its address space.
    """

    name: str
    state: str
    tgid: int
    tracer_pid: int
    uids: tuple[int, ...]
    ns_pid: int
    threads: int
    seccomp: int
    shadow_stack: bool = False
    gids: tuple[int, ...] = ()
    ns_pids: tuple[int, ...] = ()
    permitted: int = 0
    vm_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stat:
    """/proc/PID/stat, the fields that matter here; `start_time` in clock ticks since boot."""

    state: str
    parent_pid: int
    flags: int
    threads: int
    start_time: int

    @property
    def is_kernel_worker(self) -> bool:
        """An io_uring or vhost worker: a thread of the process that never runs its code."""
        return bool(self.flags & (_PF_IO_WORKER | _PF_USER_WORKER))

    @property
    def is_kernel_thread(self) -> bool:
        """A process of the kernel: it has no memory of its own."""
        return bool(self.flags & _PF_KTHREAD)

    @property
    def is_dead(self) -> bool:
        """A zombie, or about to vanish."""
        return self.state in "ZXx"


def _read(path: str) -> bytes:
    # Read inside stops: open() would ask three things more of the kernel.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(fd, 1 << 16):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetGone(f"no process behind {path}") from error


def read_status(pid: int, tid: int | None = None) -> Status:
    """The status of a process, or of one of its threads. Raises TargetGone."""
    path = f"/proc/{pid}/status" if tid is None else f"/proc/{pid}/task/{tid}/status"
    fields: dict[bytes, bytes] = {}
    for line in _read(path).split(b"\n"):
        name, _, value = line.partition(b":")
        fields[name] = value.strip()
    ns_pids = tuple(int(word) for word in fields.get(b"NSpid", fields[b"Pid"]).split())
    return Status(
        name=fields[b"Name"].decode(errors="replace"),
        state=fields[b"State"][:1].decode(),
        tgid=int(fields[b"Tgid"]),
        tracer_pid=int(fields[b"TracerPid"]),
        uids=tuple(int(word) for word in fields[b"Uid"].split()),
        ns_pid=ns_pids[-1],
        threads=int(fields.get(b"Threads", b"1")),
        seccomp=int(fields.get(b"Seccomp", b"0")),
        # Documentation/arch/x86/shstk.rst
        shadow_stack=b"shstk" in fields.get(b"x86_Thread_features", b"").split(),
        gids=tuple(int(word) for word in fields.get(b"Gid", b"").split()),
        ns_pids=ns_pids,
        permitted=int(fields.get(b"CapPrm", b"0"), 16),
        vm_bytes=int(fields.get(b"VmSize", b"0").split()[0]) * 1024,
    )


def status_number(pid: int, tid: int, name: bytes) -> int:
    """One number of a thread's status, 0 where the kernel has no such line. Raises TargetGone.

    For many threads, inside stops: read_status() takes five times as long.
    """
    text = _read(f"/proc/{pid}/task/{tid}/status")
    at = text.find(b"\n" + name + b":\t")
    return int(text[at + len(name) + 3 :].split(None, 1)[0]) if at >= 0 else 0


def read_stat(pid: int, tid: int | None = None) -> Stat:
    """State, flags and start time of a process or thread. Raises TargetGone."""
    text = _read(f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat")
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(
        fields[0].decode(), int(fields[1]), int(fields[6]), int(fields[17]), int(fields[19])
    )


def is_dead(pid: int, tid: int) -> bool:
    """Whether a thread is a zombie or gone."""
    try:
        return read_stat(pid, tid).is_dead
    except TargetGone:
        return True


def living(pid: int) -> str:
    """The folder in /proc that shows the memory of `pid`: a live thread's if its leader has
    ended, because that one's shows nothing any more."""
    if is_dead(pid, pid):
        for tid in list_tids(pid):
            if not is_dead(pid, tid):
                return f"/proc/{pid}/task/{tid}"
    return f"/proc/{pid}"


def list_tids(pid: int) -> list[int]:
    """The threads of a process, lowest first; empty when it is gone."""
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return []


def running() -> int:
    """How many threads of the whole machine want a processor at this moment, the caller with
    them: proc_loadavg(5)."""
    return int(_read("/proc/loadavg").split()[3].partition(b"/")[0])


def all_pids() -> list[int]:
    """Every process that /proc shows, lowest first."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def read_maps_text(pid: int) -> bytes:
    """/proc/PID/maps as it is; empty for a process whose memory is gone. Raises TargetGone,
    PermissionError."""
    return _read(f"/proc/{pid}/maps")


def read_auxv(pid: int) -> bytes:
    """The auxiliary vector that the program of a process was started with: a fork keeps it, an
    exec makes another. Raises TargetGone, PermissionError."""
    return _read(f"{living(pid)}/auxv")


def children_of(pid: int) -> list[int]:
    """The child processes of all threads of `pid`, as far as the kernel lists them."""
    found: list[int] = []
    for tid in list_tids(pid):
        try:
            text = _read(f"/proc/{pid}/task/{tid}/children")
        except TargetGone:
            continue
        found += [int(word) for word in text.split()]
    return found


def command_of(pid: int) -> str:
    """The command line of a process in one line, for messages; its name when it has none."""
    try:
        line = _read(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ")
        return line.decode(errors="replace") or read_status(pid).name
    except (TargetGone, PermissionError):
        return "?"


def has_command(pid: int) -> bool:
    """Whether a process has a command line: not so in the middle of an exec, and where it has taken
    it away itself. Raises TargetGone, PermissionError."""
    return bool(_read(f"/proc/{pid}/cmdline"))


def thread_name(pid: int, tid: int) -> str:
    """comm of a thread, "" when it is gone."""
    try:
        return _read(f"/proc/{pid}/task/{tid}/comm").rstrip(b"\n").decode(errors="replace")
    except TargetGone:
        return ""


def possible_cpus() -> int:
    """How many CPUs this machine may ever have: one more than the highest possible number."""
    text = _read("/sys/devices/system/cpu/possible").decode()
    return 1 + max(int(word) for part in text.strip().split(",") for word in part.split("-"))


def has_one_node() -> bool:
    """Whether all CPUs that this machine may ever have lie on NUMA node 0."""
    try:
        return _read("/sys/devices/system/node/possible").strip() == b"0"
    except TargetGone:
        return False  # a kernel without NUMA does not say
