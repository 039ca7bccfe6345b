"""Control groups that are frozen: what runs in one cannot be stopped, nor made to work for us.

Documentation/admin-guide/cgroup-v2.rst (cgroup.freeze, cgroup.events), and
cgroup-v1/freezer-subsystem.rst (freezer.state).
"""

from __future__ import annotations

import os

from fentry.errors import AttachError

_V1 = "/sys/fs/cgroup/freezer"
_V2 = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def frozen_group(pid: int) -> str:
    """The folder of the frozen control group that process `pid` is in, "" if it is in none. It is
    the process's own group, though one above may have been frozen."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "freezer" in controllers.split(",") and _says(_V1 + path, "freezer.state", "FROZEN"):
            return _V1 + path
        for root in () if controllers else _V2:
            if _says(root + path, "cgroup.events", "frozen 1"):
                return root + path
    return ""


def refuse_frozen(pid: int) -> None:
    """Raise AttachError for a process that stands still in a frozen control group."""
    group = frozen_group(pid)
    if group:
        raise AttachError(
            f"cannot stop process {pid}: its control group is frozen",
            cause=f"{group} (docker pause, systemctl freeze)",
            remedy="thaw it",
        )


def _says(folder: str, name: str, line: str) -> bool:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return line in file.read().splitlines()
    except OSError:
        return False
