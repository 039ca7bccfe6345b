"""What people use from Python: sessions with traces, streams and counts, and files like them."""

from fentry.tracing.counter import Counting, counting
from fentry.tracing.counts import Counts
from fentry.tracing.functions import Function
from fentry.tracing.session import Session, adopt, attach, run
from fentry.tracing.stream import Stream
from fentry.tracing.table import Event, Lost, Table
from fentry.tracing.trace import Trace
from fentry.tracing.tracefile import TraceFile
from fentry.tracing.tracefile import open as open

__all__ = [
    "Counting",
    "Counts",
    "Event",
    "Function",
    "Lost",
    "Session",
    "Stream",
    "Table",
    "Trace",
    "TraceFile",
    "adopt",
    "attach",
    "counting",
    "run",
]
