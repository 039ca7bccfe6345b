"""fentry: ftrace for user space.

    import fentry

    with fentry.attach(pid) as session:
        ops = session.register(fentry.Ops(fentry.Callback.COUNT, ("libc!mem*",)))
        ...
        ips, calls = session.counts(ops)

Leaving the block restores every byte of the process. `Callback.RECORD` ops write records with
time, thread and caller into a ring; `session.consume()` gives them as numpy records, and
`session.instance("name")` has a ring and functions of its own. Ops with a `ThreadFilter` see
some threads only; `session.set_threads()` changes which, while they run. `Callback.CALL` calls a
C function:

    function = fentry.CFunction.compile(source)
    ops = session.register(fentry.Ops(fentry.Callback.CALL, ("f",), function=function))

Errors are subclasses of FentryError and of the builtin that fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fentry.errors import FentryError

if TYPE_CHECKING:
    from fentry.dispatch.ops import Callback, Flags, Ops
    from fentry.dispatch.threads import ThreadFilter
    from fentry.instance import Instance
    from fentry.session import Options, Session, adopt, attach, run
    from fentry.trampolines.direct import DirectCode
    from fentry.trampolines.native import CFunction

__version__ = "0.1.0"

__all__ = [
    "CFunction",
    "Callback",
    "DirectCode",
    "FentryError",
    "Flags",
    "Instance",
    "Ops",
    "Options",
    "Session",
    "ThreadFilter",
    "adopt",
    "attach",
    "run",
]

_HOMES = {
    "CFunction": "fentry.trampolines.native",
    "Callback": "fentry.dispatch.ops",
    "DirectCode": "fentry.trampolines.direct",
    "Flags": "fentry.dispatch.ops",
    "Instance": "fentry.instance",
    "Ops": "fentry.dispatch.ops",
    "Options": "fentry.session",
    "Session": "fentry.session",
    "ThreadFilter": "fentry.dispatch.threads",
    "adopt": "fentry.session",
    "attach": "fentry.session",
    "run": "fentry.session",
}


def __getattr__(name: str) -> object:
    # Names are fetched when they are used: `fentry --help` must not load the assembler.
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'fentry' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
