"""fentry: ftrace for user space.

    import fentry

    with fentry.attach(pid) as session:                       # fentry.run([...]) starts one
        with session.trace("libc!mem*", exclude="*_avx*") as trace:
            session.wait(1)
        print(trace.counts())                                 # function -> calls
        trace.table().to_pandas()                             # numpy, Arrow and pandas columns
        for event in session.stream("libc!malloc", duration=1):
            print(event.comm, event.function, event.parent)

    with fentry.counting(pid, "f") as calls:                  # in a test
        ...
    assert calls["f"] == 2

    with fentry.open("trace.fentry") as trace:                # the same of `fentry record`
        print(trace.counts())

Leaving a block restores every byte of the process. Below that are ops, as the kernel has them:
`session.register(fentry.Ops(fentry.Callback.COUNT, ("libc!mem*",)))` counts, `Callback.RECORD`
records into a ring of `session.instance("name")`, and `Callback.CALL` calls a C function:

    function = fentry.CFunction.compile(source)
    ops = session.register(fentry.Ops(fentry.Callback.CALL, ("f",), function=function))

Ops with a `ThreadFilter` see some threads only. Errors are subclasses of FentryError and of the
builtin that fits. docs/python.md has sessions with their output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fentry.errors import FentryError

if TYPE_CHECKING:
    from fentry.dispatch.ops import Callback, Flags, Ops
    from fentry.dispatch.threads import ThreadFilter
    from fentry.instance import Instance
    from fentry.session import Options
    from fentry.tracing import (
        Counting,
        Counts,
        Event,
        Function,
        Lost,
        Session,
        Stream,
        Table,
        Trace,
        TraceFile,
        adopt,
        attach,
        counting,
        run,
    )
    from fentry.tracing import open as open
    from fentry.trampolines.direct import DirectCode
    from fentry.trampolines.native import CFunction

__version__ = "0.1.0"

__all__ = [
    "CFunction",
    "Callback",
    "Counting",
    "Counts",
    "DirectCode",
    "Event",
    "FentryError",
    "Flags",
    "Function",
    "Instance",
    "Lost",
    "Ops",
    "Options",
    "Session",
    "Stream",
    "Table",
    "ThreadFilter",
    "Trace",
    "TraceFile",
    "adopt",
    "attach",
    "counting",
    "run",
]
# Not `open`: whoever imports all of this has Python's as well.

_HOMES = {
    "CFunction": "fentry.trampolines.native",
    "Callback": "fentry.dispatch.ops",
    "Counting": "fentry.tracing",
    "Counts": "fentry.tracing",
    "DirectCode": "fentry.trampolines.direct",
    "Event": "fentry.tracing",
    "Flags": "fentry.dispatch.ops",
    "Function": "fentry.tracing",
    "Instance": "fentry.instance",
    "Lost": "fentry.tracing",
    "Ops": "fentry.dispatch.ops",
    "Options": "fentry.session",
    "Session": "fentry.tracing",
    "Stream": "fentry.tracing",
    "Table": "fentry.tracing",
    "ThreadFilter": "fentry.dispatch.threads",
    "Trace": "fentry.tracing",
    "TraceFile": "fentry.tracing",
    "adopt": "fentry.tracing",
    "attach": "fentry.tracing",
    "counting": "fentry.tracing",
    "open": "fentry.tracing",
    "run": "fentry.tracing",
}


def __getattr__(name: str) -> object:
    # Names are fetched when they are used: `fentry --help` must not load the assembler.
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'fentry' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
