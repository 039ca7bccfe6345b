"""The trace file: one name to import its writer and reader from.

Format: docs/formats/trace_file.md.  Constants: tracefile_layout.
"""

from __future__ import annotations

from fentry.events.clock import ClockPair
from fentry.formats.tracefile_payloads import CpuLosses, Module, Symbol, Task, TraceMeta
from fentry.formats.tracefile_reader import TraceReader
from fentry.formats.tracefile_sections import Damage
from fentry.formats.tracefile_set import TraceSet
from fentry.formats.tracefile_writer import TraceWriter

__all__ = [
    "ClockPair",
    "CpuLosses",
    "Damage",
    "Module",
    "Symbol",
    "Task",
    "TraceMeta",
    "TraceReader",
    "TraceSet",
    "TraceWriter",
]
